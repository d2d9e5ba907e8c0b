"""Records that can't be processed: they go to the dead letters of their topic, and back again.

A dead letter is the record as it was, on `<topic>.dlq`, with the reason in headers of its own. It leaves
through the outbox like every other record, so it is acknowledged before the offset of its original is
committed, and it is there exactly if the decision to give up is.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, fields
from typing import Final

from common.envelope import Headers, Outgoing, Record, kind_of

_MARK: Final = "dlq_"
_LONGEST_TEXT: Final = 4_000
"""Characters of an error or its stack that are kept; the innermost calls are at the end."""
_LARGEST_VALUE: Final = 512 * 1024
"""Bytes; the lab's own messages have some hundred, and a broker takes a million by default."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a service has given a record up."""

    reason: str
    """`unreadable`, `newer_schema` or `failed`."""
    error: Exception
    service: str
    """Such as `orchestrated/payment`; other services may have had no trouble with the record."""
    tries: int
    at: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter, read back."""

    record: Record
    reason: str
    error: str
    stack: str
    service: str
    tries: str
    at: str
    origin: str
    """TOPIC[PARTITION]@OFFSET of the original."""
    left_out: str
    """What of the original is not here, for its size; it is at its origin only."""

    @property
    def message_id(self) -> str:
        """The id of the message; empty if even that can't be read."""
        return _text(dict(self.record.headers).get("ce_id"))

    @property
    def message_type(self) -> str:
        """The type that the message claims to have."""
        return _text(kind_of(self.record))

    @property
    def order_id(self) -> str:
        """The record's key."""
        return _text(self.record.key)


def dead_letter(record: Record, topic: str, failure: Failure) -> Outgoing:
    """The record for the dead letters of its topic; `topic` is theirs, in full."""
    origin = f"{record.topic}[{record.partition}]@{record.offset}"
    stack = "".join(traceback.format_exception(failure.error))
    added = {
        "reason": failure.reason,
        "error": f"{type(failure.error).__name__}: {failure.error}"[:_LONGEST_TEXT],
        "stack": stack[-_LONGEST_TEXT:],
        "service": failure.service,
        "tries": str(failure.tries),
        "at": failure.at,
        "origin": origin,
    }
    # A header may be null on the wire, though the type says otherwise; that is as good as none.
    kept = [
        (name, value)
        for name, value in record.headers
        if value is not None and not name.startswith(_MARK)  # type: ignore[redundant-expr] # see above
    ]
    value, size = record.value, len(record.value or b"")
    if size > _LARGEST_VALUE:
        # With its marks, it might be too large for the broker, and then nothing could get by it any more.
        value, added = None, {**added, "left_out": f"a value of {size} bytes"}
    if sum(len(name) + len(text) for name, text in kept) > _LARGEST_VALUE:
        kept, added = [], {**added, "left_out": "more headers than can be kept"}
    marks = [(_MARK + name, text.encode()) for name, text in added.items()]
    return Outgoing(
        id=f"{origin}/{failure.service}",
        topic=topic,
        partition=record.partition,
        key=record.key,
        value=value,
        headers=(*kept, *marks),
    )


def read_dead_letter(record: Record) -> DeadLetter:
    """A record of a topic of dead letters; what is missing from it is empty."""
    marks = {name.removeprefix(_MARK): _text(value) for name, value in record.headers}
    names = (field.name for field in fields(DeadLetter) if field.name != "record")
    return DeadLetter(record, **{name: marks.get(name, "") for name in names})


def original(letter: Record, topic: str) -> Outgoing:
    """The record as it was, to be put on its topic once more: with its id, so that nothing happens twice."""
    headers: Headers = tuple((name, value) for name, value in letter.headers if not name.startswith(_MARK))
    message_id = _text(dict(headers).get("ce_id"))
    return Outgoing(message_id, topic, letter.partition, letter.key, letter.value, headers)


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
