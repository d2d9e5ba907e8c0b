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
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Final, Protocol, TypeVar

from msgspec import DecodeError, Struct

from common.errors import NewerSchemaError, UnreadableRecordError
from common.messages import MESSAGES, Message, read, write

Headers = tuple[tuple[str, bytes], ...]
M = TypeVar("M", bound=Message)

_CONTENT_TYPE: Final = ("content-type", b"application/json")
_TYPE: Final = "ce_type"
_SPEC_VERSION: Final = ("ce_specversion", b"1.0")
_ID_BYTES: Final = 8
_TRACE_ID_BYTES: Final = 16
_TRACE_ID: Final = re.compile("(?!0{32})[0-9a-f]{32}")
# What a database can't hold, or an index can't, must not get past the envelope.
_LONGEST_NAME: Final = 400
_NAME: Final = re.compile(rf"[^\x00-\x1f\x7f-\x9f]{{1,{_LONGEST_NAME}}}")
_QUOTED: Final = re.compile(r"Invalid enum value .*(?= - at `\$)", re.DOTALL)
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


class Envelope(Struct, frozen=True, gc=False):
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


class Outgoing(Struct, array_like=True):
    """A record to be published; the outbox keeps it until it is acknowledged."""

    id: str
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    parcel: int = 0
    """The number of the outbox row that it is in, once it is in one."""


class Cause(Struct, frozen=True, gc=False):
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
    kind = type(message)
    digest = _digest(f"{because.id}/{source}/{kind.__name__}/{index}", _ID_BYTES)
    message_id = f"{message.order_id}-{digest}"
    key = message.order_id.encode()
    type_, source_, schema = _constant_headers(kind, source)
    headers: Headers = (
        type_,
        _SPEC_VERSION,
        ("ce_id", message_id.encode()),
        source_,
        ("ce_subject", key),
        _time_header(now),
        schema,
        ("ce_correlationid", because.correlation_id.encode()),
        ("ce_causationid", because.id.encode()),
        ("traceparent", f"00-{because.trace_id}-{digest}-01".encode()),
        _CONTENT_TYPE,
    )
    if because.attempt > 1:
        headers = (*headers, ("ce_attempt", b"%d" % because.attempt))
    return Outgoing(message_id, topic, because.partition, key, write(message), headers)


def kind_of(record: Record) -> bytes | None:
    """What a record's type is by its headers; None if there is no such header.

    It is asked of every record, also by services that it is not addressed to, so the place where `seal` puts
    it is looked at first. Of two such headers, which CloudEvents rules out, that one counts, else the last.
    """
    headers = record.headers
    if headers and headers[0][0] == _TYPE:
        return headers[0][1]
    return dict(headers).get(_TYPE)


def open_envelope(record: Record) -> Envelope:
    """Read a record's headers.

    Raises:
        UnreadableRecordError: a mandatory header is missing, or is not text.
    """
    headers = dict(record.headers)
    try:
        return Envelope(
            id=_name(headers, "ce_id"),
            type=headers[_TYPE].decode(),
            source=headers["ce_source"].decode(),
            subject=_name(headers, "ce_subject"),
            time=headers["ce_time"].decode(),
            correlation_id=_name(headers, "ce_correlationid"),
            causation_id=_name(headers, "ce_causationid"),
            traceparent=headers.get("traceparent", b"").decode(),
            schema=headers.get("ce_dataschema", b"").decode(),
            attempt=_attempt(headers),
        )
    except UnreadableRecordError as error:
        raise UnreadableRecordError(_at(record, str(error))) from error
    except (KeyError, UnicodeDecodeError, AttributeError) as error:
        raise UnreadableRecordError(_at(record, f"bad or missing CloudEvents header: {error}")) from error


def parse(record: Record, envelope: Envelope, kind: type[M]) -> M:
    """Read a record's body as the message that its envelope promises.

    Raises:
        NewerSchemaError: the envelope promises a newer version than this one knows.
        UnreadableRecordError: the body doesn't fit the type, or is about another order than the record's key.
    """
    if envelope.schema != _schema(kind):
        given = _VERSION.fullmatch(envelope.schema)
        if given is not None and int(given["version"]) > kind.VERSION:
            newer = f"schema version {given['version']}, but only {kind.VERSION} is known here"
            raise NewerSchemaError(_at(record, newer))
    try:
        message = read(record.value or b"", kind)
    except DecodeError as error:
        # What is no member of an enumeration is quoted there, and may be a customer's.
        problem = _QUOTED.sub("Invalid enum value", str(error))
        raise UnreadableRecordError(_at(record, problem)) from None
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
    return envelope, parse(record, envelope, MESSAGES[envelope.type])


def timestamp(moment: datetime) -> str:
    """A time in UTC as `ce_time` has it: RFC 3339, microseconds."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


@lru_cache(maxsize=16)
def _time_header(moment: datetime) -> tuple[str, bytes]:
    return "ce_time", timestamp(moment).encode()


@lru_cache(maxsize=256)
def _constant_headers(kind: type[Message], source: str) -> Headers:
    return (
        (_TYPE, kind.__name__.encode()),
        ("ce_source", source.encode()),
        ("ce_dataschema", _schema(kind).encode()),
    )


@cache
def _schema(kind: type[Message]) -> str:
    return f"urn:saga-lab:{kind.__name__}:{kind.VERSION}"


def _name(headers: Mapping[str, bytes], header: str) -> str:
    name = headers[header].decode()
    if not (0 < len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable()) and not _NAME.fullmatch(
        name
    ):
        raise UnreadableRecordError(f"{header} is too long, or no text")
    return name


def _attempt(headers: Mapping[str, bytes]) -> int:
    if "ce_attempt" not in headers:
        return 1
    attempt = headers["ce_attempt"].decode()
    if not _ATTEMPT.fullmatch(attempt):
        raise UnreadableRecordError(f"ce_attempt is no attempt: {attempt[:20]!r}")
    return int(attempt)


def _digest(text: str, size: int) -> str:
    return blake2b(text.encode(), digest_size=size).hexdigest()


def _trace_id(order_id: str) -> str:
    """A UUID is as long as a trace id, so that an order can be looked up in a tracing tool by its own id."""
    plain = order_id.replace("-", "")
    return plain if _TRACE_ID.fullmatch(plain) else _digest(order_id, _TRACE_ID_BYTES)


def _at(record: Record, problem: str) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}: {problem}"
