"""From what the observer read, and what the databases say, to a recording."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import to_builtins

from common.dead_letters import DeadLetter, read_dead_letter
from common.envelope import Envelope, Record, kind_of, open_envelope, parse
from common.errors import UnreadableRecordError
from common.messages import MESSAGES, Command, Event, Message, Step
from common.store.journal import Change
from common.wiring import DEAD_LETTERS
from compare.recording import DeadLetterSeen, Kind, Nature, StateChange, TraceRecord
from compare.story import Told, story_order

_UNDOING: Final = frozenset({Step.RELEASE, Step.REFUND})


class Sightings(NamedTuple):
    """What the records that the observer read turn out to be."""

    trace: tuple[TraceRecord, ...]
    """Those of the orders, each order's together, in the order of the story."""
    dead_letters: tuple[DeadLetterSeen, ...]
    strays: tuple[str, ...]
    """What and where are those that are of no order, or can't be told to be of one."""
    unknown: tuple[str, ...]
    """The same of those that are of one of the orders, but of no type that the lab knows."""


@dataclass(frozen=True, slots=True)
class _Read:
    record: Record
    envelope: Envelope
    kind: type[Message]
    message: Message | None
    decided: datetime


@dataclass(slots=True)
class _Sorted:
    reads: list[_Read] = field(default_factory=list)
    letters: list[tuple[Record, DeadLetter]] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def trace_of(
    records: Iterable[Record],
    order_ids: frozenset[str],
    prefix: str,
    placed: Mapping[str, datetime] | None = None,
) -> Sightings:
    """Sort out what the observer read.

    `placed` tells when the orders were placed; of the others, the first message tells that.
    """
    found = _sort_out(records, order_ids, prefix)
    story = _Story.of(found.reads, prefix, placed or {})
    by_order: dict[str, list[_Read]] = defaultdict(list)
    for read in found.reads:
        by_order[read.envelope.subject].append(read)
    trace = [row for order_id in sorted(by_order) for row in story.rows(by_order[order_id])]
    letters = [story.letter(record, letter) for record, letter in found.letters]
    return Sightings(tuple(trace), tuple(letters), tuple(found.strays), tuple(found.unknown))


def _sort_out(records: Iterable[Record], order_ids: frozenset[str], prefix: str) -> _Sorted:
    found = _Sorted()
    given_up: set[tuple[str, str]] = set()
    for record in sorted(records, key=lambda one: (one.topic, one.partition, one.offset)):
        if record.topic.endswith(DEAD_LETTERS):
            letter = read_dead_letter(record)
            if letter.order_id not in order_ids:
                found.strays.append(_place(record, prefix))
            elif (letter.origin, letter.service) not in given_up:
                # A dead letter that was delivered twice is one.
                given_up.add((letter.origin, letter.service))
                found.letters.append((record, letter))
            continue
        try:
            envelope = open_envelope(record)
            decided = datetime.fromisoformat(envelope.time)
        except (UnreadableRecordError, ValueError):
            found.strays.append(_place(record, prefix))
            continue
        if envelope.subject not in order_ids:
            found.strays.append(_place(record, prefix))
        elif envelope.type not in MESSAGES:
            found.unknown.append(_place(record, prefix))
        else:
            kind = MESSAGES[envelope.type]
            found.reads.append(_Read(record, envelope, kind, _message(record, envelope, kind), decided))
    return found


def _message(record: Record, envelope: Envelope, kind: type[Message]) -> Message | None:
    try:
        return parse(record, envelope, kind)
    except UnreadableRecordError:
        return None


def _place(record: Record, prefix: str) -> str:
    kind = kind_of(record)
    told = "a record without a type" if kind is None else kind.decode(errors="replace")
    return f"{told} at {record.topic.removeprefix(prefix)} {record.partition}@{record.offset}"


def placed_at(reads: Iterable[tuple[Envelope, datetime]]) -> dict[str, datetime]:
    """By order: when its first message, one that was caused by the order itself, was decided."""
    first: dict[str, datetime] = {}
    for envelope, decided in reads:
        if envelope.causation_id == envelope.subject:
            first[envelope.subject] = min(decided, first.get(envelope.subject, decided))
    return first


def changes_of(service: str, history: Sequence[Change], order_ids: frozenset[str]) -> list[StateChange]:
    """A service's changes of state for these orders, in its order, with absolute times; see `relative`."""
    return [
        StateChange(
            order_id=change.order_id,
            service=service,
            at_ms=datetime.fromisoformat(change.at).timestamp() * 1000,
            cause_id=change.cause_id,
            from_status=change.from_status,
            to_status=change.to_status,
        )
        for change in history
        if change.order_id in order_ids
    ]


def relative(changes: Iterable[StateChange]) -> tuple[StateChange, ...]:
    """The changes with their times counted from the placing of their order, in the order of time.

    If the placing is not among them, they count from the first. A service's own changes stay in the order
    that they have, even if its clock was set back.
    """
    latest: dict[str, float] = {}
    timed: list[tuple[float, StateChange]] = []
    for change in changes:
        latest[change.service] = max(change.at_ms, latest.get(change.service, change.at_ms))
        timed.append((latest[change.service], change))
    timed.sort(key=lambda pair: pair[0])
    start: dict[str, float] = {}
    for _, change in sorted(timed, key=lambda pair: pair[1].cause_id != pair[1].order_id):
        start.setdefault(change.order_id, change.at_ms)
    return tuple(
        change.model_copy(update={"at_ms": round(change.at_ms - start[change.order_id], 3)})
        for _, change in timed
    )


def nature_of(message: type[Message]) -> Nature:
    """What a message is in the story; an undo that failed is a failure."""
    if issubclass(message, Event) and message.FAILURE:
        return Nature.FAILURE
    if message.STEP in _UNDOING:
        return Nature.COMPENSATION
    return Nature.COMMAND if issubclass(message, Command) else Nature.EVENT


@dataclass(frozen=True, slots=True)
class _Story:
    """What one record's row needs to know of the others."""

    prefix: str
    types: Mapping[str, str]
    causes: Mapping[str, str]
    placed: Mapping[str, datetime]

    @classmethod
    def of(cls, reads: Sequence[_Read], prefix: str, placed: Mapping[str, datetime]) -> _Story:
        envelopes = [read.envelope for read in reads]
        return cls(
            prefix,
            types={envelope.id: envelope.type for envelope in envelopes},
            causes={envelope.id: envelope.causation_id for envelope in envelopes},
            placed={**placed_at((read.envelope, read.decided) for read in reads), **placed},
        )

    def rows(self, reads: Sequence[_Read]) -> Iterable[TraceRecord]:
        """One order's rows, in the order of the story."""
        told = [
            Told(
                read.decided.timestamp(),
                read.record.topic,
                read.record.partition,
                read.record.offset,
                read.envelope.id,
                read.envelope.causation_id,
            )
            for read in reads
        ]
        seen: set[str] = set()
        for index in story_order(told):
            read = reads[index]
            yield self._row(read, duplicate=read.envelope.id in seen)
            seen.add(read.envelope.id)

    def letter(self, record: Record, letter: DeadLetter) -> DeadLetterSeen:
        """A dead letter of one of the orders."""
        kind = MESSAGES.get(letter.message_type)
        return DeadLetterSeen(
            topic=record.topic.removeprefix(self.prefix),
            partition=record.partition,
            offset=record.offset,
            at_ms=self._since(letter.order_id, _moment(letter.at)),
            order_id=letter.order_id,
            id=letter.message_id,
            type=letter.message_type,
            step=kind.STEP if kind else None,
            service=letter.service,
            reason=letter.reason,
            error=letter.error,
            tries=int(letter.tries) if letter.tries.isdecimal() else 0,
        )

    def _row(self, read: _Read, *, duplicate: bool) -> TraceRecord:
        record, envelope, message = read.record, read.envelope, read.message
        return TraceRecord(
            order_id=envelope.subject,
            topic=record.topic.removeprefix(self.prefix),
            partition=record.partition,
            offset=record.offset,
            at_ms=self._since(envelope.subject, read.decided),
            type=envelope.type,
            kind=Kind.COMMAND if issubclass(read.kind, Command) else Kind.EVENT,
            step=read.kind.STEP,
            nature=nature_of(read.kind),
            producer=envelope.source.rpartition("/")[2],
            id=envelope.id,
            causation_id=envelope.causation_id,
            cause=self.types.get(envelope.causation_id),
            hop=self._hop(envelope.id),
            size=_size(record),
            duplicate=duplicate,
            attempt=envelope.attempt,
            poisoned=message is None,
            body=to_builtins(message) if message else {},
        )

    def _since(self, order_id: str, moment: datetime | None) -> float:
        """Milliseconds from the placing of the order; 0 if one of the two is not known."""
        placed = self.placed.get(order_id)
        return round((moment - placed).total_seconds() * 1000, 3) if moment and placed else 0.0

    def _hop(self, message_id: str) -> int:
        """How many records there are from the first to this one; a cycle, which none should make, ends it."""
        chain: set[str] = set()
        while message_id in self.causes and message_id not in chain:
            chain.add(message_id)
            message_id = self.causes[message_id]
        return len(chain)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _size(record: Record) -> int:
    headers = sum(len(name.encode()) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers
