"""Reading messages: what a body may hold, field by field, and how what it may not hold is refused."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import DecodeError, structs

from common.envelope import open_envelope, parse
from common.errors import UnreadableRecordError
from common.messages import (
    MESSAGES,
    CancelOrder,
    InventoryReleased,
    InventoryReserved,
    Message,
    OrderCreated,
    OrderFailed,
    PaymentRefunded,
    PlaceOrder,
    Reason,
    ReserveInventory,
    read,
    write,
)
from tests.pump import Delivered, order_id

LONGEST: Final = 200
MOST: Final = 10**15
SAMPLES: Final[dict[str, Any]] = {
    "order_id": order_id(1),
    "customer_id": "alice",
    "item": "laptop",
    "quantity": 2,
    "price_cents": 100_00,
    "amount_cents": 200_00,
    "reason": "cancelled",
    "charge": {"customer_id": "alice", "amount_cents": 200_00},
}
"""By field: what it may hold."""
KINDS: Final[tuple[type[Message], ...]] = (*MESSAGES.values(), PlaceOrder, CancelOrder)
"""All that is ever read, with those that come from outside."""
GIVEN_BACK: Final = {(InventoryReleased, "quantity"), (PaymentRefunded, "amount_cents")}
"""What may be none: nothing was held, or charged."""

Field = tuple[type[Message], tuple[str, ...]]
"""Of a type of message: the path to one of its fields."""


def sample(kind: type[Message]) -> dict[str, Any]:
    """What the body of such a message may be."""
    return {field.name: SAMPLES[field.name] for field in structs.fields(kind)}


def fields_like(value_type: type) -> list[Field]:
    """All fields that hold values of this type, those within a charge included."""
    found: list[Field] = []
    for kind in KINDS:
        for name, value in sample(kind).items():
            inner = value.items() if isinstance(value, dict) else ()
            found += [(kind, (name, within)) for within, one in inner if isinstance(one, value_type)]
            if isinstance(value, value_type) and name != "reason":
                found.append((kind, (name,)))
    return found


def named(value: object) -> str | None:
    """How a parameter is shown."""
    if isinstance(value, type):
        return value.__name__
    return ".".join(value) if isinstance(value, tuple) else None


def each(value_type: type) -> pytest.MarkDecorator:
    """For each field that holds values of this type."""
    return pytest.mark.parametrize(("kind", "path"), fields_like(value_type), ids=named)


def body_with(kind: type[Message], path: tuple[str, ...], value: object, *, escaped: bool = True) -> bytes:
    """The body of such a message with one field changed; `escaped` is how JSON has what isn't ASCII."""
    body = json.loads(json.dumps(sample(kind)))
    *outer, name = path
    part = body
    for one in outer:
        part = part[one]
    part[name] = value
    return json.dumps(body, ensure_ascii=escaped).encode()


def record_of(kind: type[Message], body: bytes | None) -> Delivered:
    """A record that promises such a message."""
    headers = (
        ("ce_id", b"1"),
        ("ce_type", kind.__name__.encode()),
        ("ce_source", b"/somewhere/else"),
        ("ce_subject", order_id(1).encode()),
        ("ce_time", b"2026-01-02T03:04:05.678901Z"),
        ("ce_correlationid", order_id(1).encode()),
        ("ce_causationid", order_id(1).encode()),
    )
    return Delivered("some.topic", 2, 7, order_id(1).encode(), body, headers)


def refused(kind: type[Message], body: bytes, why: str = "") -> bool:
    """See to it that a body is refused, by itself and in its record, whose place is then told."""
    with pytest.raises(DecodeError, match=why or None):
        read(body, kind)
    record = record_of(kind, body)
    with pytest.raises(UnreadableRecordError, match=rf"^some\.topic\[2\]@7: .*{why}"):
        parse(record, open_envelope(record), kind)
    return True


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_message_is_read_as_it_was_written(kind: type[Message]) -> None:
    """What has its default is left out, and comes back."""
    message = read(json.dumps(sample(kind)).encode(), kind)
    assert type(message) is kind
    assert json.loads(write(message)) == sample(kind)
    assert read(write(message), kind) == message
    record = record_of(kind, write(message))
    assert parse(record, open_envelope(record), kind) == message


def test_what_has_its_default_is_not_written() -> None:
    """An absent charge, and an item that never was held, cost no bytes."""
    reserve = ReserveInventory(order_id="1", item="laptop", quantity=2)
    assert json.loads(write(reserve)) == {"order_id": "1", "item": "laptop", "quantity": 2}
    released = InventoryReleased(order_id="1", reason=Reason.CANCELLED)
    assert json.loads(write(released)) == {"order_id": "1", "reason": "cancelled"}
    assert read(write(released), InventoryReleased) == released


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_field_that_is_missing_is_named(kind: type[Message]) -> None:
    """A body without one of the fields that it must have is refused."""
    must_have = [field.name for field in structs.fields(kind) if field.required]
    assert "order_id" in must_have
    for name in must_have:
        body = {field: value for field, value in sample(kind).items() if field != name}
        assert refused(kind, json.dumps(body).encode(), f"`{name}`")


@each(int)
def test_a_number_has_bounds(kind: type[Message], path: tuple[str, ...]) -> None:
    """Stock can't be made out of nothing, nor money, and what a database can't hold is refused."""
    least = 0 if (kind, *path) in GIVEN_BACK else 1
    for number in (least, MOST):
        assert path[-1].encode() in body_with(kind, path, number)
        message: Any = read(body_with(kind, path, number), kind)
        for name in path:
            message = getattr(message, name)
        assert message == number
    for number in (least - 1, -(10**15), MOST + 1, 2**63, 2**64, 10**30):
        assert refused(kind, body_with(kind, path, number), path[-1])


@each(int)
def test_a_number_is_whole_and_a_number(kind: type[Message], path: tuple[str, ...]) -> None:
    """Neither is text taken for a number, nor a truth, nor a fraction that happens to be whole."""
    others: list[Any] = ["2", 2.0, 2.5, 1e15, True, False, None, [2], {}, "", "two"]
    for value in others:
        assert refused(kind, body_with(kind, path, value), path[-1])


@each(str)
def test_a_text_has_bounds(kind: type[Message], path: tuple[str, ...]) -> None:
    """A text is there, and no longer than an index can hold, however its characters are written."""
    for escaped in (True, False):
        for character in ("x", "\u00e4", "\U0001f4bb"):
            assert refused(kind, body_with(kind, path, character * (LONGEST + 1), escaped=escaped), path[-1])
            read(body_with(kind, path, character * LONGEST, escaped=escaped), kind)
    assert refused(kind, body_with(kind, path, ""), path[-1])


@each(str)
def test_a_text_has_no_control_characters(kind: type[Message], path: tuple[str, ...]) -> None:
    """They could forge a log's lines or command a terminal, and some databases can't store them."""
    for character in map(chr, (*range(0x20), *range(0x7F, 0xA0))):
        for text in (character, f"x{character}", f"{character}x", f"x{character}ERROR a forged line"):
            assert refused(kind, body_with(kind, path, text))
            assert refused(kind, body_with(kind, path, text, escaped=False))


@each(str)
def test_a_text_is_a_text(kind: type[Message], path: tuple[str, ...]) -> None:
    """A number is not taken for the text that it would be written as; only what may be absent may be null."""
    others: list[Any] = [1, 1.5, True, ["x"], {"x": "y"}]
    for value in others:
        assert refused(kind, body_with(kind, path, value), path[-1])
    if (kind, *path) == (InventoryReleased, "item"):
        read(body_with(kind, path, None), kind)
    else:
        assert refused(kind, body_with(kind, path, None), path[-1])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=LONGEST + 2), st.booleans())
def test_the_texts_within_these_bounds_are_read_and_no_others(text: str, escaped: bool) -> None:  # noqa: FBT001 - what varies
    """Whatever else a text is made of, it comes out as it went in, in each field that holds one."""
    fine = 0 < len(text) <= LONGEST and all(unicodedata.category(one) != "Cc" for one in text)
    for kind, path in fields_like(str):
        body = body_with(kind, path, text, escaped=escaped)
        if fine:
            message: Any = read(body, kind)
            for name in path:
                message = getattr(message, name)
            assert message == text
        else:
            assert refused(kind, body)


@pytest.mark.parametrize(
    "text",
    ["Z\u00fcrich", "\u00a0", "\u200b\u0301", "\u2028", "\uff5e", "\U0001f4bb", "\\", '"', "\\n", "/", " "],
)
def test_any_other_text_is_fine(text: str) -> None:
    """A text needs no particular alphabet, and a backslash is no control character."""
    for escaped in (True, False):
        body = body_with(OrderCreated, ("customer_id",), text, escaped=escaped)
        assert read(body, OrderCreated).customer_id == text


@each(str)
def test_a_text_that_is_none_in_json_is_refused(kind: type[Message], path: tuple[str, ...]) -> None:
    """Half a surrogate pair, and a raw control character, are no text."""
    for bad in (
        rb"\ud800",
        rb"x\ud800",
        rb"\ud800x",
        rb"\udc00\ud800",
        rb"\x",
        b"\n",
        b"\t",
        b"\x00",
        b"\x1b",
    ):
        assert refused(kind, body_with(kind, path, "MARK").replace(b"MARK", bad))


@each(str)
def test_bytes_that_are_no_text_are_refused(kind: type[Message], path: tuple[str, ...]) -> None:
    """A text has to be UTF-8, and half a surrogate pair is none."""
    for bad in (b"\xff", b"x\xc3", b"\xc3x", b"x\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80"):
        assert refused(kind, body_with(kind, path, "MARK").replace(b"MARK", bad))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "reason" in {field.name for field in structs.fields(kind)}], ids=named
)
def test_a_reason_is_one_that_is_known(kind: type[Message]) -> None:
    """Each of the reasons is read as itself, and nothing else is one."""
    for reason in Reason:
        message: Any = read(body_with(kind, ("reason",), reason.value), kind)
        assert message.reason is reason
    for value in ("", "CANCELLED", "cancelled ", "no such reason", 1, None, True, ["cancelled"]):
        assert refused(kind, body_with(kind, ("reason",), value), "reason")


@pytest.mark.parametrize(
    "secret",
    ["mr-x@example.org", "a - at b@example.org", "a' - at `$.reason`@example.org", "a\nb@example.org"],
)
def test_an_error_does_not_quote_what_it_refuses(secret: str) -> None:
    """What stands in a wrong place may be a customer's, and must neither get into a log nor end its lines."""
    record = record_of(OrderFailed, body_with(OrderFailed, ("reason",), secret))
    with pytest.raises(UnreadableRecordError) as raised:
        parse(record, open_envelope(record), OrderFailed)
    assert "example.org" not in str(raised.value)
    assert str(raised.value).isprintable()
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("value", [1, "alice", [], {}, {"customer_id": "alice"}, {"amount_cents": 1}])
@pytest.mark.parametrize("kind", [ReserveInventory, InventoryReserved])
def test_a_charge_is_whole_or_absent(kind: type[Message], value: object) -> None:
    """A charge says who pays how much; none at all may be left out, or null."""
    assert refused(kind, body_with(kind, ("charge",), value))
    message: Any = read(body_with(kind, ("charge",), None), kind)
    assert message.charge is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"order_id": "x"}', "missing required field `customer_id`"),
        (b'{"order_id": "x", "customer_id": "y", "item": "z", "quantity": "2"}', "`int`.*`str`.*quantity"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"1", "Expected `object`, got `int`"),
        (b"{", "truncated"),
        (b"{}{}", "missing required field"),
        (b"\xff", "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b"", "truncated"),
        (b" ", "truncated"),
        (b'{"x": NaN}', "malformed"),
        (b"[" * 100_000, "Expected `object`"),
    ],
)
def test_a_body_that_does_not_fit_is_refused(body: bytes, problem: str) -> None:
    """The error says which field has which problem, and of a record, where it is."""
    assert refused(OrderCreated, body, problem)


def test_a_record_without_a_body_is_unreadable() -> None:
    """A record may have no value at all; that is as good as an empty one."""
    record = record_of(OrderCreated, None)
    with pytest.raises(UnreadableRecordError, match=r"^some\.topic\[2\]@7: .*truncated"):
        parse(record, open_envelope(record), OrderCreated)


def test_a_body_that_goes_too_deep_is_refused() -> None:
    """A field that nobody knows is skipped, but not at any price."""
    deep = b"[" * 100_000 + b"]" * 100_000
    body = json.dumps(sample(OrderCreated) | {"more": "MARK"}).encode().replace(b'"MARK"', deep)
    assert refused(OrderCreated, body)


def test_what_follows_a_body_is_refused() -> None:
    """A body is one message and no more."""
    assert refused(OrderCreated, write(read(json.dumps(sample(OrderCreated)).encode(), OrderCreated)) + b"{}")


@pytest.mark.parametrize("more", [True, None, "\n", "x" * 1_000, [1, {"a": "b"}], -1, 1e308])
@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_field_that_is_not_known_is_tolerated(kind: type[Message], more: object) -> None:
    """An older consumer reads what a newer producer tells, whatever that adds, and drops it."""
    plain = read(json.dumps(sample(kind)).encode(), kind)
    assert read(body_with(kind, ("gift_wrapping",), more), kind) == plain
    if "charge" in sample(kind):
        assert read(body_with(kind, ("charge", "currency"), more), kind) == plain


def test_a_message_cannot_be_changed() -> None:
    """What was read, or told, stays as it is; another one is made from it."""
    message: Any = OrderFailed(order_id="1", reason=Reason.CANCELLED)
    with pytest.raises(AttributeError):
        message.order_id = "2"
    assert structs.replace(message, order_id="2") != message


def test_the_key_is_the_order_id_of_the_body() -> None:
    """The body of a record may be sound, and yet belong to another order's key."""
    record = replace(record_of(OrderCreated, json.dumps(sample(OrderCreated)).encode()), key=b"another")
    with pytest.raises(UnreadableRecordError, match="the key is not the order id"):
        parse(record, open_envelope(record), OrderCreated)
