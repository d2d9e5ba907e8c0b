"""`python -m compare bench`: its arguments, and what becomes of them."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final, get_args

from common.command_line import Parser
from common.settings import Settings, is_address, load_settings
from compare.bench.campaign import measure
from compare.bench.choice import Choice
from compare.bench.document import BenchDocument, Peer, Run
from compare.bench.environment import machine, versions
from compare.bench.figures import figures, ratios
from compare.bench.plot import check_plotting, plot
from compare.bench.report import BenchReport, verdict_of_runs
from compare.bench.spec import Durability
from compare.bench.telling import telling
from compare.checks import Verdict
from compare.console import PlainConsole
from compare.files import check_writable, write_document
from compare.lab import EMBEDDED, MODES
from compare.peers import PEERS

_MOST: Final = 10_000_000
_MOST_ITEMS: Final = 1_000_000
_MOST_PARTITIONS: Final = 1_000
_MOST_INSTANCES: Final = 100
_MOST_REPEATS: Final = 1_000


def add_bench(commands: argparse._SubParsersAction[Parser], code_of: Callable[[Verdict], int]) -> None:
    """Add the command."""
    bench = commands.add_parser(
        "bench",
        help="measure both modes, and the raw relay that is their limit, under the same load",
        description="Both modes and, for each, a raw relay that moves the same records over the same topics "
        "without a database or logic, take turns several times over. Each measurement is a process of its "
        "own: a closed loop (so many orders under way), one order at a time, and open loops (so many orders "
        "per second, whatever becomes of them). In the end every order is judged; what fails has no figure.",
        epilog="DATABASE_URL has the services' data in PostgreSQL; other settings by environment variable "
        "count, too. Exit codes: 0 valid, 1 invalid, 2 unknown, 64 usage, 130 interrupted.",
    )
    _add_load(bench)
    _add_surroundings(bench)
    bench.add_argument(
        "--repeats", metavar="N", type=_up_to(_MOST_REPEATS),
        help="times that all subjects take their turn, 1 to 1,000; if quick, fewer if time runs out "
        "(default: 6, the least for 95 %%; 3 if quick; 1 if scaling)",
    )  # fmt: skip
    bench.add_argument("--quick", action="store_true", help="end within a minute: smaller, fewer, less sure")
    bench.add_argument(
        "--scaling",
        action="store_true",
        help="the cost of a saga over a hundredth, a tenth and all of --orders (default: 100000), and on a "
        "broker that is not embedded with 1, 2 and 3 instances of each service, in place of the loads above",
    )
    bench.add_argument(
        "--peers", metavar="NAME[,...]", nargs="?", const="", type=_peers,
        help=f"other frameworks beside the modes, all that are installed or these: {', '.join(PEERS)}",
    )  # fmt: skip
    bench.add_argument(
        "--json", metavar="FILE", help="write everything as JSON to FILE, - for standard output"
    )
    bench.add_argument("--plot", metavar="FILE", help="draw the figures into FILE (.png, .svg, .pdf)")
    bench.set_defaults(do=lambda arguments: code_of(run(arguments)), meant="measured")


def _add_load(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--mode", choices=["both", *MODES], default="both", help="one mode only")
    bench.add_argument(
        "--orders", metavar="N", type=_up_to(_MOST),
        help="orders placed in the closed loop, unless --seconds are over before, 1 to 10,000,000 "
        "(default: 4000; 800 if quick; 100000 if scaling)",
    )  # fmt: skip
    bench.add_argument(
        "--seconds", metavar="S", type=_positive,
        help="seconds for which orders are placed in each phase, at most "
        "(default: 10; 1.5 if quick; 3600 if scaling)",
    )  # fmt: skip
    bench.add_argument(
        "--concurrency", metavar="N", type=_up_to(_MOST), default=200,
        help="orders under way in the closed loop (default: 200)",
    )  # fmt: skip
    bench.add_argument(
        "--rates", metavar="R[,...]", type=_rates,
        help="orders per second in the open loops (default: 100,300,1000, as far as they are below 90 %% of "
        "what the closed loop sustained; 200 if quick)",
    )  # fmt: skip
    bench.add_argument(
        "--declined", metavar="SHARE", type=_share, default=0.2,
        help="share of the orders whose payment is declined, so that they are compensated (default: 0.2)",
    )  # fmt: skip
    bench.add_argument(
        "--items", metavar="N", type=_up_to(_MOST_ITEMS), default=100,
        help="items in stock that the orders are spread over, 1 to 1,000,000; with 1, all contend for one "
        "row (default: 100)",
    )  # fmt: skip


def _add_surroundings(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--broker", metavar=f"{EMBEDDED}|HOST:PORT[,...]", type=_broker,
        help="(default: KAFKA_BOOTSTRAP_SERVERS, else embedded)",
    )  # fmt: skip
    bench.add_argument(
        "--partitions", metavar="N", type=_up_to(_MOST_PARTITIONS),
        help="partitions of each topic, 1 to 1,000 (default: TOPIC_PARTITIONS, else 3)",
    )  # fmt: skip
    bench.add_argument(
        "--processes", action="store_true", help="each service in a process of its own (default: all in one)"
    )
    bench.add_argument(
        "--instances", metavar="N", type=_up_to(_MOST_INSTANCES), default=1,
        help="instances of each service, 1 to 100; several are processes of their own, and need another "
        "broker than the embedded one (default: 1)",
    )  # fmt: skip
    bench.add_argument(
        "--durability", choices=get_args(Durability), default="FULL",
        help="FULL: a commit survives a power cut; NORMAL: the last ones may not, but nothing is torn "
        "(SQLite: synchronous; PostgreSQL: synchronous_commit) (default: FULL)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> Verdict:
    """Measure, print what came of it, and return the verdict.

    Raises:
        ConfigurationError: the arguments don't fit each other, or this machine.
        BrokerError: the broker can't be used.
    """
    settings = load_settings()
    for option in ("json", "plot"):
        check_writable(f"--{option}", getattr(arguments, option))
    if arguments.plot is not None:
        check_plotting(arguments.plot)
    chosen = Choice(arguments, settings)
    console = PlainConsole(stderr=arguments.json == "-")
    for note in chosen.notes:
        console.print(note)
    began, begun = monotonic(), datetime.now(UTC)
    at_first = machine()
    runs: list[Run] = []
    asyncio.run(_measure(chosen, settings, runs))
    document = BenchDocument(
        begun=begun.isoformat(timespec="seconds").replace("+00:00", "Z"),
        seconds=round(monotonic() - began, 1),
        command=shlex.join(["python", "-m", "compare", *sys.argv[1:]]),
        machine=at_first,
        versions=versions(),
        settings=chosen.used(),
        peers=tuple(map(_described, chosen.peers)),
        verdict=verdict_of_runs(runs).value,
        figures=figures(runs),
        ratios=ratios(runs),
        runs=tuple(runs),
    )
    try:
        BenchReport(console).document(document)
    finally:
        # Also if whoever reads the report has seen enough of it.
        _keep(document, arguments)
    return Verdict(document.verdict)


async def _measure(chosen: Choice, settings: Settings, runs: list[Run]) -> None:
    with telling() as told:
        for plan in chosen.plans:
            await measure(plan, settings, told(plan), runs.append)


def _described(name: str) -> Peer:
    peer = PEERS[name]
    return Peer(
        name=name,
        title=peer.title,
        versions=peer.versions(),
        guarantees=asdict(peer.guarantees),
        settings=dict(peer.settings),
    )


def _keep(document: BenchDocument, arguments: argparse.Namespace) -> None:
    write_document("--json", arguments.json, document)
    if arguments.plot is not None:
        plot(document, Path(arguments.plot))


def _up_to(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            message = f"{text!r} is no number from 1 to {most:,}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return number


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _MOST:
        message = f"{text!r} is no number above 0"
        raise argparse.ArgumentTypeError(message)
    return value


def _rates(text: str) -> tuple[float, ...]:
    return tuple(sorted({_positive(part) for part in text.split(",")}))


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        message = f"{text!r} is no share from 0 to 1"
        raise argparse.ArgumentTypeError(message)
    return value


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    if unknown := [name for name in names if name not in PEERS]:
        message = f"there is no peer {unknown[0]!r}; there are {', '.join(PEERS)}"
        raise argparse.ArgumentTypeError(message)
    return names


def _broker(text: str) -> str:
    if text != EMBEDDED and not all(map(is_address, text.split(","))):
        message = f"{text!r} is neither `{EMBEDDED}` nor HOST:PORT[,HOST:PORT...]"
        raise argparse.ArgumentTypeError(message)
    return text
