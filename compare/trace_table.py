"""One order's trace as a table: a column per mode, and a row for each thing that one of them or both do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compare.alignment import Line, Note, Pair, align, lines_of
from compare.faults import AT_A_BOUNDARY
from compare.recording import DeadLetterSeen, Requested, StateChange, Strike, TraceRecord
from compare.result import ModeResult
from compare.signs import DEAD_LETTER, REQUEST, SIGNS, STRIKE, Pen
from compare.story import changes_by_record

_INDENT: Final = 2
_AT_ONCE_MS: Final = 1.0
"""What was over within that time had no duration worth telling."""
_STATEFUL: Final = {
    "order": "order",
    "orchestrator": "saga",
    "inventory": "reservation",
    "payment": "payment",
}
"""What it is that has a state in each service."""
_REQUESTS: Final = {"cancel": "cancel", "retry_compensation": "retry of the compensation"}
_NOTES: Final = {
    Strike: (STRIKE, "fault"),
    DeadLetterSeen: (DEAD_LETTER, "dead letter"),
    Requested: (REQUEST, "request"),
}


class TraceTable:
    """The trace of one order; `wide` leaves room for details beside a record, `verbose` adds its body."""

    def __init__(self, pen: Pen, *, wide: bool, verbose: bool) -> None:
        self._pen = pen
        self._wide = wide
        self._verbose = verbose

    def fill(self, table: Table, modes: Sequence[ModeResult], number: int) -> RenderableType:
        """Write the rows of an order into a table with a column per mode, and return the legend for it."""
        ends = [mode.recording.orders[number - 1] for mode in modes]
        lines = [lines_of(mode.recording, end) for mode, end in zip(modes, ends, strict=True)]
        changes = [_changes(mode, end.order_id) for mode, end in zip(modes, ends, strict=True)]
        pairs = align(lines[0], lines[1]) if len(lines) == 2 else [Pair(one, None) for one in lines[0]]  # noqa: PLR2004 - the two modes
        step = None
        for pair in pairs:
            sides = (pair.left, pair.right)[: len(modes)]
            cells = [self._cell(line, led_to) for line, led_to in zip(sides, changes, strict=True)]
            table.add_row(Text("" if pair.step == step else pair.step, style="bold"), *cells)
            step = pair.step
        return self._legend([line for mode in lines for line in mode])

    def _cell(self, line: Line | None, changes: Mapping[int, Sequence[StateChange]]) -> RenderableType:
        if line is None:
            return ""
        head, details = self._record(line) if isinstance(line, TraceRecord) else self._note(line)
        if self._wide:
            head.append_text(Text("  ").join([Text(""), *details]))
            details = []
        if isinstance(line, TraceRecord):
            if self._verbose:
                details.append(Text(str(line.body), style="dim"))
            led_to = changes.get(id(line), ())
            details += [Text(f"{self._pen.arrow} {_changed(change)}", style="italic") for change in led_to]
        return Group(head, *(Padding(detail, (0, 0, 0, _INDENT)) for detail in details))

    def _record(self, record: TraceRecord) -> tuple[Text, list[Text]]:
        head = Text(f"{record.at_ms:6.1f} ", style="dim")
        head.append_text(self._pen.signed(SIGNS[record.nature], record.type))
        head.append(_how(record), style="dim")
        details = [Text(f"{record.topic} {record.partition}@{record.offset} {record.producer}", style="dim")]
        attempt = f"attempt {record.attempt}" if record.attempt > 1 else ""
        if record.cause:
            cause = f"{self._pen.back} {record.cause}"
            details.append(Text(f"{cause}, {attempt}" if attempt else cause, style="dim"))
        elif attempt:
            details.append(Text(attempt, style="dim"))
        return head, details

    def _note(self, note: Note) -> tuple[Text, list[Text]]:
        sign, _ = _NOTES[type(note.about)]
        text, *details = _said(note, verbose=self._verbose)
        head = Text(f"{note.at_ms:6.1f} ", style="dim")
        head.append_text(self._pen.signed(sign, text))
        return head, [Text(detail, style="dim") for detail in details]

    def _legend(self, lines: Iterable[Line]) -> Text:
        signs = [self._pen.signed(sign, nature) for nature, sign in SIGNS.items()]
        noted = {type(line.about) for line in lines if isinstance(line, Note)}
        signs += [self._pen.signed(*named) for kind, named in _NOTES.items() if kind in noted]
        others = (
            f"   {self._pen.arrow} new state   {self._pen.back} cause; times in ms from placing the order"
        )
        return Text.assemble(Text("   ").join(signs), Text(others, style="dim"))


def _changes(mode: ModeResult, order_id: str) -> dict[int, list[StateChange]]:
    """By the identity of a record: the changes to show with it."""
    trace = [record for record in mode.recording.trace if record.order_id == order_id]
    changes = [change for change in mode.recording.changes if change.order_id == order_id]
    shown, _ = changes_by_record(trace, changes)
    return {id(trace[index]): led_to for index, led_to in shown.items()}


def _how(record: TraceRecord) -> str:
    """What is out of the ordinary about a record."""
    marks = {"again": record.duplicate, "poisoned": record.poisoned}
    named = [name for name, is_so in marks.items() if is_so]
    return f" ({', '.join(named)})" if named else ""


def _said(note: Note, *, verbose: bool) -> tuple[str, ...]:
    """What a note says, and its details."""
    match note.about:
        case Strike() as strike:
            lasted = 0.0 if strike.over_ms is None else strike.over_ms - strike.at_ms
            over = [f"over at {note.at_ms + lasted:.1f}"] if lasted > _AT_ONCE_MS else []
            return _struck(strike), *over
        case DeadLetterSeen() as letter:
            service = letter.service.rpartition("/")[2]
            tries = "" if letter.tries == 1 else f" after {letter.tries} tries"
            where = f"{letter.topic} {letter.partition}@{letter.offset} {service}"
            error = f": {letter.error}" if verbose else ""
            return letter.type, where, f"{letter.reason}{tries}{error}"
        case Requested() as asked:
            what = _REQUESTS.get(asked.what, asked.what)
            return (f"{what}, {'accepted' if asked.accepted else 'refused'}",)


def _struck(strike: Strike) -> str:
    hit = strike.record_type or strike.service
    at = f" at {strike.boundary}" if strike.boundary and strike.kind in AT_A_BOUNDARY else ""
    return f"{strike.kind.replace('_', ' ')}{f' {hit}' if hit else ''}{at}"


def _changed(change: StateChange) -> str:
    return f"{_STATEFUL[change.service]} is {change.to_status}"
