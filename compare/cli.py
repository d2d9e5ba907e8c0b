"""The command line of the comparison."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from typing import Any, Final

from pydantic import BaseModel
from rich.table import Table

from common import __version__
from common.command_line import EX_USAGE, Parser
from common.errors import ConfigurationError, LabError
from common.settings import Settings, describe_settings, is_address, load_settings
from compare.bench.command import add_bench
from compare.bench.document import BenchDocument
from compare.checks import Verdict, verdict_of
from compare.console import PlainConsole
from compare.dlq_command import add_dlq
from compare.files import check_writable, write_document
from compare.lab import EMBEDDED, MODES, Lab, open_broker
from compare.processes import Processes
from compare.progress import progress_bar
from compare.report import Report
from compare.result import ResultDocument, ScenarioResult, setup
from compare.scenario import Scenario
from compare.scenario_files import built_in_scenarios, find_scenario
from compare.services import Services
from compare.simulation.ablate_command import AblationDocument, add_ablate
from compare.simulation.document import SimulationDocument
from compare.simulation.simulate_command import add_simulate
from compare.simulation.sweep_command import add_sweep
from compare.simulation.sweep_report import SweepDocument
from compare.soak_command import add_soak

EXIT_CODES: Final = {Verdict.VALID: 0, Verdict.INVALID: 1, Verdict.UNKNOWN: 2}

_SCHEMAS: Final[dict[str, type[BaseModel]]] = {
    "result": ResultDocument,
    "scenario": Scenario,
    "bench": BenchDocument,
    "simulation": SimulationDocument,
    "sweep": SweepDocument,
    "ablation": AblationDocument,
}

_EPILOG: Final = """\
exit codes: 0 valid, 1 invalid (an expectation or an invariant was broken), 2 unknown (it timed out or could
not be judged), 64 usage, 130 interrupted.

"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; KeyboardInterrupt is `compare.__main__`'s business."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    # The client logs each of its attempts; when they come to nothing, a LabError says so, once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # What a service gives up is wanted by a scenario, or else told by a check; both are in the report.
    logging.getLogger("common.batch").setLevel(logging.CRITICAL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C: whoever ends the lab politely finds nothing left behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code: int = arguments.do(arguments)
        sys.stdout.flush()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EX_USAGE
    except LabError as error:
        print(f"Could not be {arguments.meant}: {error}", file=sys.stderr)
        return EXIT_CODES[Verdict.UNKNOWN]
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CODES[Verdict.UNKNOWN]
    except Exception:  # noqa: BLE001 - a defect of the lab must not look like a verdict, which exit code 1 is
        traceback.print_exc()
        return EXIT_CODES[Verdict.UNKNOWN]
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m compare",
        description="Replay the same orders, orchestrated and choreographed, and show them side by side.",
        epilog=_EPILOG + describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(meant="judged")
    parser.add_argument("--version", action="version", version=f"saga-lab {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    add_soak(commands, EXIT_CODES.__getitem__)
    add_bench(commands, EXIT_CODES.__getitem__)
    add_simulate(commands, EXIT_CODES.__getitem__)
    add_sweep(commands, EXIT_CODES.__getitem__)
    add_ablate(commands, EXIT_CODES.__getitem__)
    add_dlq(commands)
    listing = commands.add_parser("list", help="list the built-in scenarios")
    listing.set_defaults(do=_list)
    show = commands.add_parser("show", help="describe a scenario: its orders and what is expected of them")
    show.add_argument(
        "scenario", metavar="SCENARIO", help="a built-in scenario's name, or a scenario file (*.yaml)"
    )
    show.set_defaults(do=_show)
    schema = commands.add_parser(
        "schema",
        help="print a JSON Schema: of scenario files, or of what a command writes with --json",
    )
    schema.add_argument("of", choices=list(_SCHEMAS), nargs="?", default="result")
    schema.set_defaults(do=_schema)
    return parser


def _add_run(commands: argparse._SubParsersAction[Parser]) -> None:
    run = commands.add_parser(
        "run",
        help="replay scenarios in both modes and compare",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help="a built-in scenario's name, or a scenario file (*.yaml); all built-in ones if none is given",
    )
    run.add_argument(
        "--broker",
        metavar=f"{EMBEDDED}|HOST:PORT[,...]",
        type=_broker,
        help="the broker to use (default: KAFKA_BOOTSTRAP_SERVERS, else embedded)",
    )
    run.add_argument("--mode", choices=["both", *MODES], default="both", help="replay in one mode only")
    run.add_argument(
        "--processes",
        action="store_true",
        help="run each service in a process of its own, which a crash ends by SIGKILL and a stop holds up by "
        "SIGSTOP; slower, for each has to start (default: all in this process, where a crash is the death of "
        "the service's task)",
    )
    run.add_argument(
        "--order", metavar="N", type=_positive, help="of several orders, show the trace of the Nth"
    )
    run.add_argument(
        "--json", metavar="FILE", help="write everything as JSON to FILE, or to standard output for -"
    )
    run.add_argument("--verbose", action="store_true", help="show the bodies of records, and every check")
    run.set_defaults(do=_run)


def _broker(text: str) -> str:
    if text != EMBEDDED and not all(map(is_address, text.split(","))):
        message = f"{text!r} is neither `{EMBEDDED}` nor HOST:PORT[,HOST:PORT...]"
        raise argparse.ArgumentTypeError(message)
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        message = f"{text!r} is no order's number; they count from 1"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    scenarios = [find_scenario(name) for name in arguments.scenarios] or built_in_scenarios()
    _check_order(arguments.order, scenarios)
    # With the document on standard output, people read the report on the other channel.
    report = Report(PlainConsole(stderr=arguments.json == "-"), verbose=arguments.verbose)
    check_writable("--json", arguments.json)
    for scenario in scenarios:
        if scenario.schedule:
            print(
                f"{scenario.name}: its schedule is for `python -m compare simulate`; on a broker that nobody "
                "can tell an order of events, only its faults strike.",
                file=sys.stderr,
            )
    # Not as the coroutine's result: Python 3.11 would write out all of it, unseen, when its loop is closed.
    documents: list[ResultDocument] = []
    asyncio.run(_replay_all(arguments, scenarios, settings, report, documents))
    (document,) = documents
    write_document("--json", arguments.json, document)
    if len(document.scenarios) > 1:
        report.overview(document)
    return EXIT_CODES[document.verdict]


def _check_order(number: int | None, scenarios: Sequence[Scenario]) -> None:
    if number is not None and not any(scenario.total_orders >= number for scenario in scenarios):
        most = max(scenario.total_orders for scenario in scenarios)
        message = f"--order {number}: there are {most} at most."
        raise ConfigurationError(message)


async def _replay_all(
    arguments: argparse.Namespace,
    scenarios: Sequence[Scenario],
    settings: Settings,
    report: Report,
    documents: list[ResultDocument],
) -> None:
    address = arguments.broker or settings.kafka_bootstrap_servers or EMBEDDED
    modes = list(MODES) if arguments.mode == "both" else [arguments.mode]
    results: list[ScenarioResult] = []
    with progress_bar() as progress:
        task = progress.add_task("starting")

        def told(scenario: str, mode: str, ended: int, total: int) -> None:
            progress.update(task, description=f"{scenario}, {mode}", completed=ended, total=total)

        async with open_broker(address, settings) as broker:
            lab = Lab(broker, settings, modes, told, Processes if arguments.processes else Services)
            for scenario in scenarios:
                if (why_not := lab.why_not(scenario)) is not None:
                    # What was asked for by name must not be missing without an error.
                    if arguments.scenarios:
                        raise ConfigurationError(f"{scenario.name} can't be replayed here: {why_not}.")
                    print(f"Left out: {scenario.name}: {why_not}.", file=sys.stderr)
                    continue
                results.append(await lab.replay(scenario))
                progress.stop()
                report.scenario(results[-1], arguments.order)
                progress.start()
    documents.append(
        ResultDocument(
            setup=setup(broker.name, broker.fetch_max_wait_ms, settings, processes=arguments.processes),
            verdict=verdict_of(result.verdict for result in results),
            scenarios=tuple(results),
        )
    )


def _schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(_SCHEMAS[arguments.of].model_json_schema(), indent=2))
    return 0


def _list(_: argparse.Namespace) -> int:
    table = Table(box=None, pad_edge=False)
    table.add_column("scenario", no_wrap=True)
    table.add_column("orders", justify="right")
    table.add_column("what happens", overflow="fold")
    for scenario in built_in_scenarios():
        table.add_row(scenario.name, str(scenario.total_orders), " ".join(scenario.description.split()))
    PlainConsole().print(table)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    scenario = find_scenario(arguments.scenario)
    console = PlainConsole()
    console.print(f"{scenario.name}: {' '.join(scenario.description.split())}")
    console.print(
        "stock: " + (", ".join(f"{pieces} {item}" for item, pieces in scenario.stock.items()) or "none")
    )
    table = Table(
        "orders", "customer", "item", "quantity", "price", "when", "expected", box=None, pad_edge=False
    )
    for spec in scenario.orders:
        when = f"{spec.at} s" + (f" after {spec.after}" if spec.after else "")
        expected = ", ".join(
            f"{key} {value}" for key, value in spec.expect.model_dump(exclude_none=True).items()
        )
        cells = (spec.count, spec.customer, spec.item, spec.quantity, spec.price, when, expected)
        table.add_row(*map(str, cells))
    console.print(table)
    expected_stock = ", ".join(f"{pieces} {item}" for item, pieces in scenario.expect.stock.items())
    console.print(f"stock expected in the end: {expected_stock or 'conserved'}")
    if scenario.deliveries > 1:
        console.print(f"every record is delivered {scenario.deliveries} times")
    document = scenario.document(given_only=True)
    for number, fault in enumerate(document.get("faults", ()), start=1):
        console.print(f"fault {number}: {_inline(fault)}")
    for number, spec in enumerate(document["orders"], start=1):
        if asked := {key: spec[key] for key in ("cancel", "retry_compensation") if key in spec}:
            console.print(f"orders {number}: {_inline(asked)}")
    console.print(
        f"patience: {_inline(document.get('recovery', {})) or 'as usual'}; {scenario.timeout} s in all"
    )
    return 0


def _inline(fields: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} ({_inline(value)})" if isinstance(value, dict) else f"{key} {value}"
        for key, value in fields.items()
    )
