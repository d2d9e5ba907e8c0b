"""From records to a trace: causal order, hops, duplicates, sizes, strangers, relative times."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from common.dead_letters import Failure, dead_letter
from common.envelope import Cause, cause, open_envelope, origin, seal, timestamp
from common.messages import (
    MESSAGES,
    InventoryReleased,
    InventoryReleaseFailed,
    InventoryReserved,
    Message,
    OrderAborted,
    OrderCreated,
    OrderFailed,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    PaymentRefundFailed,
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
    seen = trace_of(records, frozenset({FIRST, SECOND}), PREFIX)
    assert (seen.strays, seen.unknown, seen.dead_letters) == ((), (), ())
    return seen.trace


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


def test_a_record_that_is_told_again_has_the_next_attempt() -> None:
    """It has its old id, so it is a duplicate; its attempt says that it was asked for once more."""
    first = record(created(FIRST), origin(FIRST, 0))
    again = record(created(FIRST), structs.replace(origin(FIRST, 0), attempt=2), offset=1, after_ms=900)
    trace = traced(again, first)
    assert [(row.attempt, row.duplicate, row.at_ms) for row in trace] == [(1, False, 0), (2, True, 900)]
    assert len({row.id for row in trace}) == 1


def test_an_order_that_is_given_up_was_placed_before() -> None:
    """What a deadline tells has the order as its cause, too, and doesn't set the clock back to zero."""
    aborted = record(
        OrderAborted(order_id=FIRST, reason=Reason.TIMED_OUT),
        structs.replace(origin(FIRST, 2), attempt=4),
        offset=1,
        after_ms=7000,
    )
    trace = traced(aborted, *story()[:3])
    assert types(trace) == [*STORY_TYPES[:3], "OrderAborted"]
    assert trace[-1].at_ms == 7000


def test_when_an_order_was_placed_may_be_known_better() -> None:
    """If its first record was lost, the second one doesn't make it a later order."""
    again = record(created(FIRST), structs.replace(origin(FIRST, 0), attempt=2), after_ms=900)
    seen = trace_of([again], frozenset({FIRST}), PREFIX, {FIRST: NOW})
    assert seen.trace[0].at_ms == 900


def test_a_record_that_cannot_be_read_is_known_by_its_headers() -> None:
    """It is one of the order's, marked, without a body, and it is the cause of what was told in its place."""
    first, reserved, *_ = story()
    trace = traced(replace(first, value=b"\xff"), reserved)
    assert [(row.type, row.poisoned, row.cause) for row in trace] == [
        ("OrderCreated", True, None),
        ("InventoryReserved", False, "OrderCreated"),
    ]
    assert trace[0].body == {}


def test_records_of_unknown_types_are_told_from_strangers() -> None:
    """One that is about an order of the scenario is no stranger, though nobody knows what it says."""
    first = record(created(FIRST), origin(FIRST, 0))
    headers = tuple((name, b"Odd" if name == "ce_type" else value) for name, value in first.headers)
    seen = trace_of([replace(first, headers=headers)], frozenset({FIRST}), PREFIX)
    assert seen == ((), (), (), ("Odd at orders.events 0@0",))


def test_a_time_that_is_none_makes_a_stranger() -> None:
    """No foreign record can stop the lab."""
    first = record(created(FIRST), origin(FIRST, 0))
    headers = tuple((name, b"noon" if name == "ce_time" else value) for name, value in first.headers)
    assert len(trace_of([replace(first, headers=headers)], frozenset({FIRST}), PREFIX).strays) == 1


def given_up(consumed: Delivered, *, offset: int = 0, after_ms: float = 0) -> Delivered:
    """The dead letter of a record, as the observer reads it."""
    failure = Failure(
        reason="failed",
        error=ValueError("no"),
        service="choreographed/payment",
        tries=5,
        at=timestamp(NOW + timedelta(milliseconds=after_ms)),
    )
    return delivered(dead_letter(consumed, f"{consumed.topic}.dlq", failure), offset)


def test_dead_letters_are_no_part_of_the_trace() -> None:
    """They are told apart by their topic, and say who gave what up, when and why."""
    records = story()
    letter = given_up(records[1], after_ms=70)
    seen = trace_of([*records, letter], frozenset({FIRST}), PREFIX)
    assert types(seen.trace) == STORY_TYPES
    assert seen.strays == ()
    (found,) = seen.dead_letters
    assert (found.topic, found.type, found.order_id) == ("inventory.events.dlq", "InventoryReserved", FIRST)
    assert (found.id, found.at_ms) == (open_envelope(records[1]).id, 70)
    assert (found.service, found.reason, found.tries) == ("choreographed/payment", "failed", 5)
    assert found.error == "ValueError: no"


def test_a_dead_letter_that_was_delivered_twice_is_one() -> None:
    """The same record, given up by the same service."""
    record_ = story()[1]
    letters = [given_up(record_), given_up(record_, offset=1), given_up(replace(record_, offset=8), offset=2)]
    seen = trace_of([record_, *letters], frozenset({FIRST}), PREFIX)
    assert [letter.offset for letter in seen.dead_letters] == [0, 2]


def test_a_dead_letter_of_another_order_is_a_stray() -> None:
    """So is one without an order, and one that says nothing of itself doesn't stop the lab."""
    bare = Delivered(PREFIX + "orders.events.dlq", 0, 0, FIRST.encode(), None, ())
    seen = trace_of([given_up(story(SECOND)[0]), replace(bare, key=None), bare], frozenset({FIRST}), PREFIX)
    assert len(seen.strays) == 2
    (found,) = seen.dead_letters
    assert (found.at_ms, found.type, found.step, found.tries) == (0, "", None, 0)


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
    seen = trace_of([stranger, plain, empty, odd, *story()], frozenset({FIRST}), PREFIX)
    assert len(seen.strays) == 4
    assert set(seen.strays) == {
        "OrderCreated at orders.events 0@0",
        "NoSuchType at orders.events 0@0",
        "a record without a type at orders.events 0@5",
    }
    assert types(seen.trace) == STORY_TYPES


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
    assert trace_of([], frozenset({FIRST}), PREFIX) == ((), (), (), ())


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
        (OrderAborted, Nature.FAILURE),
        (PaymentRefunded, Nature.COMPENSATION),
        (InventoryReleaseFailed, Nature.FAILURE),
        (PaymentRefundFailed, Nature.FAILURE),
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


def test_a_service_keeps_its_order_though_its_clock_was_set_back() -> None:
    """Its history has a sequence of its own; the times are only shown."""
    history = [
        Change(FIRST, FIRST, "NONE", "PENDING", at("05.000000")),
        Change(FIRST, "b", "PENDING", "COMPLETED", at("04.000000")),
    ]
    changes = relative(changes_of("order", history, frozenset({FIRST})))
    assert [(one.to_status, one.at_ms) for one in changes] == [("PENDING", 0.0), ("COMPLETED", -1000.0)]


def test_times_count_from_the_placing_though_another_clock_is_behind() -> None:
    """The order begins when the Order service says so."""
    orders = frozenset({FIRST})
    early = changes_of("inventory", [Change(FIRST, "a", "NONE", "RESERVED", at("03.000000"))], orders)
    placed = changes_of("order", [Change(FIRST, FIRST, "NONE", "PENDING", at("05.000000"))], orders)
    assert [one.at_ms for one in relative([*placed, *early])] == [-2000.0, 0.0]
