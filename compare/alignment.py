"""Laying two traces side by side, so that what one mode does and the other doesn't is a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from common.messages import Step
from compare.metrics import affects, ended_ms
from compare.recording import DeadLetterSeen, OrderEnd, Recording, Requested, Strike, TraceRecord


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened between an order's records: it has a line among them."""

    step: Step
    at_ms: float
    """From the placing of the order."""
    about: Strike | DeadLetterSeen | Requested


Line = TraceRecord | Note
_Placed = tuple[int, float, Strike | DeadLetterSeen | Requested]
"""How many records come before, when it was, and what."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A row: the same thing in both modes, or something that only one of them does."""

    left: Line | None
    right: Line | None

    @property
    def step(self) -> Step:
        """The domain step that the row belongs to."""
        line = self.left or self.right
        if line is None:
            message = "a pair has at least one line"
            raise ValueError(message)
        return line.step


def align(left: Sequence[Line], right: Sequence[Line]) -> list[Pair]:
    """Pair the lines of one order in two modes, keeping the order of each."""
    matcher = SequenceMatcher(None, [_key(one) for one in left], [_key(one) for one in right], autojunk=False)
    pairs: list[Pair] = []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind == "equal":
            pairs += map(Pair, left[i1:i2], right[j1:j2])
        else:
            pairs += [Pair(one, None) for one in left[i1:i2]]
            pairs += [Pair(None, one) for one in right[j1:j2]]
    return pairs


def _key(line: Line) -> tuple[object, ...]:
    """What makes two lines the same thing: they say the same, or they are what the order begins with."""
    if isinstance(line, TraceRecord):
        return line.step, "" if line.step is Step.PLACE else line.type, line.duplicate
    match line.about:
        case Strike(fault=fault):
            return "fault", fault
        case DeadLetterSeen():
            return "dead letter", line.step
        case Requested(what=what):
            return "request", what


def lines_of(recording: Recording, order: OrderEnd) -> list[Line]:
    """The records of an order, and among them, by time, what befell it and what was asked for."""
    trace = [record for record in recording.trace if record.order_id == order.order_id]
    placed, ended = order.placed_ms or 0.0, ended_ms(order, trace)
    events: list[Strike | Requested] = [one for one in recording.strikes if affects(one, order, ended)]
    events += [request for request in recording.requested if request.order_id == order.order_id]
    letters = [letter for letter in recording.dead_letters if letter.order_id == order.order_id]
    notes: list[_Placed] = [(_behind(trace, one.at_ms - placed), one.at_ms - placed, one) for one in events]
    notes += [(_behind_original(trace, letter), letter.at_ms, letter) for letter in letters]
    return _merged(trace, sorted(notes, key=lambda note: note[:2]))


def _behind(trace: Sequence[TraceRecord], at_ms: float) -> int:
    """How many records there were by then."""
    return next((index for index, record in enumerate(trace) if record.at_ms > at_ms), len(trace))


def _behind_original(trace: Sequence[TraceRecord], letter: DeadLetterSeen) -> int:
    """The same; what was told in place of the dead letter is of the same moment, and comes behind it."""
    original = next((index for index, record in enumerate(trace) if record.id == letter.id), -1)
    later = range(original + 1, len(trace))
    return next((index for index in later if trace[index].at_ms >= letter.at_ms), len(trace))


def _merged(trace: Sequence[TraceRecord], notes: Sequence[_Placed]) -> list[Line]:
    lines: list[Line] = list(trace)
    for index, at_ms, about in reversed(notes):
        lines.insert(index, Note(_step(trace, index, about), at_ms, about))
    return lines


def _step(trace: Sequence[TraceRecord], index: int, about: Strike | DeadLetterSeen | Requested) -> Step:
    """The step that something stands at: its own, or else that of the record before it."""
    if isinstance(about, DeadLetterSeen) and about.step is not None:
        return about.step
    if isinstance(about, Requested):
        return Step.CANCEL
    return trace[max(0, index - 1)].step if trace else Step.PLACE
