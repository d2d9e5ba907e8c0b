"""Results for people: traces side by side, a summary per mode, and the verdict.

Colour only repeats what a sign says, so nothing is lost where there is no colour; where the output's encoding
has no such signs, letters stand in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from compare.checks import Evidence, Finding, HistoryLine, Verdict
from compare.metrics import Metrics
from compare.recording import OrderEnd
from compare.result import ModeResult, ResultDocument, ScenarioResult
from compare.signs import Pen
from compare.summary import figures, remarks
from compare.trace_table import TraceTable

WIDE: Final = 180
"""From this many columns on, a record's details stand beside it instead of below."""
_MOST_LINES: Final = 25
"""Of a history; `--json` has all of it."""


class Report:
    """Prints to one console; `verbose` adds the bodies of records and every check."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._console = console
        self._verbose = verbose
        self._pen = Pen(console)

    def scenario(self, result: ScenarioResult, number: int | None) -> None:
        """Print one scenario; of several orders, `number` picks the one to trace, if it is there."""
        self._title(result)
        total = len(result.modes[0].recording.orders)
        if total > 1 and (number is None or number > total):
            self._console.print(self._orders(result))
            self._console.print(
                Text(f"{total} orders; --order N shows the trace of one of them.", style="dim")
            )
        else:
            self._console.print(self._trace(result, number if total > 1 and number else 1))
        self._console.print(self._summary(result.modes))
        self._console.print(self._verdict(result), "")

    def every_order(self, result: ScenarioResult) -> None:
        """Print one scenario with the traces of all its orders."""
        self._title(result)
        for number in range(1, len(result.modes[0].recording.orders) + 1):
            self._console.print(self._trace(result, number))
        self._console.print(self._summary(result.modes))
        self._console.print(self._verdict(result), "")

    def overview(self, document: ResultDocument) -> None:
        """Print a line for every scenario."""
        table = self._table("scenario", *(mode.mode for mode in document.scenarios[0].modes), "verdict")
        for result in document.scenarios:
            name = result.scenario["name"]
            table.add_row(
                name, *(_brief(mode.metrics) for mode in result.modes), self._pen.badge(result.verdict)
            )
        self._console.print(table)
        setup = document.setup
        process = "process" if setup.engine == "in process" else "kind of process (one for each service)"
        self._console.print(
            Text(
                f"Both modes: same orders, ids, stock, broker ({setup.broker}), settings and {process}. "
                f"Python {setup.python}, {setup.platform}.",
                style="dim",
            )
        )
        self._console.print(Text.assemble("All in all: ", self._pen.badge(document.verdict)))

    def _title(self, result: ScenarioResult) -> None:
        scenario = result.scenario
        self._console.rule(Text(scenario["name"], style="bold"), characters="-" if self._pen.plain else "─")
        self._console.print(Text(" ".join(scenario["description"].split()), style="dim"))

    def _trace(self, result: ScenarioResult, number: int) -> RenderableType:
        modes = result.modes
        table = self._table("step", *(mode.mode for mode in modes))
        trace = TraceTable(self._pen, wide=self._console.width >= WIDE, verbose=self._verbose)
        legend = trace.fill(table, modes, number)
        orders = modes[0].recording.orders
        order = Text(f"order {number} of {len(orders)}: {orders[number - 1].order_id}", style="dim")
        return Group(order, table, legend)

    def _orders(self, result: ScenarioResult) -> Table:
        """How many orders of each kind ended how, in each mode."""
        table = self._table("orders", *(mode.mode for mode in result.modes))
        for index, spec in enumerate(result.scenario["orders"]):
            about = f"{spec['count']} x {spec['quantity']} {spec['item']} at {spec['price']}"
            table.add_row(about, *(_endings(mode.recording.orders, index) for mode in result.modes))
        return table

    def _summary(self, modes: Sequence[ModeResult]) -> RenderableType:
        table = self._table("summary", *(mode.mode for mode in modes))
        for row in figures(modes):
            table.add_row(*row)
        return Group(table, *(Text(text, style="dim") for text in remarks(modes)))

    def _verdict(self, result: ScenarioResult) -> RenderableType:
        lines: list[RenderableType] = []
        for mode in result.modes:
            if self._verbose:
                lines += self._findings(mode, mode.findings)
                continue
            broken = [finding for finding in mode.findings if finding.verdict is Verdict.INVALID]
            lines += self._findings(mode, broken)
            lines += self._unjudged(mode)
        checks = sum(len(mode.findings) for mode in result.modes)
        return Group(
            *lines, Text.assemble("Verdict: ", self._pen.badge(result.verdict), f" ({checks} checks)")
        )

    def _findings(self, mode: ModeResult, findings: Iterable[Finding]) -> Iterable[Text]:
        for finding in findings:
            yield Text.assemble(self._pen.badge(finding.verdict), f" {mode.mode}: {finding.check}")
            yield from (Text(f"    {fault}") for fault in finding.faults)
            yield from self._history(mode, finding.history)

    def _history(self, mode: ModeResult, history: Sequence[HistoryLine]) -> Iterable[Text]:
        """The evidence for a finding, indented below it."""
        numbers = {order.order_id: order.number for order in mode.recording.orders}
        several = len({line.order_id for line in history} - {None}) > 1
        if len(history) > _MOST_LINES:
            yield Text(f"      ({len(history) - _MOST_LINES} earlier ones are left out here)", style="dim")
        for line in history[-_MOST_LINES:]:
            when = "in the end" if line.at_ms is None else f"{line.at_ms:10.1f}"
            number = numbers.get(line.order_id or "")
            order = f"order {number}, " if several and number else ""
            yield Text.assemble(
                (f"      {when} {_EVIDENCE[line.evidence]} ", "dim"),
                line.what,
                (f"  {order}{line.where}", "dim"),
            )

    def _unjudged(self, mode: ModeResult) -> Iterable[Text]:
        """What could not be judged, all with the one reason that there is for it."""
        names = [finding.check for finding in mode.findings if finding.verdict is Verdict.UNKNOWN]
        if names:
            yield Text.assemble(self._pen.badge(Verdict.UNKNOWN), f" {mode.mode}: {', '.join(names)}")
            yield Text(f"    {mode.recording.unfinished}")

    def _table(self, *columns: str) -> Table:
        box = ASCII if self._pen.plain else SIMPLE_HEAD
        table = Table(box=box, expand=True, pad_edge=False, collapse_padding=True)
        first, *rest = columns
        table.add_column(first, overflow="fold", no_wrap=first != "orders")
        for column in rest:
            table.add_column(column, overflow="fold", ratio=None if column == "verdict" else 1)
        return table


def _endings(orders: Sequence[OrderEnd], spec: int) -> str:
    endings = [
        f"{order.status} ({order.reason})" if order.reason else order.status
        for order in orders
        if order.spec == spec
    ]
    return ", ".join(f"{endings.count(ending)} {ending}" for ending in dict.fromkeys(sorted(endings)))


def _brief(metrics: Metrics) -> str:
    end = f"{metrics.to_end.median_ms:.0f} ms" if metrics.to_end else "no end"
    return f"{metrics.records} rec {metrics.hops} hops {end}"


_EVIDENCE: Final = {
    Evidence.RECORD: "told",
    Evidence.LOST: "lost",
    Evidence.DEAD_LETTER: "dead letter",
    Evidence.CHANGE: "changed",
    Evidence.ROW: "stored",
    Evidence.OTHER: "seen",
}
