"""From what the observer read, and what the databases say, to a recording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from common.envelope import Envelope, Record, read_message
from common.errors import UnreadableRecordError
from common.messages import Command, Event, Message, Step
from common.store.journal import Change
from compare.recording import Kind, Nature, StateChange, TraceRecord

_UNDOING = frozenset({Step.RELEASE, Step.REFUND})


@dataclass(frozen=True, slots=True)
class _Read:
    record: Record
    envelope: Envelope
    message: Message


def trace_of(
    records: Iterable[Record], order_ids: frozenset[str], prefix: str
) -> tuple[tuple[TraceRecord, ...], int]:
    """The records of these orders in causal order, and how many others there were.

    Each order's records are together, every one behind the one that caused it.
    """
    ours: list[_Read] = []
    others = 0
    for record in records:
        try:
            envelope, message = read_message(record)
        except UnreadableRecordError:
            others += 1
            continue
        if envelope.subject in order_ids:
            ours.append(_Read(record, envelope, message))
        else:
            others += 1
    ours.sort(key=lambda read: (read.record.topic, read.record.partition, read.record.offset))
    story = _Story.of(ours, prefix)
    seen: set[str] = set()
    trace = []
    for read in ours:
        trace.append(story.row(read, duplicate=read.envelope.id in seen))
        seen.add(read.envelope.id)
    # By cause before time: a clock may be set back.
    return tuple(sorted(trace, key=lambda row: (row.order_id, row.hop, row.at_ms, row.duplicate))), others


def placed_at(envelopes: Iterable[Envelope]) -> dict[str, datetime]:
    """By order: when its first message, the one caused by the order itself, was decided."""
    return {
        envelope.subject: datetime.fromisoformat(envelope.time)
        for envelope in envelopes
        if envelope.causation_id == envelope.subject
    }


def changes_of(service: str, history: Sequence[Change], order_ids: frozenset[str]) -> list[StateChange]:
    """A service's changes of state for these orders, with absolute times; see `relative`."""
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
    """The changes with their times counted from the first change of their order, in that order of time."""
    changes = sorted(changes, key=lambda change: change.at_ms)
    start: dict[str, float] = {}
    for change in changes:
        start.setdefault(change.order_id, change.at_ms)
    return tuple(
        change.model_copy(update={"at_ms": round(change.at_ms - start[change.order_id], 3)})
        for change in changes
    )


def nature_of(message: type[Message]) -> Nature:
    """What a message is in the story."""
    if message.STEP in _UNDOING:
        return Nature.COMPENSATION
    if issubclass(message, Event) and message.FAILURE:
        return Nature.FAILURE
    return Nature.COMMAND if issubclass(message, Command) else Nature.EVENT


@dataclass(frozen=True, slots=True)
class _Story:
    """What one record's row needs to know of the others."""

    prefix: str
    types: Mapping[str, str]
    causes: Mapping[str, str]
    placed: Mapping[str, datetime]

    @classmethod
    def of(cls, reads: Sequence[_Read], prefix: str) -> _Story:
        envelopes = [read.envelope for read in reads]
        return cls(
            prefix,
            types={envelope.id: envelope.type for envelope in envelopes},
            causes={envelope.id: envelope.causation_id for envelope in envelopes},
            placed=placed_at(envelopes),
        )

    def row(self, read: _Read, *, duplicate: bool) -> TraceRecord:
        record, envelope, message = read.record, read.envelope, read.message
        decided = datetime.fromisoformat(envelope.time)
        since = decided - self.placed.get(envelope.subject, decided)
        return TraceRecord(
            order_id=envelope.subject,
            topic=record.topic.removeprefix(self.prefix),
            partition=record.partition,
            offset=record.offset,
            at_ms=round(since.total_seconds() * 1000, 3),
            type=envelope.type,
            kind=Kind.COMMAND if isinstance(message, Command) else Kind.EVENT,
            step=message.STEP,
            nature=nature_of(type(message)),
            producer=envelope.source.rpartition("/")[2],
            id=envelope.id,
            causation_id=envelope.causation_id,
            cause=self.types.get(envelope.causation_id),
            hop=self._hop(envelope.id),
            size=_size(record),
            duplicate=duplicate,
            body=message.model_dump(mode="json", exclude_none=True),
        )

    def _hop(self, message_id: str) -> int:
        """How many records there are from the first to this one; a cycle, which none should make, ends it."""
        chain: set[str] = set()
        while message_id in self.causes and message_id not in chain:
            chain.add(message_id)
            message_id = self.causes[message_id]
        return len(chain)


def _size(record: Record) -> int:
    headers = sum(len(name.encode()) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers
