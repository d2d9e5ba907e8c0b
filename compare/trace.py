"""From what the observer read, and what the databases say, to a recording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

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


def trace_of(records: Iterable[Record], order_ids: frozenset[str], prefix: str) -> tuple[tuple[TraceRecord, ...], int]:
    """The records of these orders in causal order, and how many others there were.

    Records are ordered by the time of their decision; one can't be decided before the one that it is caused by.
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
    types = {read.envelope.id: read.envelope.type for read in ours}
    causes = {read.envelope.id: read.envelope.causation_id for read in ours}
    placed = placed_at((read.envelope for read in ours))
    seen: set[str] = set()
    trace = []
    for read in ours:
        trace.append(_row(read, prefix, types, causes, placed, duplicate=read.envelope.id in seen))
        seen.add(read.envelope.id)
    return tuple(sorted(trace, key=lambda row: (row.at_ms, row.hop, row.duplicate, row.offset))), others


def placed_at(envelopes: Iterable[Envelope]) -> dict[str, datetime]:
    """By order: when its first message, the one caused by the order itself, was decided."""
    return {
        envelope.subject: datetime.fromisoformat(envelope.time)
        for envelope in envelopes
        if envelope.causation_id == envelope.subject
    }


def changes_of(service: str, history: Sequence[Change], order_ids: frozenset[str]) -> list[StateChange]:
    """A service's changes of state for these orders; times are filled in relative to the placing of each order."""
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
        change.model_copy(update={"at_ms": round(change.at_ms - start[change.order_id], 3)}) for change in changes
    )


def nature_of(message: type[Message]) -> Nature:
    """What a message is in the story."""
    if message.STEP in _UNDOING:
        return Nature.COMPENSATION
    if issubclass(message, Event) and message.FAILURE:
        return Nature.FAILURE
    return Nature.COMMAND if issubclass(message, Command) else Nature.EVENT


def _row(
    read: _Read,
    prefix: str,
    types: Mapping[str, str],
    causes: Mapping[str, str],
    placed: Mapping[str, datetime],
    *,
    duplicate: bool,
) -> TraceRecord:
    record, envelope, message = read.record, read.envelope, read.message
    decided = datetime.fromisoformat(envelope.time)
    since = decided - placed.get(envelope.subject, decided)
    return TraceRecord(
        order_id=envelope.subject,
        topic=record.topic.removeprefix(prefix),
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
        cause=types.get(envelope.causation_id),
        hop=_hop(envelope.id, causes),
        size=_size(record),
        duplicate=duplicate,
        body=_body(message),
    )


def _body(message: Message) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude_none=True)


def _hop(message_id: str, causes: Mapping[str, str]) -> int:
    hop = 0
    seen: set[str] = set()
    while message_id in causes and message_id not in seen:
        seen.add(message_id)
        message_id = causes[message_id]
        hop += 1
    return hop


def _size(record: Record) -> int:
    headers = sum(len(name.encode()) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers
