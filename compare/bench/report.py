"""A benchmark's figures for people: the modes side by side, each number with its verdict and its limit.

Beside the modes is what the one's number is of the other's, taken repeat by repeat.

Peers, of which there may be many, have a line each below, with the modes among them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compare.bench.document import BenchDocument, Figure, Interval, Run
from compare.bench.figures import faults
from compare.bench.saturation import NEAR, Pressure, pressure
from compare.bench.scaling import Step, steps
from compare.bench.spec import CLOSED, IDLE, INVALID, LEFT_OUT, NOT_ENDED, VALID, Phase, Quantile
from compare.bench.subjects import RELAYS, limit_of
from compare.checks import Verdict
from compare.lab import MODES
from compare.signs import VERDICTS, Pen, Sign

Show = Callable[[float], str]
_THREE_DIGITS: Final = 99.95
_SATURATED: Final = Sign("!", "!", "bold yellow")


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= _THREE_DIGITS else f"{value:.3g}"


def _micro(value: float) -> str:
    return _count(1e6 * value)


def _milli(value: float) -> str:
    return _count(1e3 * value)


def _mebi(value: float) -> str:
    return _count(value / 2**20)


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


class _Row(NamedTuple):
    metric: str
    label: str
    show: Show
    queued: bool = False
    """Whether orders that queue up make it another number than that of a system that keeps up."""


_ROWS: Final = (
    _Row("throughput", "sagas/s", _count),
    _Row("latency p50", "latency p50, ms", _milli, queued=True),
    _Row("latency p90", "  p90", _milli, queued=True),
    _Row("latency p99", "  p99", _milli, queued=True),
    _Row("latency p999", "  p99.9", _milli, queued=True),
    _Row("compensated p50", "to compensated p50", _milli, queued=True),
    _Row("compensated p99", "  p99", _milli, queued=True),
    _Row("ended", "ended/s", _count),
    _Row("not ended", "not ended", _percent),
    _Row("cpu", "CPU us/saga", _micro),
    _Row("broker cpu", "  the broker's", _micro),
    _Row("records", "records/saga", _count),
    _Row("hops", "hops/saga", _count),
    _Row("bytes", "bytes/saga", _count),
    _Row("commits", "commits/saga", _count),
    _Row("memory", "peak memory, MiB", _mebi),
)
_BRIEF: Final = (
    (CLOSED, _Row("throughput", "sagas/s", _count)),
    (IDLE, _Row("latency p50", "idle p50, ms", _milli)),
    (IDLE, _Row("latency p99", "p99", _milli)),
    (CLOSED, _Row("cpu", "CPU us/saga", _micro)),
    (CLOSED, _Row("memory", "peak MiB", _mebi)),
)


class BenchReport:
    """Prints to one console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pen = Pen(console)

    def document(self, document: BenchDocument) -> None:
        """Print all."""
        self._figures = {(one.subject, one.phase, one.metric): one for one in document.figures}
        self._ratios = {(one.phase, one.metric): one.value for one in document.ratios}
        limits = {one: limit for one in _subjects(document) if (limit := limit_of(one)) is not None}
        for phase in _phases(document.runs):
            self._console.print(self._side_by_side(document, limits, phase))
        if document.peers:
            self._console.print(self._in_lines(document))
        if found := list(steps(document.runs)):
            self._console.print(self._steps(found))
        self._remarks(document)
        self._console.print(Text.assemble("All in all: ", self._pen.badge(Verdict(document.verdict))))

    def _side_by_side(self, document: BenchDocument, limits: Mapping[str, str], phase: Phase) -> Table:
        """One phase, by mode; `limits` has the relay of each."""
        beside = ["\n/ ".join(reversed(MODES))] if len(limits) > 1 else []
        table = self._table("", *limits, *beside)
        # Not in a column's head: that would be a wide column, and 80 characters are soon used up.
        table.title, table.title_justify, table.title_style = _title(phase), "left", "bold"
        under = {one: pressure(document, phase, one) for pair in limits.items() for one in pair}
        saturated = {one for one, found in under.items() if found is not None and found.saturated}
        if any(under[mode] for mode in limits):
            table.add_row("rate / closed loop", *(self._pressure(under[mode]) for mode in limits))
        for row in _ROWS:
            crowded = saturated if row.queued else set()
            cells = [self._cell(mode, limit, phase.name, row, crowded) for mode, limit in limits.items()]
            if any(cells):
                ratio = None if crowded.intersection(limits) else self._ratios.get((phase.name, row.metric))
                table.add_row(row.label, *(cell or "-" for cell in cells), _times(ratio) if ratio else None)
        table.add_row("verdict", *(self._verdict(document.runs, mode, phase.name) for mode in limits))
        table.add_row(
            "  the relay's", *(self._verdict(document.runs, one, phase.name) for one in limits.values())
        )
        return table

    def _pressure(self, under: Pressure | None) -> Text:
        if under is None:
            return Text("-")
        share = "-" if under.of_sustained is None else f"{100 * under.of_sustained:.0f} %"
        return self._pen.signed(_SATURATED, f"{share} saturated") if under.saturated else Text(share)

    def _cell(self, mode: str, limit: str, phase: str, row: _Row, crowded: Collection[str]) -> Text | None:
        figure = self._figures.get((mode, phase, row.metric))
        if figure is None:
            return None
        sign = _SATURATED if mode in crowded else VERDICTS[Verdict.VALID]
        text = Text.assemble((self._pen.sign(sign), sign.style), " ", _value(figure.value, row.show))
        relay = self._figures.get((limit, phase, row.metric))
        share = figure.share_of_limit
        if relay is not None and share is not None and not {mode, limit}.intersection(crowded):
            text.append(f"\n{_times(share)} of {_shown(relay.value.median, row.show)}", style="dim")
        return text

    def _in_lines(self, document: BenchDocument) -> Table:
        table = self._table("same orders, same checks", *(row.label for _, row in _BRIEF), "all verdicts")
        for subject in _subjects(document):
            if subject in RELAYS:
                continue
            cells = [
                _value(figure.value, row.show)
                if (figure := self._figures.get((subject, phase, row.metric)))
                else "-"
                for phase, row in _BRIEF
            ]
            table.add_row(subject, *cells, self._verdict(document.runs, subject))
        return table

    def _steps(self, found: Sequence[Step]) -> Table:
        table = self._table("within one run", "orders up to", "CPU us/saga", "sagas/s", "memory, MiB")
        for step in found:
            figures = (_micro(step.cpu_s), _count(step.per_second), _mebi(step.memory))
            table.add_row(f"{step.subject}, {step.phase}", f"{step.last:,}", *figures)
        return table

    def _verdict(self, runs: Sequence[Run], subject: str, phase: str | None = None) -> Text:
        """Of all repeats of a subject, in one phase or in all."""
        verdicts = [
            run.measured.verdict
            for run in runs
            if run.subject == subject and phase in {None, run.measured.phase.name}
        ]
        told = [verdict for verdict in verdicts if verdict != LEFT_OUT]
        if not told or (phase is not None and LEFT_OUT in verdicts):
            return Text("left out", style="dim")
        worst = next((one for one in (Verdict.INVALID, Verdict.UNKNOWN) if one in told), Verdict.VALID)
        return self._pen.signed(VERDICTS[worst], f"{worst} {told.count(VALID)}/{len(told)}")

    def _remarks(self, document: BenchDocument) -> None:
        for subject, name, why in dict.fromkeys(faults(document.runs)):
            self._console.print(Text(f"No figure of {subject}, {name}: {why}", style="red"), soft_wrap=True)
        for subject, name, why in dict.fromkeys(_left_out(document.runs)):
            self._console.print(Text(f"Left out: {subject}, {name}: {why}", style="dim"), soft_wrap=True)
        for peer in document.peers:
            versions = ", ".join(f"{name} {value}" for name, value in peer.versions.items())
            self._console.print(Text(f"{peer.name}: {peer.title} ({versions})", style="bold"))
            for name, promise in peer.guarantees.items():
                self._console.print(Text(f"  {name}: {promise}"))
        for line in _about(document):
            self._console.print(Text(line, style="dim"))

    def _table(self, *columns: str) -> Table:
        box = ASCII if self._pen.plain else SIMPLE_HEAD
        table = Table(box=box, pad_edge=False, collapse_padding=True)
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=column == columns[0])
        return table


def _times(value: Interval) -> str:
    return "x" + _value(value, "{:.2f}".format)


def _value(value: Interval, show: Show) -> str:
    median = _shown(value.median, show)
    if value.low is None or value.low == value.high:
        return median
    return f"{median} ({_shown(value.low, show)}..{_shown(value.high, show)})"


def _shown(value: Quantile, show: Show) -> str:
    number = _number(value)
    return str(value or "-") if number is None else show(number)


def _number(value: Quantile) -> float | None:
    return None if value is None or value == NOT_ENDED else float(value)


def _subjects(document: BenchDocument) -> list[str]:
    return list(dict.fromkeys(run.subject for run in document.runs))


def _phases(runs: Sequence[Run]) -> list[Phase]:
    return list({run.measured.phase.name: run.measured.phase for run in runs}.values())


def _title(phase: Phase) -> str:
    if phase.rate is not None:
        return f"open loop, {phase.rate:g} orders/s"
    under_way = "one at a time" if phase.name == IDLE else f"{phase.concurrency:,} under way"
    size = "" if phase.name in {CLOSED, IDLE} else f", {phase.name}"
    return f"closed loop, {under_way}{size}"


def _left_out(runs: Sequence[Run]) -> Iterator[tuple[str, str, str]]:
    for run in runs:
        if run.measured.verdict == LEFT_OUT:
            yield run.subject, run.measured.phase.name, "; ".join(run.measured.faults)


def _about(document: BenchDocument) -> Iterator[str]:
    """What one has to know to read the figures, and to find them again."""
    yield (
        f"Medians over repeats ({_confidence(document.figures)}), and times what the raw relay did with the "
        "same records in the same repeat. Latencies count from the intended start; an order that did not "
        "end counts as later than all others. To compensated: until an order whose payment was declined has "
        "FAILED."
    )
    if document.ratios:
        yield "Last column: times what the other mode did in the same repeat."
    if any(one.metric == "ended" for one in document.figures):
        yield (
            f"! saturated: the rate was above {100 * NEAR:.0f} % of what the closed loop sustained, or less "
            "than that of the rate ended per second, or some orders not at all. Such a latency is that of a "
            "queue: it grows as long as the load lasts, and is compared with nothing."
        )
    yield about_machine(document)
    yield ", ".join(f"{name} {value}" for name, value in document.versions.items())
    yield ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in _settings(document))


def about_machine(document: BenchDocument) -> str:
    """On what it was measured, and when."""
    machine = document.machine
    return (
        f"{machine.processor}, {machine.processors} processors, {machine.memory / 2**30:.0f} GiB, "
        f"{machine.system}; load {machine.load:.1f} before, at {document.begun}"
    )


def _settings(document: BenchDocument) -> Iterator[tuple[str, object]]:
    """With as many repeats as there was time for."""
    done = max((run.repeat for run in document.runs), default=0)
    for name, value in document.settings.model_dump().items():
        yield name, f"{done} of {value}" if name == "repeats" and done != value else value


def _confidence(figures: Sequence[Figure]) -> str:
    found = min((figure.value.confidence for figure in figures), default=0.0)
    return f"intervals: {100 * found:.0f} % sure" if found else "a single one, so without intervals"


def verdict_of_runs(runs: Sequence[Run]) -> Verdict:
    """Of all runs: invalid if one is, else unknown if one is; what was left out counts for nothing."""
    verdicts = {run.measured.verdict for run in runs}
    if INVALID in verdicts:
        return Verdict.INVALID
    return Verdict.VALID if verdicts <= {VALID, LEFT_OUT} else Verdict.UNKNOWN
