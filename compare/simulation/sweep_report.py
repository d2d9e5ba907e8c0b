"""What a sweep has to say: a matrix of steps and boundaries, and how much was looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from pydantic import Field
from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common import __version__
from common.messages import Step
from compare.checks import Verdict
from compare.recording import Frozen
from compare.signs import Pen
from compare.simulation.options import told_without
from compare.simulation.protections import Protection
from compare.simulation.sagas import SAGAS
from compare.simulation.sweep import CRASHES, START, WAKE, Bounds, Cell, Outcome, Spot, Swept

_STEPS: Final = (*Step, WAKE, START)
_SHOWN: Final = (Outcome.CONVERGED, Outcome.STUCK, Outcome.LEAKED, Outcome.DOUBLED)


class SweptCell(Frozen):
    """What came of the crashes at one spot."""

    step: str
    at: str
    crashes: int
    outcomes: dict[str, int] = Field(
        description="by outcome: after how many of these crashes it can come to it"
    )


class SweptPart(Frozen):
    """One saga in one mode."""

    saga: str
    mode: str
    histories: int
    states: int
    ends: int
    exhausted: bool
    stopped_by: str | None = Field(description="the bound that has kept it from some histories")
    seconds: float
    outcomes: dict[str, int] = Field(description="by outcome: how many ends")
    cells: tuple[SweptCell, ...]
    examples: dict[str, tuple[str, ...]] = Field(description="by anomaly: the shortest history that shows it")


class SweepDocument(Frozen):
    """All of it."""

    schema_version: Literal[1] = 1
    lab_version: str
    crashes: int
    repeats: int
    early: int
    without: tuple[str, ...]
    parts: tuple[SweptPart, ...]
    verdict: Verdict


def verdict_of_sweep(swept: Iterable[Swept]) -> Verdict:
    """Invalid if anything goes wrong, unknown if nothing did but not all was looked at."""
    parts = list(swept)
    if not all(part.converges for part in parts):
        return Verdict.INVALID
    return Verdict.VALID if all(part.exhausted for part in parts) else Verdict.UNKNOWN


def sweep_document(
    bounds: Bounds, protections: frozenset[Protection], swept: Sequence[Swept]
) -> SweepDocument:
    """Put it together."""
    return SweepDocument(
        lab_version=__version__,
        crashes=bounds.crashes,
        repeats=bounds.repeats,
        early=bounds.early,
        without=tuple(sorted(protections)),
        parts=tuple(map(_part, swept)),
        verdict=verdict_of_sweep(swept),
    )


def _part(swept: Swept) -> SweptPart:
    return SweptPart(
        saga=swept.saga,
        mode=swept.mode,
        histories=swept.histories,
        states=swept.states,
        ends=swept.ends,
        exhausted=swept.exhausted,
        stopped_by=swept.stopped_by,
        seconds=round(swept.seconds, 1),
        outcomes=_counted(swept.outcomes),
        cells=tuple(
            SweptCell(step=spot.step, at=spot.at, crashes=cell.crashes, outcomes=_counted(cell.outcomes))
            for spot, cell in sorted(swept.cells.items(), key=lambda item: _place(item[0]))
        ),
        examples={anomaly: tuple(map(str, actions)) for anomaly, actions in sorted(swept.examples.items())},
    )


def _counted(outcomes: Mapping[Outcome, int]) -> dict[str, int]:
    return {outcome.value: outcomes[outcome] for outcome in Outcome if outcome in outcomes}


def print_sweep(console: Console, document: SweepDocument, swept: Sequence[Swept]) -> None:
    """Print it for people."""
    pen = Pen(console)
    console.print(_heading(document, swept))
    if any(part.cells for part in swept):
        console.print(matrix(pen, swept))
    console.print(_numbers(swept))
    for part in swept:
        for anomaly, actions in part.examples.items():
            console.print(Text(f"{part.saga}, {part.mode}: {anomaly}", style="bold"))
            for action in actions:
                console.print(f"    {action}", soft_wrap=True)
    console.print("All in all: ", pen.badge(document.verdict), sep="")
    if document.without and document.verdict is not Verdict.INVALID:
        console.print(
            "Nothing goes wrong here. That is not to say that nothing does elsewhere: a sweep has no second "
            "instance, no failing decider and no batches, and some sagas lose nothing. See `ablate`."
        )


def _heading(document: SweepDocument, swept: Sequence[Swept]) -> str:
    counted = {"crash": document.crashes, "repeat": document.repeats, "early deadline": document.early}
    most = ", ".join(f"{number} x {what}" for what, number in counted.items() if number)
    losing = [name for name in dict.fromkeys(part.saga for part in swept) if SAGAS[name].losses]
    losses = f", and a loss in {' and '.join(losing)}" if losing else ""
    without = told_without(document.without)
    return f"In each history, at most: {most or 'nothing out of the ordinary'}{losses}{without}."


def matrix(pen: Pen, swept: Sequence[Swept]) -> Table:
    """By step and boundary of a crash: what can come of it, in each mode."""
    modes = list(dict.fromkeys(part.mode for part in swept))
    cells = {mode: _summed(part for part in swept if part.mode == mode) for mode in modes}
    table = Table(
        box=ASCII if pen.plain else SIMPLE_HEAD,
        title="After so many crashes there (each in a state of its own), an order can end:\n"
        "converged / stuck / leaked / doubled",
        title_justify="left",
        title_style="",
    )
    table.add_column("step")
    table.add_column("crash")
    for mode in modes:
        table.add_column(mode)
    shown = ""
    for spot in sorted({spot for found in cells.values() for spot in found}, key=_place):
        step = "" if spot.step == shown else str(spot.step)
        shown = spot.step
        table.add_row(step, spot.at.value, *(_text(cells[mode].get(spot)) for mode in modes))
    return table


def _summed(parts: Iterable[Swept]) -> dict[Spot, Cell]:
    found: dict[Spot, Cell] = {}
    for part in parts:
        for spot, cell in part.cells.items():
            total = found.setdefault(spot, Cell())
            total.crashes += cell.crashes
            total.outcomes.update(cell.outcomes)
    return found


def _place(spot: Spot) -> tuple[int, int]:
    return _STEPS.index(spot.step), CRASHES.index(spot.at)


def _how_far(parts: Sequence[Swept]) -> str:
    bounds = dict.fromkeys(part.stopped_by for part in parts if part.stopped_by is not None)
    return f"not exhausted: {', '.join(bounds)}" if bounds else "exhausted"


def _text(cell: Cell | None) -> Text:
    if cell is None:
        return Text("-", style="dim")
    text = " / ".join(f"{cell.outcomes[outcome]:,}" for outcome in _SHOWN)
    others = cell.outcomes[Outcome.OTHER]
    if others:
        text += f" / {others:,} other"
    wrong = any(cell.outcomes[outcome] for outcome in Outcome if outcome is not Outcome.CONVERGED)
    return Text(text, style="bold red" if wrong else "")


def _numbers(swept: Sequence[Swept]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("saga", overflow="fold")
    table.add_column("mode", overflow="fold")
    for name in ("histories", "states", "ends", "seconds"):
        # Where there isn't room, words are broken, for part of a number is another number.
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for part in swept:
        _add(table, part.saga, part.mode, [part])
    _add(table, "in all", "", swept)
    return table


def _add(table: Table, saga: str, mode: str, parts: Sequence[Swept]) -> None:
    table.add_row(
        saga,
        mode,
        f"{sum(part.histories for part in parts):,}",
        f"{sum(part.states for part in parts):,}",
        f"{sum(part.ends for part in parts):,}",
        f"{sum(part.seconds for part in parts):,.1f}",
        _how_far(parts),
    )
