"""What can't be processed goes to the dead letters, whole, and its saga ends all the same."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import choreographed
import orchestrated
from common.dead_letters import Failure, dead_letter, original, read_dead_letter
from common.errors import PermanentError
from common.messages import (
    CancelPayment,
    CancelSaga,
    Charge,
    InventoryRejected,
    InventoryReleased,
    InventoryReserved,
    OrderCancelRequested,
    PaymentDeclined,
    PaymentProcessed,
    ProcessPayment,
    Reason,
    RefundPayment,
    ReleaseInventory,
    ReserveInventory,
)
from common.store.journal import add_to_outbox, unsent
from common.wiring import Mode
from tests.pump import (
    NOW,
    PARTITIONS,
    Delivered,
    Pump,
    delivered,
    fill_stock,
    open_core,
    order_id,
    place_order,
    rows_of,
)
from tests.unit.records import (
    INVENTORY,
    MODES,
    PAYMENT,
    Failing,
    check_books,
    command,
    counters,
    counts,
    dead_letters,
    end_of,
    free_laptops,
    letters,
    newer,
    release,
    reopened,
    reserve,
    told,
    with_headers,
    woken,
)

FAILURE: Final = Failure("failed", ValueError("broken"), "orchestrated/payment", 3, NOW.isoformat())
foreign: Final = st.builds(
    Delivered,
    topic=st.just("saga.commands"),
    partition=st.integers(0, 2),
    offset=st.integers(0, 10**9),
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=50),
    headers=st.lists(
        st.tuples(
            st.text(max_size=10).filter(lambda name: not name.startswith("dlq_")), st.binary(max_size=20)
        )
    ).map(tuple),
)
"""Any record that Kafka permits: bytes that are no text, no key, no body, a header twice."""


@given(foreign)
def test_a_dead_letter_is_the_record_as_it_was(record: Delivered) -> None:
    """Whatever the bytes, the letter has them all, and `original` gives them back on their topic."""
    letter = dead_letter(record, "saga.commands.dlq", FAILURE)
    assert (letter.topic, letter.partition) == ("saga.commands.dlq", record.partition)
    again = original(delivered(letter), "saga.commands")
    assert (again.topic, again.partition) == (record.topic, record.partition)
    assert (again.key, again.value, again.headers) == (record.key, record.value, record.headers)


@given(foreign)
def test_a_dead_letter_says_why_and_where(record: Delivered) -> None:
    """Reason, error, stack, service, tries, time and origin are read back from the letter."""
    read = read_dead_letter(delivered(dead_letter(record, "saga.commands.dlq", FAILURE)))
    assert (read.reason, read.error, read.service) == ("failed", "ValueError: broken", "orchestrated/payment")
    assert (read.tries, read.at) == ("3", NOW.isoformat())
    assert read.origin == f"saga.commands[{record.partition}]@{record.offset}"
    assert read.stack == "ValueError: broken\n"


def test_a_dead_letter_outlives_a_crash_before_it_is_published(tmp_path: Path) -> None:
    """In the outbox, too, a letter keeps bytes that are no text, a missing key and a missing body."""
    core = open_core(INVENTORY, tmp_path)
    record = Delivered("saga.commands", 1, 7, None, None, (("ce_id", b"\xff\x00"), ("ce_id", b"")))
    [letter] = core.process([record], NOW)
    again = reopened(core, tmp_path)
    assert again.unsent([1]) == [letter]
    assert original(delivered(letter), record.topic).headers == record.headers
    assert (letter.key, letter.value) == (None, None)
    again.database.close()


@given(record=foreign)
def test_the_outbox_keeps_any_bytes(record: Delivered, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A record comes out of the outbox as it went in, whatever it is made of."""
    core = open_core(INVENTORY, tmp_path_factory.mktemp("outbox"))
    letter = dead_letter(record, "saga.commands.dlq", FAILURE)
    with core.database.write() as transaction:
        add_to_outbox(transaction, [letter])
        assert unsent(transaction, range(PARTITIONS), 0, 1) == [letter]
    core.database.close()


def test_a_long_error_is_cut_and_its_innermost_calls_are_kept() -> None:
    """What a dead letter says of its failure fits into a record, and shows where it happened."""

    def fail(depth: int) -> None:
        if depth:
            fail(depth - 1)
        raise ValueError("x" * 10_000)

    with pytest.raises(ValueError, match="xxx") as caught:
        fail(0)
    letter = dead_letter(reserve(), "a.dlq", replace(FAILURE, error=caught.value))
    read = read_dead_letter(delivered(letter))
    assert (len(read.error), len(read.stack)) == (4_000, 4_000)


def test_a_record_that_is_put_back_has_its_own_id_again() -> None:
    """A letter is known by its origin and the service that gave up, and what is made of it by the message."""
    letter = dead_letter(reserve(), "saga.commands.dlq", FAILURE)
    assert letter.id == "saga.commands[0]@0/orchestrated/payment"
    again = original(delivered(letter), "saga.commands")
    assert again.id == dict(reserve().headers)["ce_id"].decode()


def test_the_stack_of_a_dead_letter_is_as_python_writes_it() -> None:
    """All lines are there, one below the other, with nothing between them."""
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    letter = dead_letter(reserve(), "a.dlq", replace(FAILURE, error=caught.value))
    stack = read_dead_letter(delivered(letter)).stack
    assert stack.startswith('Traceback (most recent call last):\n  File "')
    assert stack.endswith("\nValueError: invalid literal for int() with base 10: 'x'\n")


@pytest.mark.parametrize(
    ("broken", "refused"),
    [(replace(reserve(3), value=b"{"), 1), (replace(reserve(3), headers=()), 0)],
    ids=["body", "headers"],
)
def test_an_unreadable_record_does_not_hold_up_the_others(
    broken: Delivered, refused: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is given up at once, logged with its place, and its order is refused where that can be told."""
    core = open_core(INVENTORY, tmp_path)
    with core.database.write() as transaction:
        fill_stock(transaction, {"laptop": 10})
    outgoing = core.process([reserve(1), broken, reserve(2)], NOW)
    refusal = InventoryRejected(order_id=order_id(3), reason=Reason.DEAD_LETTER)
    answers = [InventoryReserved(order_id=order_id(n), item="laptop", quantity=2) for n in (1, 2)]
    assert told(outgoing) == [answers[0], *[refusal] * refused, answers[1]]
    [letter] = letters(outgoing)
    assert (letter.reason, letter.origin) == ("unreadable", "saga.commands[0]@0")
    assert letter.service == "orchestrated/inventory"
    assert core.counts == {"consumed": 3, "dead_letter": 1}
    assert "orchestrated/inventory can't read a record: saga.commands[0]@0" in caplog.text
    core.database.close()


def test_an_unreadable_record_that_comes_again_is_no_second_dead_letter(tmp_path: Path) -> None:
    """It is known by its place, as what it says of itself can't be trusted."""
    core = open_core(INVENTORY, tmp_path)
    broken = replace(reserve(1), value=b"{")
    elsewhere = replace(broken, offset=1)
    assert len(letters(core.process([broken, broken], NOW))) == 1
    again = reopened(core, tmp_path)
    assert again.process([broken], NOW) == []
    assert len(letters(again.process([broken, elsewhere], NOW))) == 1
    assert counters(again) == {"dead_letter": 2, "duplicate": 3}
    again.database.close()


def test_an_event_that_a_reaction_refuses_is_unreadable(tmp_path: Path) -> None:
    """In choreography, goods without a charge can't be paid for: the payment is declined in their place."""
    payment = open_core(choreographed.MODE.service("payment"), tmp_path)
    reserved = InventoryReserved(order_id=order_id(1), item="laptop", quantity=2)
    outgoing = payment.process([command(reserved)], NOW)
    assert told(outgoing) == [PaymentDeclined(order_id=order_id(1), reason=Reason.DEAD_LETTER)]
    [letter] = letters(outgoing)
    assert f"{order_id(1)} does not say what to charge" in letter.error
    assert [row[:2] for row in rows_of(payment)["payments"]] == [(order_id(1), "DECLINED")]
    payment.database.close()


def test_an_event_that_breaks_a_reaction_does_not_stop_the_service(tmp_path: Path) -> None:
    """An error in a translation costs its own order only; here, an event that lacks what a payment needs."""
    payment = open_core(choreographed.MODE.service("payment"), tmp_path)
    charge = Charge(customer_id="alice", amount_cents=100)
    reserved = InventoryReserved(order_id=order_id(1), item="laptop", quantity=2)
    sound = InventoryReserved(order_id=order_id(2), item="laptop", quantity=2, charge=charge)
    outgoing = payment.process([command(reserved), command(sound)], NOW)
    assert told(outgoing) == [
        PaymentDeclined(order_id=order_id(1), reason=Reason.DEAD_LETTER),
        PaymentProcessed(order_id=order_id(2), amount_cents=100),
    ]
    assert len(letters(outgoing)) == 1
    payment.database.close()


@MODES
def test_a_total_that_is_out_of_bounds_ends_its_order(mode: Mode, tmp_path: Path) -> None:
    """Whoever reads a message that nobody should have told gives it up; nothing stays held, or hangs."""
    pump = Pump(mode, tmp_path, {"laptop": 10**15, "phone": 5})
    pump.request([place_order(1, quantity=10**9, price=10**9), place_order(2, item="phone")])
    pump.run()
    assert end_of(pump.state(), 1) == ("FAILED", "dead_letter", "RELEASED", "DECLINED")
    assert end_of(pump.state(), 2) == ("COMPLETED", None, "RESERVED", "CHARGED")
    assert [letter.order_id for letter in dead_letters(pump)] == [order_id(1)]
    check_books(pump, {"laptop": 10**15, "phone": 5}, [1, 2])
    pump.close()


@pytest.mark.parametrize("subject", [b"", b"line\nbreak", b"x" * 201])
def test_a_record_about_no_possible_order_is_refused_for_none(subject: bytes, tmp_path: Path) -> None:
    """Where not even the order can be told, there is nobody to tell of the failure."""
    core = open_core(INVENTORY, tmp_path)
    outgoing = core.process([replace(with_headers(reserve(), ce_subject=subject), value=b"?")], NOW)
    assert (len(outgoing), len(letters(outgoing))) == (1, 1)
    assert rows_of(core)["reservations"] == []
    core.database.close()


def test_a_newer_schema_is_a_dead_letter_of_its_own_kind(tmp_path: Path) -> None:
    """A record of a newer major version is not guessed at, though its body should fit."""
    core = open_core(PAYMENT, tmp_path)
    pay = command(ProcessPayment(order_id=order_id(1), customer_id="alice", amount_cents=1))
    outgoing = core.process([newer(pay)], NOW)
    assert told(outgoing) == [PaymentDeclined(order_id=order_id(1), reason=Reason.DEAD_LETTER)]
    [letter] = letters(outgoing)
    assert (letter.reason, letter.tries) == ("newer_schema", "1")
    assert "schema version 2, but only 1 is known here" in letter.error
    core.database.close()


def test_a_newer_field_is_tolerated(tmp_path: Path) -> None:
    """A record with a field that isn't known is processed as if it weren't there."""
    core = open_core(PAYMENT, tmp_path)
    pay = command(ProcessPayment(order_id=order_id(1), customer_id="alice", amount_cents=1))
    body = json.loads(pay.value or b"") | {"currency": "EUR"}
    outgoing = core.process([replace(pay, value=json.dumps(body).encode())], NOW)
    assert told(outgoing) == [PaymentProcessed(order_id=order_id(1), amount_cents=1)]
    core.database.close()


def test_a_type_that_nobody_knows_is_skipped_and_counted(tmp_path: Path) -> None:
    """It is told apart from what is merely another service's business, and costs nothing else."""
    core = open_core(PAYMENT, tmp_path)
    foreign_type = with_headers(reserve(), ce_type=b"ShipGoods")
    assert core.process([foreign_type, reserve()], NOW) == []
    assert core.counts == {"consumed": 2, "unknown": 1, "skipped": 1}
    assert counters(core) == {"unknown": 1}
    assert counts(core) == (0, 0, 0)
    core.database.close()


def test_an_undo_that_cannot_be_read_is_not_reported_as_failed(tmp_path: Path) -> None:
    """It is asked for again by a deadline, in a record that may be sound, so nothing is decided for it."""
    core = open_core(INVENTORY, tmp_path)
    with core.database.write() as transaction:
        fill_stock(transaction, {"laptop": 10})
    core.process([reserve()], NOW)
    outgoing = core.process([replace(release(), value=b"{")], NOW)
    assert (told(outgoing), len(letters(outgoing))) == ([], 1)
    assert told(core.process([release(attempt=2)], NOW)) == [
        InventoryReleased(order_id=order_id(1), reason=Reason.PAYMENT_DECLINED, item="laptop", quantity=2)
    ]
    core.database.close()


# Replay


def test_a_replayed_dead_letter_has_its_effect_once(tmp_path: Path) -> None:
    """With its cause mended, the record that was given up is processed under its old id, and only once."""
    probe = Failing(ReleaseInventory, error=PermanentError)
    core = open_core(INVENTORY, tmp_path, probe=probe)
    with core.database.write() as transaction:
        fill_stock(transaction, {"laptop": 10})
    [letter] = [one for one in core.process([reserve(), release()], NOW) if one.topic.endswith(".dlq")]
    assert free_laptops(core) == 8
    probe.times = 0
    again = delivered(original(delivered(letter), "saga.commands"), offset=9)
    assert dict(again.headers)["ce_id"] == dict(release().headers)["ce_id"]
    assert len(told(core.process([again, again], NOW))) == 1
    assert core.process([replace(again, offset=10)], NOW) == []
    assert free_laptops(core) == 10
    core.database.close()


def test_a_replayed_step_that_was_refused_stays_refused(tmp_path: Path) -> None:
    """Its saga has ended since, so the tombstone answers as it did before, under the same id."""
    probe = Failing(ReserveInventory, error=PermanentError)
    core = open_core(INVENTORY, tmp_path, probe=probe)
    with core.database.write() as transaction:
        fill_stock(transaction, {"laptop": 10})
    refusal, letter = sorted(core.process([reserve()], NOW), key=lambda one: one.topic.endswith(".dlq"))
    probe.times = 0
    [answer] = core.process([delivered(original(delivered(letter), "saga.commands"), offset=9)], NOW)
    assert (answer.id, told([answer])) == (refusal.id, told([refusal]))
    assert free_laptops(core) == 10
    core.database.close()


def test_a_replayed_record_that_still_fails_is_a_dead_letter_again(tmp_path: Path) -> None:
    """A replay has all the tries of a new record."""
    core = open_core(INVENTORY, tmp_path, probe=Failing(ReserveInventory))
    core.process([reserve()], NOW)
    hour = timedelta(hours=1)
    for start in (NOW, NOW + hour):
        outgoing = [record for _, records in woken(core, start + hour) for record in records]
        [letter] = [record for record in outgoing if record.topic.endswith(".dlq")]
        assert read_dead_letter(delivered(letter)).tries == "5"
        core.process([delivered(original(delivered(letter), "saga.commands"), offset=9)], start + hour)
    core.database.close()


def test_a_cancel_that_cannot_be_read_is_only_a_wish(tmp_path: Path) -> None:
    """Nothing is decided in place of it: the order goes on as if nobody had asked."""
    for mode, kind in (
        (orchestrated.MODE, CancelSaga),
        (orchestrated.MODE, CancelPayment),
        (choreographed.MODE, OrderCancelRequested),
    ):
        for service in mode.services:
            reaction = service.reaction_to.get(kind.__name__)
            if reaction is not None:
                assert service.instead_of_unreadable(reaction.command, "order-1") is None
    core = open_core(PAYMENT, tmp_path)
    cancel = command(CancelPayment(order_id=order_id(1), reason=Reason.CANCELLED))
    outgoing = core.process([replace(cancel, value=b"")], NOW)
    assert (told(outgoing), len(letters(outgoing))) == ([], 1)
    assert rows_of(core) == {"payments": []}
    core.database.close()


def test_a_refund_that_is_a_dead_letter_can_be_replayed(tmp_path: Path) -> None:
    """The record keeps what it has to say; replayed, it gives the money back."""
    probe = Failing(RefundPayment, error=PermanentError)
    core = open_core(PAYMENT, tmp_path, probe=probe)
    pay = ProcessPayment(order_id=order_id(1), customer_id="alice", amount_cents=1)
    refund = RefundPayment(order_id=order_id(1), reason=Reason.TIMED_OUT)
    outgoing = core.process([command(pay), command(refund, index=1)], NOW)
    [letter] = [one for one in outgoing if one.topic.endswith(".dlq")]
    probe.times = 0
    core.process([delivered(original(delivered(letter), "saga.commands"), offset=5)], NOW)
    assert [row[1] for row in rows_of(core)["payments"]] == ["REFUNDED"]
    core.database.close()


def test_a_charge_travels_with_the_goods(tmp_path: Path) -> None:
    """With a charge, the same event that is refused without one is paid for."""
    payment = open_core(choreographed.MODE.service("payment"), tmp_path)
    charge = Charge(customer_id="alice", amount_cents=5)
    reserved = InventoryReserved(order_id=order_id(1), item="laptop", quantity=2, charge=charge)
    assert told(payment.process([command(reserved)], NOW)) == [
        PaymentProcessed(order_id=order_id(1), amount_cents=5)
    ]
    payment.database.close()


def test_what_is_missing_from_a_dead_letter_is_empty() -> None:
    """A record on a topic of dead letters that is none of the lab's can be shown all the same."""
    nothing: Any = None
    read = read_dead_letter(Delivered("a.dlq", 0, 0, None, None, (("ce_id", nothing), ("ce_type", b"\xff"))))
    assert (read.message_id, read.message_type, read.order_id) == ("", "\ufffd", "")
    assert (read.reason, read.error, read.stack, read.origin) == ("", "", "", "")


def test_what_is_too_large_for_a_broker_leaves_its_body_behind(tmp_path: Path) -> None:
    """With its marks a letter could be refused by the broker, and then nothing could get by it any more."""
    core = open_core(INVENTORY, tmp_path)
    value, header = replace(reserve(1), value=b"{" * 600_000), ("huge", b"x" * 600_000)
    headers = replace(reserve(2), offset=1, value=b"{", headers=(*reserve(2).headers, header))
    of_value, of_headers = letters(core.process([value, headers], NOW))
    assert (of_value.record.value, of_value.left_out) == (None, "a value of 600000 bytes")
    assert (of_headers.record.value, of_headers.left_out) == (b"{", "more headers than can be kept")
    assert of_value.message_type == "ReserveInventory"
    assert all(name.startswith("dlq_") for name, _ in of_headers.record.headers)
    core.database.close()
