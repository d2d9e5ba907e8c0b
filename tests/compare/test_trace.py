"""From records to a trace: causal order, hops, duplicates, sizes, strangers, relative times."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.envelope import Cause, cause, open_envelope, origin, seal
from common.messages import (
    MESSAGES,
    InventoryReleased,
    InventoryReserved,
    Message,
    OrderCreated,
    OrderFailed,
    PaymentDeclined,
    PaymentProcessed,
    Reason,
    ReleaseInventory,
    ReserveInventory,
    SagaStarted,
)
from common.store.journal import Change
from compare.recording import Kind, Nature, TraceRecord
from compare.trace import changes_of, nature_of, relative, trace_of
from tests.pump import NOW, Delivered, delivered, order_id

PREFIX: Final = "run-7."
FIRST, SECOND = order_id(1), order_id(2)


def created(order: str) -> OrderCreated:
    """The first event of an order."""
    return OrderCreated(order_id=order, customer_id="alice", item="laptop", quantity=1, price_cents=600_00)


def record(
    message: Message,
    because: Cause,
    *,
    topic: str = "orders.events",
    offset: int = 0,
    after_ms: float = 0,
    service: str = "order",
) -> Delivered:
    """A record as the observer reads it, decided `after_ms` milliseconds after `NOW`."""
    sealed = seal(
        message,
        because,
        source=f"/choreographed/{service}",
        topic=PREFIX + topic,
        index=0,
        now=NOW + timedelta(milliseconds=after_ms),
    )
    return delivered(sealed, offset)


def because_of(consumed: Delivered) -> Cause:
    """The record as the cause of others."""
    return cause(open_envelope(consumed), consumed.partition)


def story(order: str = FIRST, *, start_ms: float = 0) -> list[Delivered]:
    """An order whose payment is declined, choreographed, in causal order."""
    first = record(created(order), origin(order, 2), after_ms=start_ms)
    reserved = record(
        InventoryReserved(order_id=order, item="laptop", quantity=1),
        because_of(first),
        topic="inventory.events",
        service="inventory",
        after_ms=start_ms + 1.5,
    )
    declined = record(
        PaymentDeclined(order_id=order, reason=Reason.PAYMENT_DECLINED),
        because_of(reserved),
        topic="payments.events",
        service="payment",
        after_ms=start_ms + 2.25,
    )
    released = record(
        InventoryReleased(order_id=order, reason=Reason.PAYMENT_DECLINED),
        because_of(declined),
        topic="inventory.events",
        service="inventory",
        offset=1,
        after_ms=start_ms + 4,
    )
    failed = record(
        OrderFailed(order_id=order, reason=Reason.PAYMENT_DECLINED),
        because_of(released),
        offset=1,
        after_ms=start_ms + 5,
    )
    return [first, reserved, declined, released, failed]


STORY_TYPES: Final = [
    "OrderCreated",
    "InventoryReserved",
    "PaymentDeclined",
    "InventoryReleased",
    "OrderFailed",
]


def traced(*records: Delivered) -> tuple[TraceRecord, ...]:
    """The trace of both orders, of which no record is a stranger."""
    trace, strangers = trace_of(records, frozenset({FIRST, SECOND}), PREFIX)
    assert strangers == 0
    return trace


def types(trace: tuple[TraceRecord, ...]) -> list[str]:
    """The types of the records, in order."""
    return [row.type for row in trace]


@given(st.permutations(story()))
def test_records_come_in_causal_order(records: list[Delivered]) -> None:
    """In whatever order the observer read them, nothing comes before its cause."""
    trace = traced(*records)
    assert types(trace) == STORY_TYPES
    assert [row.hop for row in trace] == [1, 2, 3, 4, 5]
    assert [row.cause for row in trace] == [None, *STORY_TYPES[:-1]]


def test_records_of_one_moment_are_ordered_by_their_causes() -> None:
    """A clock that doesn't tick between two decisions does not put the effect first."""
    first = record(created(FIRST), origin(FIRST, 0), topic="z")
    second = record(
        InventoryReserved(order_id=FIRST, item="laptop", quantity=1), because_of(first), topic="a"
    )
    assert types(traced(second, first)) == ["OrderCreated", "InventoryReserved"]


def test_times_count_from_the_start_of_the_order() -> None:
    """Each order has a zero of its own: the decision that it began with."""
    trace = traced(*story(FIRST, start_ms=100), *story(SECOND, start_ms=900))
    for order in (FIRST, SECOND):
        assert [row.at_ms for row in trace if row.order_id == order] == [0, 1.5, 2.25, 4, 5]


def test_a_record_is_shown_as_it_was_on_the_broker() -> None:
    """Its topic has lost the run's prefix and its body what is absent; all else is as it was."""
    records = story()
    row = traced(*records)[3]
    assert (row.topic, row.partition, row.offset) == ("inventory.events", 2, 1)
    assert row.producer == "inventory"
    assert row.id == open_envelope(records[3]).id
    assert row.causation_id == open_envelope(records[2]).id
    assert row.body == {"order_id": FIRST, "reason": "payment_declined"}


def test_sizes_count_key_value_and_headers() -> None:
    """The size is that of all bytes that the producer chose, names of headers included."""
    only = record(created(FIRST), origin(FIRST, 0))
    headers = sum(len(name) + len(value) for name, value in only.headers)
    assert only.key is not None
    assert only.value is not None
    assert traced(only)[0].size == len(only.key) + len(only.value) + headers


def test_a_repeated_record_is_a_duplicate_of_the_first() -> None:
    """Of the records with one id, the first on its partition is the original, whichever was read first."""
    first = record(created(FIRST), origin(FIRST, 0))
    trace = traced(replace(first, offset=2), first, replace(first, offset=1))
    assert [(row.offset, row.duplicate) for row in trace] == [(0, False), (1, True), (2, True)]
    assert [row.hop for row in trace] == [1, 1, 1]


def test_strangers_are_counted_and_left_out() -> None:
    """Records of other orders, and records that are no messages of the lab, are not part of the trace."""
    stranger = record(created(order_id(9)), origin(order_id(9), 0))
    plain = Delivered(PREFIX + "orders.events", 0, 5, b"key", b"value", ())
    empty = replace(plain, key=None, value=None)
    odd = replace(
        stranger,
        headers=tuple(
            (name, b"NoSuchType" if name == "ce_type" else value) for name, value in stranger.headers
        ),
    )
    trace, strangers = trace_of([stranger, plain, empty, odd, *story()], frozenset({FIRST}), PREFIX)
    assert strangers == 4
    assert types(trace) == STORY_TYPES


def test_a_cause_that_nobody_saw_is_none() -> None:
    """A record whose cause is not in the trace has no cause to show, and starts a chain of its own."""
    _, reserved, *_ = story()
    (row,) = traced(reserved)
    assert row.cause is None
    assert row.hop == 1
    assert row.at_ms == 0


def test_a_cycle_of_causes_ends() -> None:
    """Records that claim to have caused each other don't hang the trace."""
    first, second = story()[:2]
    ids = {"first": open_envelope(first).id, "second": open_envelope(second).id}
    looped = replace(
        first,
        headers=tuple(
            (name, ids["second"].encode() if name == "ce_causationid" else value)
            for name, value in first.headers
        ),
    )
    assert {row.hop for row in traced(looped, second)} == {2}


def test_no_records_make_an_empty_trace() -> None:
    """Nothing in, nothing out."""
    assert trace_of([], frozenset({FIRST}), PREFIX) == ((), 0)


@pytest.mark.parametrize(
    ("message", "nature"),
    [
        (SagaStarted, Nature.COMMAND),
        (ReserveInventory, Nature.COMMAND),
        (ReleaseInventory, Nature.COMPENSATION),
        (InventoryReleased, Nature.COMPENSATION),
        (InventoryReserved, Nature.EVENT),
        (PaymentProcessed, Nature.EVENT),
        (PaymentDeclined, Nature.FAILURE),
        (OrderFailed, Nature.FAILURE),
    ],
)
def test_natures(message: type[Message], nature: Nature) -> None:
    """A compensation is one whether it is commanded or told; a failure is told."""
    assert nature_of(message) is nature


def test_every_message_has_a_nature_and_a_kind() -> None:
    """Commands are commands or compensations, never plain events."""
    natures = {name: nature_of(message) for name, message in MESSAGES.items()}
    assert set(natures.values()) == set(Nature)
    commands = record(
        ReserveInventory(order_id=FIRST, item="laptop", quantity=1), origin(FIRST, 0), topic="saga.commands"
    )
    assert traced(commands)[0].kind is Kind.COMMAND


def at(second: str) -> str:
    """A time as the history has it."""
    return f"2026-01-02T03:04:{second}Z"


def test_changes_of_other_orders_are_left_out() -> None:
    """A history holds the warm-up order too; only the scenario's orders are of interest."""
    history = [
        Change(FIRST, "cause-1", "NONE", "RESERVED", at("05.000000")),
        Change(order_id(9), "cause-2", "NONE", "RESERVED", at("06.000000")),
    ]
    (change,) = changes_of("inventory", history, frozenset({FIRST}))
    assert (change.service, change.order_id, change.cause_id) == ("inventory", FIRST, "cause-1")
    assert (change.from_status, change.to_status) == ("NONE", "RESERVED")


def test_times_of_changes_count_from_each_orders_first_change() -> None:
    """Changes are merged over services by time, and every order begins at zero."""
    orders = frozenset({FIRST, SECOND})
    late = changes_of("payment", [Change(FIRST, "b", "NONE", "CHARGED", at("05.250000"))], orders)
    early = changes_of(
        "order",
        [
            Change(FIRST, FIRST, "NONE", "PENDING", at("05.000000")),
            Change(SECOND, SECOND, "NONE", "PENDING", at("07.000000")),
        ],
        orders,
    )
    assert [(one.order_id, one.to_status, one.at_ms) for one in relative([*late, *early])] == [
        (FIRST, "PENDING", 0.0),
        (FIRST, "CHARGED", 250.0),
        (SECOND, "PENDING", 0.0),
    ]
