"""Results for people: traces side by side, a summary per mode, and the verdict.

Colour only repeats what a sign says, so nothing is lost where there is no colour; where the output's encoding
has no such signs, letters stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compare.alignment import Pair, align
from compare.checks import Finding, Verdict
from compare.metrics import Durations, Metrics
from compare.recording import Nature, OrderEnd, StateChange, TraceRecord
from compare.result import ModeResult, ResultDocument, ScenarioResult

WIDE: Final = 180
"""From this many columns on, a record's details stand beside it instead of below."""
_INDENT: Final = 2


@dataclass(frozen=True, slots=True)
class Sign:
    """How one nature of record is told from the others."""

    sign: str
    letter: str
    style: str


SIGNS: Final = {
    Nature.COMMAND: Sign("▶", ">", "cyan"),
    Nature.EVENT: Sign("●", "*", "green"),
    Nature.COMPENSATION: Sign("↩", "<", "yellow"),
    Nature.FAILURE: Sign("✖", "x", "bold red"),
}
_VERDICTS: Final = {
    Verdict.VALID: Sign("✔", "OK", "bold green"),
    Verdict.INVALID: Sign("✖", "!!", "bold red"),
    Verdict.UNKNOWN: Sign("?", "??", "bold yellow"),
}


class Report:
    """Prints to one console; `verbose` adds the bodies of records and every check."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._console = console
        self._verbose = verbose
        self._plain = not console.encoding.lower().startswith("utf")

    def scenario(self, result: ScenarioResult, number: int | None) -> None:
        """Print one scenario; of several orders, `number` picks the one to trace, if it is there."""
        scenario = result.scenario
        self._console.rule(Text(scenario["name"], style="bold"), characters="-" if self._plain else "─")
        self._console.print(Text(" ".join(scenario["description"].split()), style="dim"))
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

    def overview(self, document: ResultDocument) -> None:
        """Print a line for every scenario."""
        table = self._table("scenario", *(mode.mode for mode in document.scenarios[0].modes), "verdict")
        for result in document.scenarios:
            name = result.scenario["name"]
            table.add_row(name, *(_brief(mode.metrics) for mode in result.modes), self._badge(result.verdict))
        self._console.print(table)
        setup = document.setup
        self._console.print(
            Text(
                f"Both modes: same orders, ids, stock, broker ({setup.broker}), settings and process. "
                f"Python {setup.python}, {setup.platform}.",
                style="dim",
            )
        )
        self._console.print(Text.assemble("All in all: ", self._badge(document.verdict)))

    def _trace(self, result: ScenarioResult, number: int) -> RenderableType:
        ends = [mode.recording.orders[number - 1] for mode in result.modes]
        traces = [_of_order(mode, end) for mode, end in zip(result.modes, ends, strict=True)]
        table = self._table("step", *(mode.mode for mode in result.modes))
        pairs = align(traces[0], traces[1]) if len(traces) == 2 else [Pair(one, None) for one in traces[0]]  # noqa: PLR2004 - the two modes
        step = None
        for pair in pairs:
            sides = (pair.left, pair.right)[: len(traces)]
            cells = [self._cell(mode, record) for mode, record in zip(result.modes, sides, strict=True)]
            table.add_row(Text("" if pair.step == step else pair.step, style="bold"), *cells)
            step = pair.step
        order = Text(
            f"order {number} of {len(result.modes[0].recording.orders)}: {ends[0].order_id}", style="dim"
        )
        return Group(order, table, self._legend())

    def _cell(self, mode: ModeResult, record: TraceRecord | None) -> RenderableType:
        if record is None:
            return ""
        sign = SIGNS[record.nature]
        head = Text(f"{record.at_ms:6.1f} ", style="dim")
        head.append(f"{self._sign(sign)} {record.type}", style=sign.style)
        head.append(" (again)" if record.duplicate else "", style="dim")
        details = [Text(f"{record.topic} {record.partition}@{record.offset} {record.producer}", style="dim")]
        if record.cause:
            details.append(Text(f"{self._back()} {record.cause}", style="dim"))
        if self._console.width >= WIDE:
            head.append_text(Text("  ").join([Text(""), *details]))
            details = []
        if self._verbose:
            details.append(Text(str(record.body), style="dim"))
        if not record.duplicate:
            changes = _caused_by(mode, record)
            details += [Text(f"{self._arrow()} {_changed(change)}", style="italic") for change in changes]
        return Group(head, *(Padding(detail, (0, 0, 0, _INDENT)) for detail in details))

    def _orders(self, result: ScenarioResult) -> Table:
        """How many orders of each kind ended how, in each mode."""
        table = self._table("orders", *(mode.mode for mode in result.modes))
        for index, spec in enumerate(result.scenario["orders"]):
            about = f"{spec['count']} x {spec['quantity']} {spec['item']} at {spec['price']}"
            table.add_row(about, *(_endings(mode.recording.orders, index) for mode in result.modes))
        return table

    def _summary(self, modes: Sequence[ModeResult]) -> Table:
        table = self._table("summary", *(mode.mode for mode in modes))
        for label, show in _FIGURES:
            table.add_row(label, *(show(mode) for mode in modes))
        return table

    def _verdict(self, result: ScenarioResult) -> RenderableType:
        lines: list[RenderableType] = []
        for mode in result.modes:
            if self._verbose:
                lines += self._findings(mode.mode, mode.findings)
                continue
            broken = [finding for finding in mode.findings if finding.verdict is Verdict.INVALID]
            lines += self._findings(mode.mode, broken)
            lines += self._unjudged(mode)
        checks = sum(len(mode.findings) for mode in result.modes)
        return Group(*lines, Text.assemble("Verdict: ", self._badge(result.verdict), f" ({checks} checks)"))

    def _findings(self, mode: str, findings: Iterable[Finding]) -> Iterable[Text]:
        for finding in findings:
            yield Text.assemble(self._badge(finding.verdict), f" {mode}: {finding.check}")
            yield from (Text(f"    {fault}") for fault in finding.faults)

    def _unjudged(self, mode: ModeResult) -> Iterable[Text]:
        """What could not be judged, all with the one reason that there is for it."""
        names = [finding.check for finding in mode.findings if finding.verdict is Verdict.UNKNOWN]
        if names:
            yield Text.assemble(self._badge(Verdict.UNKNOWN), f" {mode.mode}: {', '.join(names)}")
            yield Text(f"    {mode.recording.unfinished}")

    def _badge(self, verdict: Verdict) -> Text:
        sign = _VERDICTS[verdict]
        return Text(f"{self._sign(sign)} {verdict}", style=sign.style)

    def _legend(self) -> Text:
        signs = (Text(f"{self._sign(sign)} {nature}", style=sign.style) for nature, sign in SIGNS.items())
        others = f"   {self._arrow()} new state   {self._back()} cause; times in ms from placing the order"
        return Text.assemble(Text("   ").join(signs), Text(others, style="dim"))

    def _sign(self, sign: Sign) -> str:
        return sign.letter if self._plain else sign.sign

    def _back(self) -> str:
        return "<-" if self._plain else "←"

    def _arrow(self) -> str:
        return "=>" if self._plain else "⇒"

    def _table(self, *columns: str) -> Table:
        box = ASCII if self._plain else SIMPLE_HEAD
        table = Table(box=box, expand=True, pad_edge=False, collapse_padding=True)
        first, *rest = columns
        table.add_column(first, overflow="fold", no_wrap=first != "orders")
        for column in rest:
            table.add_column(column, overflow="fold", ratio=None if column == "verdict" else 1)
        return table


def _of_order(mode: ModeResult, end: OrderEnd) -> list[TraceRecord]:
    return [record for record in mode.recording.trace if record.order_id == end.order_id]


def _caused_by(mode: ModeResult, record: TraceRecord) -> Iterable[StateChange]:
    """What the record led to, and for an order's first record, what it came from."""
    causes = {record.id} if record.cause else {record.id, record.causation_id}
    return (change for change in mode.recording.changes if change.cause_id in causes)


def _changed(change: StateChange) -> str:
    thing = _STATEFUL[change.service]
    return f"{thing} is {change.to_status}"


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


def _duration(durations: Durations | None) -> str:
    if durations is None:
        return "-"
    if durations.orders == 1:
        return f"{durations.median_ms:.1f} ms"
    return f"{durations.median_ms:.1f} ms, at most {durations.longest_ms:.1f}"


def _outcome(mode: ModeResult) -> str:
    metrics = mode.metrics
    counts = {"completed": metrics.completed, "failed": metrics.failed, "pending": metrics.pending}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


_STATEFUL: Final = {
    "order": "order",
    "orchestrator": "saga",
    "inventory": "reservation",
    "payment": "payment",
}
"""What it is that has a state in each service."""

_FIGURES: Final[tuple[tuple[str, Callable[[ModeResult], str]], ...]] = (
    ("outcome", _outcome),
    ("records", lambda mode: str(mode.metrics.records)),
    ("  commands", lambda mode: str(mode.metrics.commands)),
    ("  events", lambda mode: str(mode.metrics.events)),
    ("  compensating", lambda mode: str(mode.metrics.compensations)),
    (
        "  delivered again",
        lambda mode: f"{mode.metrics.repeated} ({mode.recording.duplicates_dropped} dropped)",
    ),
    ("topics", lambda mode: str(mode.metrics.topics)),
    ("hops to the end", lambda mode: str(mode.metrics.hops)),
    ("bytes", lambda mode: f"{mode.metrics.size:,}"),
    ("time to the end (median)", lambda mode: _duration(mode.metrics.to_end)),
    ("time to compensated", lambda mode: _duration(mode.metrics.to_compensated)),
)
