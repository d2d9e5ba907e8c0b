"""CloudEvents 1.0 in Kafka's binary mode: the envelope is in the headers, the body is the message's JSON.

A consumer decides by headers alone whether a record is its business, and parses no body that isn't. Ids are
derived from their cause, so that a step that is executed again produces the same ids and the inbox removes
them; they start with the order id, a time-ordered UUIDv7, since random ids make the inbox's index slow.

A message that is told again, because its answer is missing, keeps its id and has a higher attempt. To the
inbox that is news, so it is answered once more; the answer has its old id and the attempt of its cause, and
so on along the chain, until it comes to whoever has missed it.

Sources: CloudEvents 1.0.2, its Kafka protocol binding, its distributed-tracing extension; W3C Trace Context.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Final, Protocol

from pydantic import ValidationError

from common.errors import NewerSchemaError, UnreadableRecordError
from common.messages import MESSAGES, Message

Headers = tuple[tuple[str, bytes], ...]

_CONTENT_TYPE: Final = "application/json"
_SPEC_VERSION: Final = "1.0"
_ID_BYTES: Final = 8
_TRACE_ID_BYTES: Final = 16
_TRACE_ID: Final = re.compile("(?!0{32})[0-9a-f]{32}")
# What a database can't hold, or an index can't, must not get past the envelope.
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,400}")
_NAMES: Final = ("ce_id", "ce_subject", "ce_correlationid", "ce_causationid")
MOST_ATTEMPTS: Final = 999_999_999
"""That can be told apart; only a stranger's record comes near."""
_ATTEMPT: Final = re.compile("[1-9][0-9]{0,8}")
_VERSION: Final = re.compile("urn:saga-lab:[A-Za-z]+:(?P<version>[0-9]{1,9})")
_TRACEPARENT: Final = re.compile(
    f"[0-9a-f]{{2}}-(?P<trace_id>{_TRACE_ID.pattern})-[0-9a-f]{{16}}-[0-9a-f]{{2}}"
)


class Record(Protocol):
    """What the lab needs of a consumed record; aiokafka's `ConsumerRecord` fits as it is."""

    @property
    def topic(self) -> str:
        """Where it was found."""

    @property
    def partition(self) -> int:
        """The part of the topic."""

    @property
    def offset(self) -> int:
        """Its place in the partition, counted from 0."""

    @property
    def key(self) -> bytes | None:
        """The order id."""

    @property
    def value(self) -> bytes | None:
        """The message as JSON."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """The envelope."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The context of a message: who says it, when, about what, and because of what."""

    id: str
    type: str
    source: str
    subject: str
    time: str
    """When it was decided: RFC 3339, UTC, microseconds."""
    correlation_id: str
    """The same for all messages of one saga: the order id."""
    causation_id: str
    """The id of the message that led to this one; for the first, the order id."""
    traceparent: str
    schema: str
    attempt: int = 1
    """How often it has been told, this time included."""

    @property
    def key(self) -> str:
        """What the inbox knows it by: its id, told apart by attempt."""
        return inbox_key(self.id, self.attempt)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to be published: a row of the outbox."""

    id: str
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Cause:
    """What the messages of one decision descend from."""

    id: str
    correlation_id: str
    trace_id: str
    partition: int
    attempt: int = 1
    """The attempt that its messages are told with."""


def origin(order_id: str, partition: int) -> Cause:
    """The cause of an order's first message: the request itself, whose id is the order's."""
    return Cause(order_id, order_id, _trace_id(order_id), partition)


def cause(envelope: Envelope, partition: int) -> Cause:
    """The consumed message as the cause of what it leads to, on the same partition so that order holds."""
    given = _TRACEPARENT.match(envelope.traceparent)
    trace_id = given["trace_id"] if given else _trace_id(envelope.correlation_id)
    return Cause(envelope.id, envelope.correlation_id, trace_id, partition, envelope.attempt)


def inbox_key(message_id: str, attempt: int) -> str:
    """What the inbox knows a message by."""
    return message_id if attempt == 1 else f"{message_id}~{attempt}"


def seal(  # noqa: PLR0913 - an envelope has that much on it; all but two are named where it is called
    message: Message, because: Cause, *, source: str, topic: str, index: int, now: datetime
) -> Outgoing:
    """Put a message into its envelope; `index` tells apart the messages of one decision."""
    kind = type(message).__name__
    digest = _digest(f"{because.id}/{source}/{kind}/{index}", _ID_BYTES)
    message_id = f"{message.order_id}-{digest}"
    headers = {
        "ce_specversion": _SPEC_VERSION,
        "ce_id": message_id,
        "ce_type": kind,
        "ce_source": source,
        "ce_subject": message.order_id,
        "ce_time": timestamp(now),
        "ce_dataschema": _schema(type(message)),
        "ce_correlationid": because.correlation_id,
        "ce_causationid": because.id,
        "traceparent": f"00-{because.trace_id}-{digest}-01",
        "content-type": _CONTENT_TYPE,
    }
    if because.attempt > 1:
        headers["ce_attempt"] = str(because.attempt)
    return Outgoing(
        id=message_id,
        topic=topic,
        partition=because.partition,
        key=message.order_id.encode(),
        value=message.model_dump_json(exclude_none=True).encode(),
        headers=tuple((name, value.encode()) for name, value in headers.items()),
    )


def open_envelope(record: Record) -> Envelope:
    """Read a record's headers.

    Raises:
        UnreadableRecordError: a mandatory header is missing, or is not text.
    """
    headers = dict(record.headers)
    try:
        attempt = headers.get("ce_attempt", b"1").decode()
        if not _ATTEMPT.fullmatch(attempt):
            raise UnreadableRecordError(_at(record, f"ce_attempt is no attempt: {attempt[:20]!r}"))
        names = {name: headers[name].decode() for name in _NAMES}
        for name, text in names.items():
            if not _NAME.fullmatch(text):
                raise UnreadableRecordError(_at(record, f"{name} is too long, or no text"))
        return Envelope(
            id=names["ce_id"],
            type=headers["ce_type"].decode(),
            source=headers["ce_source"].decode(),
            subject=names["ce_subject"],
            time=headers["ce_time"].decode(),
            correlation_id=names["ce_correlationid"],
            causation_id=names["ce_causationid"],
            traceparent=headers.get("traceparent", b"").decode(),
            schema=headers.get("ce_dataschema", b"").decode(),
            attempt=int(attempt),
        )
    except (KeyError, UnicodeDecodeError, AttributeError) as error:
        raise UnreadableRecordError(_at(record, f"bad or missing CloudEvents header: {error}")) from error


def parse(record: Record, message_type: type[Message]) -> Message:
    """Read a record's body as the message that its header promises.

    Raises:
        NewerSchemaError: the header promises a newer version than this one knows.
        UnreadableRecordError: the body doesn't fit the type, or is about another order than the record's key.
    """
    schema = dict(record.headers).get("ce_dataschema", b"").decode(errors="replace")
    given = _VERSION.fullmatch(schema)
    if given is not None and int(given["version"]) > message_type.VERSION:
        newer = f"schema version {given['version']}, but only {message_type.VERSION} is known here"
        raise NewerSchemaError(_at(record, newer))
    try:
        message = message_type.model_validate_json(record.value or b"")
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "body"
        raise UnreadableRecordError(_at(record, f"{where}: {problem['msg']}")) from error
    if message.order_id.encode() != record.key:
        # Another key means another partition, where the order's records could overtake each other.
        raise UnreadableRecordError(_at(record, f"the key is not the order id {message.order_id!r}"))
    return message


def read_message(record: Record) -> tuple[Envelope, Message]:
    """Read a whole record of any type.

    Raises:
        UnreadableRecordError: it isn't one of the lab's messages.
    """
    envelope = open_envelope(record)
    if envelope.type not in MESSAGES:
        raise UnreadableRecordError(_at(record, f"unknown type {envelope.type!r}"))
    return envelope, parse(record, MESSAGES[envelope.type])


def timestamp(moment: datetime) -> str:
    """A time as `ce_time` has it: RFC 3339, UTC, microseconds."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _schema(message_type: type[Message]) -> str:
    return f"urn:saga-lab:{message_type.__name__}:{message_type.VERSION}"


def _digest(text: str, size: int) -> str:
    return blake2b(text.encode(), digest_size=size).hexdigest()


def _trace_id(order_id: str) -> str:
    """A UUID is as long as a trace id, so that an order can be looked up in a tracing tool by its own id."""
    plain = order_id.replace("-", "")
    return plain if _TRACE_ID.fullmatch(plain) else _digest(order_id, _TRACE_ID_BYTES)


def _at(record: Record, problem: str) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}: {problem}"
