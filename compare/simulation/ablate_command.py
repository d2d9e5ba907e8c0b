"""`python -m compare ablate`: its arguments, and the grid that it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from common import __version__
from common.command_line import Parser
from common.settings import load_settings
from compare.checks import Verdict
from compare.console import PlainConsole
from compare.files import check_writable, write_document
from compare.lab import MODES
from compare.progress import progress_bar
from compare.recording import Frozen
from compare.signs import Pen
from compare.simulation.ablation import Ablated, Effort, Smallest, ablate
from compare.simulation.options import add_without, add_workers, number
from compare.simulation.pools import quiet_logs
from compare.simulation.protections import MEANINGS, Protection
from compare.simulation.sweep import Bounds

SCHEMA_VERSION: Final = 1

_DEFAULT: Final = Effort()
_MOST: Final = 10_000_000
_NONE: Final = "nothing"
_ALL_ON: Final = "with all of them"


class Shown(Frozen):
    """Anomalies, and the smallest history that shows them."""

    anomalies: tuple[str, ...]
    orders: tuple[dict[str, Any], ...] = Field(description="as in a scenario file")
    stock: dict[str, int]
    schedule: tuple[str, ...] = Field(description="what is out of the ordinary; all else happens in its turn")
    faults: tuple[str, ...]


class GridCell(Frozen):
    """What came of one mode without one protection."""

    mode: str
    without: str | None = Field(description="the protection; none in the row that has all of them")
    shown: tuple[Shown, ...]
    histories: int = Field(
        description="drawn, of built-in scenarios, and of sagas with one thing going wrong"
    )
    swept: int = Field(description="histories that the sweeps went through")
    states: int = Field(description="distinct ones, in the sweeps")
    exhausted: bool = Field(description="whether the sweeps went through all that is within their bounds")


class AblationDocument(Frozen):
    """The grid."""

    schema_version: Literal[1] = SCHEMA_VERSION
    lab_version: str
    seed: int
    runs: int
    crashes: int
    repeats: int
    most_states: int
    seconds: float
    verdict: Verdict = Field(description="invalid if something goes wrong with all protections in place")
    cells: tuple[GridCell, ...]


def add_ablate(commands: argparse._SubParsersAction[Parser], code_of: Callable[[Verdict], int]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "ablate",
        help="take each protection away, and show what it has prevented in which style",
        description="Without one protection at a time, in both modes: every history of some small sagas, up "
        "to a bound, each one thing going wrong in them, the built-in scenarios, and drawn histories. For "
        "each anomaly that comes of it, the smallest history that shows it. Protections are taken away from "
        "simulated services; no live one can be started so.",
        epilog="exit codes: 0 nothing goes wrong with all protections in place, 1 something does, 64 usage, "
        "130 interrupted.",
    )
    add_without(parser, "take this one away only")
    parser.add_argument("--mode", choices=["both", *MODES], default="both", help="in one mode only")
    parser.add_argument(
        "--seed", metavar="S", type=number(0, 2**31), default=_DEFAULT.seed,
        help=f"of the drawn histories (default: {_DEFAULT.seed})",
    )  # fmt: skip
    parser.add_argument(
        "--runs", metavar="N", type=number(1, _MOST), default=_DEFAULT.runs,
        help=f"histories drawn for each cell of the grid (default: {_DEFAULT.runs})",
    )  # fmt: skip
    parser.add_argument(
        "--most-states", metavar="N", type=number(1, _MOST), default=_DEFAULT.bounds.most_states,
        help="distinct states that each saga's sweep looks at in a mode, at most "
        f"(default: {_DEFAULT.bounds.most_states:,})",
    )  # fmt: skip
    add_workers(parser)
    parser.add_argument("--json", metavar="FILE", help="write the grid to FILE, or to standard output for -")
    parser.set_defaults(do=lambda arguments: code_of(run(arguments)), meant="simulated")


def run(arguments: argparse.Namespace) -> Verdict:
    """Ablate, print the grid, and return the verdict."""
    quiet_logs()
    check_writable("--json", arguments.json)
    console = PlainConsole(stderr=arguments.json == "-")
    chosen = [one for one in Protection if not arguments.without or one in arguments.without]
    protections: tuple[Protection | None, ...] = (None, *chosen)
    modes = tuple(MODES) if arguments.mode == "both" else (arguments.mode,)
    effort = Effort(
        seed=arguments.seed,
        runs=arguments.runs,
        bounds=Bounds(_DEFAULT.bounds.crashes, _DEFAULT.bounds.repeats, most_states=arguments.most_states),
        rules=load_settings().rules,
    )
    begun = monotonic()
    with progress_bar() as progress:
        task = progress.add_task("cells of the grid", total=len(protections) * len(modes))
        cells = ablate(
            protections, modes, effort, arguments.workers, lambda done: progress.update(task, completed=done)
        )
    document = _document(effort, cells, monotonic() - begun)
    write_document("--json", arguments.json, document)
    _print(console, document, modes)
    return document.verdict


def _document(effort: Effort, cells: Sequence[Ablated], seconds: float) -> AblationDocument:
    sound = all(not cell.smallest for cell in cells if cell.protection is None)
    return AblationDocument(
        lab_version=__version__,
        seed=effort.seed,
        runs=effort.runs,
        crashes=effort.bounds.crashes,
        repeats=effort.bounds.repeats,
        most_states=effort.bounds.most_states,
        seconds=round(seconds, 1),
        verdict=Verdict.VALID if sound else Verdict.INVALID,
        cells=tuple(map(_cell, cells)),
    )


def _cell(cell: Ablated) -> GridCell:
    by_history: dict[Smallest, list[str]] = {}
    for anomaly, small in cell.smallest.items():
        by_history.setdefault(small, []).append(anomaly)
    return GridCell(
        mode=cell.mode,
        without=cell.protection,
        shown=tuple(_shown(small, anomalies) for small, anomalies in by_history.items()),
        histories=cell.looked.histories,
        swept=cell.looked.swept,
        states=cell.looked.states,
        exhausted=cell.looked.exhausted,
    )


def _shown(small: Smallest, anomalies: Sequence[str]) -> Shown:
    scenario = small.scenario
    return Shown(
        anomalies=tuple(anomalies),
        orders=tuple(scenario.document(given_only=True)["orders"]),
        stock=dict(scenario.stock),
        schedule=small.schedule,
        faults=small.faults,
    )


def _print(console: Console, document: AblationDocument, modes: Sequence[str]) -> None:
    table = Table("without", *modes, box=None, pad_edge=False, padding=(0, 2, 1, 0))
    numbers = {id(shown): at for at, shown in enumerate(_all_shown(document), start=1)}
    for without in dict.fromkeys(cell.without for cell in document.cells):
        cells = [cell for cell in document.cells if cell.without == without]
        title = f"{without}\n{MEANINGS[Protection(without)]}" if without else _ALL_ON
        table.add_row(title, *("\n".join(_lines(cell, numbers)) for cell in cells))
    console.print(table)
    console.print("What shows it; all else happens in its turn:")
    for cell in document.cells:
        for shown in cell.shown:
            _print_history(console, numbers[id(shown)], cell, shown)
    histories = sum(cell.histories for cell in document.cells)
    swept, states = (sum(getattr(cell, name) for cell in document.cells) for name in ("swept", "states"))
    console.print(
        f"{histories:,} histories, drawn (seed {document.seed}) or with one thing going wrong, and "
        f"{swept:,} in sweeps of {states:,} distinct states; {document.seconds:.0f} s."
    )
    console.print("With all protections in place: ", Pen(console).badge(document.verdict), sep="")


def _all_shown(document: AblationDocument) -> Iterator[Shown]:
    return (shown for cell in document.cells for shown in cell.shown)


def _lines(cell: GridCell, numbers: Mapping[int, int]) -> Iterator[str]:
    for shown in cell.shown:
        *first, last = shown.anomalies
        yield from (f"{anomaly}," for anomaly in first)
        yield f"{last} [{numbers[id(shown)]}]"
    if not cell.shown:
        yield f"{_NONE} ({'exhausted' if cell.exhausted else 'sampled'})"


def _print_history(console: Console, number_: int, cell: GridCell, shown: Shown) -> None:
    orders = "; ".join(map(_order, shown.orders))
    stock = ", ".join(f"{pieces} {item}" for item, pieces in shown.stock.items()) or "nothing"
    title = f"[{number_}] {cell.mode}, without {cell.without or _NONE}: {', '.join(shown.anomalies)}"
    console.print(f"{title}. In stock: {stock}; orders: {orders}.", soft_wrap=True)
    for action in shown.schedule or ("(nothing out of the ordinary)",):
        console.print(f"      {action}", soft_wrap=True)
    for text in shown.faults[:1]:
        console.print(f"    so {text}", soft_wrap=True)


def _order(spec: Mapping[str, Any]) -> str:
    text = f"{spec.get('quantity', 1)} {spec['item']} at {spec['price']}"
    return f"{text}, to be cancelled" if "cancel" in spec else text
