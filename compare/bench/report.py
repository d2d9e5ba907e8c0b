"""A benchmark's figures for people: the modes side by side, each number with its verdict and its limit.

Peers, of which there may be many, have a line each below, with the modes among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compare.bench.document import BenchDocument, Figure, Interval, Run
from compare.bench.figures import faults
from compare.bench.scaling import Step, steps
from compare.bench.spec import CLOSED, IDLE, INVALID, LEFT_OUT, NOT_ENDED, VALID, Phase, Quantile
from compare.bench.subjects import RELAYS, limit_of
from compare.checks import Verdict
from compare.signs import VERDICTS, Pen

Show = Callable[[float], str]
_THREE_DIGITS: Final = 99.95


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


_ROWS: Final = (
    _Row("throughput", "sagas/s", _count),
    _Row("latency p50", "latency p50, ms", _milli),
    _Row("latency p90", "  p90", _milli),
    _Row("latency p99", "  p99", _milli),
    _Row("latency p999", "  p99.9", _milli),
    _Row("compensated p50", "to compensated p50", _milli),
    _Row("compensated p99", "  p99", _milli),
    _Row("not ended", "not ended", _percent),
    _Row("cpu", "CPU us/saga", _micro),
    _Row("broker cpu", "  the broker's", _micro),
    _Row("records", "records/saga", _count),
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
        modes = [one for one in _subjects(document) if limit_of(one) is not None]
        for phase in _phases(document.runs):
            self._console.print(self._side_by_side(document, modes, phase))
        if document.peers:
            self._console.print(self._in_lines(document))
        if found := list(steps(document.runs)):
            self._console.print(self._steps(found))
        self._remarks(document)
        self._console.print(Text.assemble("All in all: ", self._pen.badge(Verdict(document.verdict))))

    def _side_by_side(self, document: BenchDocument, modes: Sequence[str], phase: Phase) -> Table:
        table = self._table(_title(phase), *modes)
        for row in _ROWS:
            cells = [self._cell(mode, phase.name, row) for mode in modes]
            if any(cells):
                table.add_row(row.label, *(cell or "-" for cell in cells))
        table.add_row("verdict", *(self._verdict(document.runs, mode, phase.name) for mode in modes))
        relays = [relay for mode in modes if (relay := limit_of(mode)) is not None]
        table.add_row("  the relay's", *(self._verdict(document.runs, one, phase.name) for one in relays))
        return table

    def _cell(self, mode: str, phase: str, row: _Row) -> Text | None:
        figure = self._figures.get((mode, phase, row.metric))
        if figure is None:
            return None
        sound = VERDICTS[Verdict.VALID]
        text = Text.assemble((self._pen.sign(sound), sound.style), " ", _value(figure.value, row.show))
        relay = self._figures.get((limit_of(mode) or "", phase, row.metric))
        share = figure.share_of_limit
        if relay is not None and share is not None and _number(share.median) is not None:
            text.append(f"\n  x{share.median:.2f} of {_shown(relay.value.median, row.show)}", style="dim")
        return text

    def _in_lines(self, document: BenchDocument) -> Table:
        table = self._table("same orders, same checks", *(row.label for _, row in _BRIEF), "verdict")
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
        table = self._table("within one run", "orders", "CPU us/saga", "sagas/s", "memory, MiB")
        for step in found:
            orders = f"{step.first:,}-{step.last:,}"
            figures = (_micro(step.cpu_s), _count(step.per_second), _mebi(step.memory))
            table.add_row(f"{step.subject}, {step.phase}", orders, *figures)
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
        return f"{phase.rate:g} orders/s"
    if phase.name == IDLE:
        return "one at a time"
    under_way = f"{phase.concurrency} under way"
    return under_way if phase.name == CLOSED else f"{under_way}, {phase.name}"


def _left_out(runs: Sequence[Run]) -> Iterator[tuple[str, str, str]]:
    for run in runs:
        if run.measured.verdict == LEFT_OUT:
            yield run.subject, run.measured.phase.name, "; ".join(run.measured.faults)


def _about(document: BenchDocument) -> Iterator[str]:
    """What one has to know to read the figures, and to find them again."""
    machine, settings = document.machine, document.settings
    yield (
        f"Medians over repeats ({_confidence(document.figures)}), and times what the raw relay did with the "
        "same records in the same repeat. Latencies count from the intended start; an order that did not "
        "end counts as later than all others. To compensated: until an order whose payment was declined has "
        "FAILED."
    )
    yield (
        f"{machine.processor}, {machine.processors} processors, {machine.memory / 2**30:.0f} GiB, "
        f"{machine.system}; load {machine.load:.1f} before"
    )
    yield ", ".join(f"{name} {value}" for name, value in document.versions.items())
    yield ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.model_dump().items())


def _confidence(figures: Sequence[Figure]) -> str:
    found = min((figure.value.confidence for figure in figures), default=0.0)
    return f"intervals: {100 * found:.0f} % sure" if found else "a single one, so without intervals"


def verdict_of_runs(runs: Sequence[Run]) -> Verdict:
    """Of all runs: invalid if one is, else unknown if one is; what was left out counts for nothing."""
    verdicts = {run.measured.verdict for run in runs}
    if INVALID in verdicts:
        return Verdict.INVALID
    return Verdict.VALID if verdicts <= {VALID, LEFT_OUT} else Verdict.UNKNOWN
