"""The envelope: it comes out as it went in, its ids are derived, and other implementations can read it."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from common.envelope import (
    Cause,
    Outgoing,
    cause,
    inbox_key,
    kind_of,
    open_envelope,
    origin,
    parse,
    read_message,
    seal,
    timestamp,
)
from common.errors import NewerSchemaError, UnreadableRecordError
from common.messages import (
    MESSAGES,
    Charge,
    InventoryReserved,
    Message,
    OrderCreated,
    Reason,
    ReserveInventory,
    SagaStarted,
    write,
)
from tests.pump import NOW, Delivered, delivered, order_id

ID: Final = order_id(1)
ORIGIN: Final = origin(ID, 2)
CREATED: Final = OrderCreated(order_id=ID, customer_id="alice", item="laptop", quantity=2, price_cents=100_00)


def sealed(
    message: Message = CREATED, because: Cause = ORIGIN, source: str = "/choreographed/order", index: int = 0
) -> Outgoing:
    """A message in its envelope."""
    return seal(message, because, source=source, topic="orders.events", index=index, now=NOW)


def with_headers(**changes: bytes | None) -> Delivered:
    """A record of which some headers have another value, or None for no such header."""
    record = delivered(sealed(), offset=7)
    headers: dict[str, bytes | None] = {**dict(record.headers), **changes}
    return replace(
        record, headers=tuple((name, value) for name, value in headers.items() if value is not None)
    )


texts: Final = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200)
numbers: Final = st.integers(1, 10**15)
fields: Final[dict[str, st.SearchStrategy[Any]]] = {
    "order_id": st.uuids().map(str),
    "customer_id": texts,
    "item": texts,
    "quantity": numbers,
    "price_cents": numbers,
    "amount_cents": numbers,
    "reason": st.sampled_from(Reason),
    "charge": st.none() | st.builds(Charge, customer_id=texts, amount_cents=numbers),
}
messages: Final = st.sampled_from(list(MESSAGES.values())).flatmap(
    lambda message: st.builds(
        message, **{name: fields[name] for name in (field.name for field in structs.fields(message))}
    )
)


@given(messages, st.datetimes(timezones=st.just(UTC)), st.integers(0, 99))
def test_a_message_comes_out_as_it_went_in(message: Message, now: datetime, partition: int) -> None:
    """Any message, sealed and read again, is the same, and its envelope says what it is."""
    because = origin(message.order_id, partition)
    record = seal(message, because, source="/mode/service", topic="some.topic", index=0, now=now)
    envelope, read = read_message(delivered(record))
    assert read == message
    assert type(read) is type(message)
    assert (record.partition, record.key) == (partition, message.order_id.encode())
    assert (envelope.id, envelope.type) == (record.id, type(message).__name__)
    assert (envelope.subject, envelope.correlation_id) == (message.order_id, message.order_id)
    assert envelope.causation_id == because.id
    assert datetime.fromisoformat(envelope.time) == now


@given(messages)
def test_an_independent_implementation_reads_it(message: Message) -> None:
    """The CloudEvents SDK takes the record for a valid event in Kafka's binary mode."""
    record = seal(message, ORIGIN, source="/mode/service", topic="some.topic", index=0, now=NOW)
    assert record.value is not None
    as_read_by_others = KafkaMessage(dict(record.headers), record.key, record.value)
    event = from_binary(as_read_by_others, JSONFormat())
    assert (event.get_specversion(), event.get_type()) == ("1.0", type(message).__name__)
    assert (event.get_id(), event.get_source()) == (record.id, "/mode/service")
    assert (event.get_subject(), event.get_time()) == (message.order_id, NOW)
    assert event.get_datacontenttype() == "application/json"
    assert event.get_dataschema() == f"urn:saga-lab:{type(message).__name__}:1"
    assert event.get_extension("correlationid") == ID
    assert event.get_data() == json.loads(write(message))


def test_the_required_attributes_are_headers() -> None:
    """A record has the attributes that CloudEvents requires, and the ones that the lab adds."""
    headers = dict(sealed().headers)
    assert {"ce_id", "ce_source", "ce_specversion", "ce_type"} <= headers.keys()
    assert {"ce_subject", "ce_time", "ce_correlationid", "ce_causationid", "traceparent"} <= headers.keys()
    assert (headers["ce_specversion"], headers["content-type"]) == (b"1.0", b"application/json")
    attributes = [name.removeprefix("ce_") for name in headers if name.startswith("ce_")]
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in attributes)


@pytest.mark.parametrize("place", range(len(sealed().headers)))
def test_the_type_is_found_wherever_it_stands(place: int) -> None:
    """It is written first, and looked for there; another producer may write it elsewhere, or not at all."""
    record = delivered(sealed(), offset=7)
    turned = (*record.headers[place:], *record.headers[:place])
    assert kind_of(replace(record, headers=turned)) == b"OrderCreated"
    assert kind_of(replace(record, headers=())) is None
    assert record.headers[0][0] == "ce_type"


@pytest.mark.parametrize(
    "name", ["ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "ce_correlationid", "ce_causationid"]
)
def test_a_record_without_a_mandatory_header_is_unreadable(name: str) -> None:
    """The error says where the record is and which header it lacks."""
    with pytest.raises(UnreadableRecordError, match=rf"orders\.events\[2\]@7: bad or missing .*'{name}'"):
        open_envelope(with_headers(**{name: None}))


@pytest.mark.parametrize(
    "name", ["ce_id", "ce_type", "ce_subject", "ce_time", "ce_dataschema", "traceparent"]
)
def test_a_header_that_is_no_text_makes_a_record_unreadable(name: str) -> None:
    """The error says where the record is and what is wrong with the header."""
    with pytest.raises(UnreadableRecordError, match=r"orders\.events\[2\]@7: .*can't decode byte 0xff"):
        open_envelope(with_headers(**{name: b"\xff"}))


@pytest.mark.parametrize("name", ["ce_id", "ce_subject", "ce_correlationid", "ce_causationid"])
@pytest.mark.parametrize("text", [b"", b"a\x00b", b"x\nERROR a forged line", b"x" * 401])
def test_an_id_that_a_database_cannot_hold_makes_a_record_unreadable(name: str, text: bytes) -> None:
    """An id that can't be stored would fail the whole batch, again and again."""
    with pytest.raises(UnreadableRecordError, match=rf"@7: {name} is too long, or no text"):
        open_envelope(with_headers(**{name: text}))


@pytest.mark.parametrize("attempt", [b"", b"0", b"-1", b"1.5", b"two", b"1" * 10])
def test_an_attempt_that_is_none_makes_a_record_unreadable(attempt: bytes) -> None:
    """Attempts are counted from 1."""
    with pytest.raises(UnreadableRecordError, match="ce_attempt is no attempt"):
        open_envelope(with_headers(ce_attempt=attempt))


def test_a_header_without_a_value_makes_a_record_unreadable() -> None:
    """A header that is null on the wire is as bad as none."""
    nothing: Any = None  # Kafka permits it; the record's type doesn't, since no producer of ours does it.
    empty = replace(delivered(sealed()), headers=(("ce_id", nothing),))
    with pytest.raises(UnreadableRecordError, match="NoneType"):
        open_envelope(empty)


def test_trace_and_schema_are_optional() -> None:
    """A record from elsewhere may lack what only tracing and schema tools need."""
    envelope = open_envelope(with_headers(traceparent=None, ce_dataschema=None))
    assert (envelope.traceparent, envelope.schema) == ("", "")


@pytest.mark.parametrize("key", [None, b"", b"another order"])
def test_a_key_that_is_not_the_order_id_makes_a_record_unreadable(key: bytes | None) -> None:
    """Under another key a record could overtake, or be overtaken by, those of its own order."""
    with pytest.raises(UnreadableRecordError, match="the key is not the order id"):
        read_message(replace(delivered(sealed()), key=key))


def test_fields_that_are_not_known_are_tolerated() -> None:
    """An older consumer reads what a newer producer tells."""
    body = json.loads(sealed().value or b"") | {"gift_wrapping": True}
    newer = replace(delivered(sealed()), value=json.dumps(body).encode())
    assert read_message(newer)[1] == CREATED


def test_a_type_that_is_not_known_is_unreadable() -> None:
    """The error quotes the unknown type."""
    with pytest.raises(UnreadableRecordError, match="unknown type 'PlaceOrder'"):
        read_message(with_headers(ce_type=b"PlaceOrder"))


@pytest.mark.parametrize("schema", [b"urn:saga-lab:OrderCreated:2", b"urn:saga-lab:Renamed:3"])
def test_a_newer_schema_is_told_apart_from_a_broken_record(schema: bytes) -> None:
    """What a newer major version means can't be known, so its body isn't even looked at."""
    newer = replace(with_headers(ce_dataschema=schema), value=b"?")
    with pytest.raises(NewerSchemaError, match=r"schema version [23], but only 1 is known here"):
        parse(newer, open_envelope(newer), OrderCreated)


@pytest.mark.parametrize(
    "schema",
    [b"urn:saga-lab:OrderCreated:1", b"urn:saga-lab:OrderCreated:0", b"", b"https://a/b/2", b"\xc3\xa4"],
)
def test_any_other_schema_is_no_reason_to_refuse_a_record(schema: bytes) -> None:
    """A version that is known, or a name that is none of the lab's, says nothing against the body."""
    record = with_headers(ce_dataschema=schema)
    assert parse(record, open_envelope(record), OrderCreated) == CREATED


def test_what_is_not_carried_is_not_written() -> None:
    """An absent charge costs no bytes in the orchestrated mode."""
    reserve = ReserveInventory(order_id=ID, item="laptop", quantity=2)
    assert json.loads(sealed(reserve).value or b"") == {"order_id": ID, "item": "laptop", "quantity": 2}


def test_ids_are_derived_from_the_cause_and_begin_with_the_order_id() -> None:
    """The same step has the same id whenever it is executed, and ids sort by the time of their order."""
    first = sealed()
    again = seal(
        CREATED,
        ORIGIN,
        source="/choreographed/order",
        topic="orders.events",
        index=0,
        now=datetime(2030, 1, 1, tzinfo=UTC),
    )
    assert first.id == again.id
    assert re.fullmatch(f"{ID}-[0-9a-f]{{16}}", first.id)


def test_a_message_that_is_told_again_keeps_its_id_and_counts_its_attempts() -> None:
    """Only the header and what the inbox knows it by tell the attempts apart; the first needs no header."""
    first, second = sealed(), sealed(because=structs.replace(ORIGIN, attempt=2))
    assert (second.id, second.key, second.value) == (first.id, first.key, first.value)
    assert dict(second.headers) == {**dict(first.headers), "ce_attempt": b"2"}
    one, two = open_envelope(delivered(first)), open_envelope(delivered(second))
    assert ((one.id, one.attempt), (two.id, two.attempt)) == ((first.id, 1), (first.id, 2))
    assert (one.key, two.key) == (first.id, f"{first.id}~2") == (inbox_key(one.id, 1), inbox_key(one.id, 2))


def test_an_answer_takes_the_attempt_of_its_question_over() -> None:
    """A question that comes again is answered again, in a record that is news to whoever missed the first."""
    question = delivered(sealed(because=structs.replace(ORIGIN, attempt=3)))
    because = cause(open_envelope(question), 2)
    answers = [sealed(InventoryReserved(order_id=ID, item="laptop", quantity=2), because) for _ in range(2)]
    envelope = open_envelope(delivered(answers[0]))
    assert (because.attempt, envelope.attempt) == (3, 3)
    first_answer = sealed(
        InventoryReserved(order_id=ID, item="laptop", quantity=2), structs.replace(because, attempt=1)
    )
    assert first_answer.id == answers[0].id == answers[1].id


@given(*([st.tuples(st.uuids().map(str), st.sampled_from(["/a/b", "/a/c", "/d/b"]), st.integers(0, 5))] * 2))
def test_another_index_cause_or_source_gives_another_id(
    one: tuple[str, str, int], other: tuple[str, str, int]
) -> None:
    """Two messages of one order share an id only if cause, source and index are all the same."""

    def message_id(because: str, source: str, index: int) -> str:
        return sealed(because=structs.replace(ORIGIN, id=because), source=source, index=index).id

    assert (message_id(*one) == message_id(*other)) == (one == other)


def test_type_index_cause_and_source_each_make_a_difference() -> None:
    """Changing any one of the four, and nothing else, changes the id."""
    placed = SagaStarted(**structs.asdict(CREATED))
    ids = {
        sealed(placed).id,
        sealed().id,
        sealed(index=1).id,
        sealed(source="/choreographed/payment").id,
        sealed(because=structs.replace(ORIGIN, id="another")).id,
    }
    assert len(ids) == 5


@given(st.uuids(), st.integers(0, 3))
def test_the_trace_id_is_the_order(order: uuid.UUID, index: int) -> None:
    """The traceparent has the format that W3C prescribes, and an order's trace can be looked up by its id."""
    message = InventoryReserved(order_id=str(order), item="laptop", quantity=1)
    record = seal(message, origin(str(order), 0), source="/a/b", topic="t", index=index, now=NOW)
    version, trace_id, parent_id, flags = open_envelope(delivered(record)).traceparent.split("-")
    assert (version, flags) == ("00", "01")
    assert trace_id == order.hex or order.int == 0
    assert re.fullmatch("[0-9a-f]{16}", parent_id)
    assert set(parent_id) != {"0"}
    assert record.id.endswith(parent_id)


@pytest.mark.parametrize("foreign", ["order-1", "x" * 32, "0" * 32, "AB" * 16])
def test_an_order_id_that_is_no_trace_id_has_one_derived(foreign: str) -> None:
    """Whatever the order id is like, the trace id is 32 lower-case hexadecimal digits, not all zero."""
    trace_id = origin(foreign, 0).trace_id
    assert re.fullmatch("(?!0{32})[0-9a-f]{32}", trace_id)
    assert trace_id != foreign


def test_the_trace_goes_on_with_what_is_caused() -> None:
    """A consumed message passes on its trace, its correlation and its partition, and is itself the cause."""
    envelope = open_envelope(with_headers(traceparent=b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"))
    assert cause(envelope, 5) == Cause(envelope.id, ID, "ab" * 16, 5)


@pytest.mark.parametrize("broken", [b"", b"junk", b"x" * 55, b"00-" + b"0" * 32 + b"-" + b"cd" * 8 + b"-01"])
def test_a_broken_trace_is_begun_anew(broken: bytes) -> None:
    """A traceparent that can't be read is replaced by the one that the order id gives."""
    envelope = open_envelope(with_headers(traceparent=broken))
    assert cause(envelope, 5).trace_id == ID.replace("-", "")


def test_times_are_in_utc_with_microseconds() -> None:
    """A time is written as RFC 3339 has it, with all six digits even where they are zero."""
    assert timestamp(NOW) == "2026-01-02T03:04:05.678901Z"
    assert timestamp(NOW.replace(microsecond=0)) == "2026-01-02T03:04:05.000000Z"
