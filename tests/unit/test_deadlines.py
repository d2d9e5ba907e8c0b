"""What is waited for has a deadline: stored, fired once, asked for again, and in the end undone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import pytest
from msgspec import structs

import choreographed
import orchestrated
from common.core import Core
from common.envelope import Outgoing, open_envelope, origin, seal
from common.messages import (
    InventoryRejected,
    InventoryReleased,
    InventoryReserved,
    Message,
    OrderAborted,
    OrderCompensationFailed,
    OrderCreated,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    ProcessPayment,
    Reason,
    RefundPayment,
    ReleaseInventory,
    ReserveInventory,
    RetryCompensation,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
)
from common.recovery import Recovery
from common.store.runtime import DEADLINES
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
    check_books,
    command,
    counters,
    due,
    end_of,
    free_laptops,
    losing,
    on_topic,
    release,
    reopened,
    reserve,
    told,
    total,
    woken,
)

ORCHESTRATOR: Final = orchestrated.MODE.service("orchestrator")
RECOVERY: Final = Recovery()
DAY: Final = timedelta(days=1)
STOCK: Final = {"laptop": 10}
STARTED: Final = SagaStarted(
    order_id=order_id(1), customer_id="alice", item="laptop", quantity=2, price_cents=100_00
)
RESERVED: Final = InventoryReserved(order_id=order_id(1), item="laptop", quantity=2)
RESERVE: Final = ReserveInventory(order_id=order_id(1), item="laptop", quantity=2)
RELEASE: Final = ReleaseInventory(order_id=order_id(1), reason=Reason.TIMED_OUT)


def answer(question: Outgoing, message: Message) -> Delivered:
    """A service's answer to what the orchestrator has asked it."""
    envelope = open_envelope(delivered(question))
    because = structs.replace(origin(message.order_id, 0), id=envelope.id, attempt=envelope.attempt)
    return delivered(seal(message, because, source="/test", topic="saga.events", index=0, now=NOW))


def attempts(outgoing: Iterable[Outgoing]) -> list[tuple[str, int]]:
    """The types of what is told, and with which attempt."""
    opened = [open_envelope(delivered(record)) for record in outgoing]
    return [(envelope.type, envelope.attempt) for envelope in opened]


@pytest.fixture
def orchestrator(tmp_path: Path) -> Core:
    """The orchestrator, with one saga that has asked for its goods."""
    return open_core(ORCHESTRATOR, tmp_path)


def asked_of(orchestrator: Core) -> Outgoing:
    """Begin a saga; what it asks for first."""
    [asked] = orchestrator.process([command(STARTED)], NOW)
    return asked


def test_a_question_without_an_answer_is_asked_again_and_then_given_up(orchestrator: Core) -> None:
    """Each time it has the same id and a higher attempt, and after the last the step itself is undone."""
    asked = [asked_of(orchestrator)]
    times = []
    for now, outgoing in islice(woken(orchestrator, NOW + DAY), 3):
        times.append((now - NOW).total_seconds())
        asked += outgoing
    assert told(asked) == [RESERVE, RESERVE, RESERVE, RELEASE]
    assert attempts(asked) == [
        ("ReserveInventory", 1),
        ("ReserveInventory", 2),
        ("ReserveInventory", 3),
        ("ReleaseInventory", 4),
    ]
    assert len({record.id for record in asked[:3]}) == 1
    assert counters(orchestrator) == {"overdue": 2, "timed_out": 1}
    limit = RECOVERY.step()
    waits = [limit.delay(tries, order_id(1)) for tries in (1, 2, 3)]
    assert times == [sum(wait.total_seconds() for wait in waits[:n] if wait) for n in (1, 2, 3)]
    orchestrator.database.close()


def test_a_deadline_outlives_its_process_and_fires_once(orchestrator: Core, tmp_path: Path) -> None:
    """It is in the database, and what it has led to is so in the same transaction."""
    asked_of(orchestrator)
    when = due(orchestrator)
    assert when is not None
    core = reopened(orchestrator, tmp_path)
    assert core.wake(range(PARTITIONS), when - timedelta(microseconds=1)) == []
    [again] = core.wake(range(PARTITIONS), when)
    core = reopened(core, tmp_path)
    assert core.wake(range(PARTITIONS), when) == []
    assert core.unsent(range(PARTITIONS)) != []
    assert attempts([again]) == [("ReserveInventory", 2)]
    assert counters(core) == {"overdue": 1}
    core.database.close()


def test_a_deadline_is_fired_by_the_owner_of_its_partition(orchestrator: Core) -> None:
    """An instance leaves alone what belongs to another."""
    orchestrator.process([command(STARTED, partition=1)], NOW)
    when = due(orchestrator)
    assert when is not None
    assert orchestrator.wake([0, 2], when) == []
    [again] = orchestrator.wake([1], when)
    assert again.partition == 1
    orchestrator.database.close()


def test_an_answer_disarms_the_deadline_and_sets_the_next(orchestrator: Core) -> None:
    """Each step has a deadline of its own, counted from when the step before was answered."""
    asked = asked_of(orchestrator)
    later = NOW + timedelta(seconds=5)
    [pay] = orchestrator.process([answer(asked, RESERVED)], later)
    first = RECOVERY.step().delay(1, order_id(1))
    assert first is not None
    assert due(orchestrator) == later + first
    assert attempts(orchestrator.wake(range(PARTITIONS), later + first)) == [("ProcessPayment", 2)]
    orchestrator.process([answer(pay, PaymentProcessed(order_id=order_id(1), amount_cents=1))], later)
    assert due(orchestrator) is None
    assert list(woken(orchestrator, NOW + DAY)) == []
    orchestrator.database.close()


def test_a_late_message_does_not_put_a_deadline_off(orchestrator: Core) -> None:
    """Only progress sets a new deadline, or a saga could be kept waiting for ever."""
    asked_of(orchestrator)
    when = due(orchestrator)
    again = command(STARTED, attempt=2)
    assert orchestrator.process([again], NOW + timedelta(seconds=3)) == []
    assert due(orchestrator) == when
    assert orchestrator.counts["late"] == 1
    orchestrator.database.close()


def test_a_late_answer_to_an_earlier_attempt_counts_as_well(orchestrator: Core) -> None:
    """The answers to all attempts have one id; the first goes on with the saga, the others are late."""
    asked = asked_of(orchestrator)
    [again] = [
        record for _, outgoing in woken(orchestrator, NOW + timedelta(seconds=11)) for record in outgoing
    ]
    first, second = answer(asked, RESERVED), answer(again, RESERVED)
    assert dict(first.headers)["ce_id"] == dict(second.headers)["ce_id"]
    outgoing = orchestrator.process([first, second, first], NOW + timedelta(seconds=12))
    assert attempts(outgoing) == [("ProcessPayment", 1)]
    assert (orchestrator.counts["late"], orchestrator.counts["duplicate"]) == (1, 1)
    orchestrator.database.close()


def test_a_question_that_is_asked_again_has_the_stored_answer_once_per_attempt(tmp_path: Path) -> None:
    """The outcome and its id are those of the first time, and the goods are held once."""
    core = open_core(INVENTORY, tmp_path)
    with core.database.write() as transaction:
        fill_stock(transaction, STOCK)
    answers = [
        record
        for batch in ([reserve()], [reserve(attempt=2), reserve(attempt=2)], [reserve(attempt=3), reserve()])
        for record in core.process(batch, NOW)
    ]
    assert told(answers) == [RESERVED] * 3
    assert [attempt for _, attempt in attempts(answers)] == [1, 2, 3]
    assert len({record.id for record in answers}) == 1
    assert free_laptops(core) == 8
    assert counters(core) == {"duplicate": 2}
    core.database.close()


@pytest.mark.parametrize("undo_first", [True, False], ids=["undo first", "action first"])
def test_an_action_and_its_undo_end_alike_in_either_order(undo_first: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a case
    """A late success is undone, and what comes after its undo is refused: in both, nothing is held."""
    core = open_core(INVENTORY, tmp_path)
    with core.database.write() as transaction:
        fill_stock(transaction, STOCK)
    for record in (release(), reserve()) if undo_first else (reserve(), release()):
        core.process([record], NOW)
    assert free_laptops(core) == 10
    assert [row[1] for row in rows_of(core)["reservations"]] == ["RELEASED"]
    assert told(core.process([reserve(attempt=2)], NOW)) == [
        InventoryRejected(order_id=order_id(1), reason=Reason.PAYMENT_DECLINED)
    ]
    core.database.close()


def test_an_order_that_waits_for_an_operator_has_no_deadline(tmp_path: Path) -> None:
    """It is noted what to ask for again, but no time at which that would happen by itself."""
    core = open_core(ORCHESTRATOR, tmp_path)
    [*_] = core.process([command(STARTED)], NOW)
    for _ in woken(core, NOW + DAY):
        pass
    assert [row[5] for row in rows_of(core)["sagas"]] == ["COMPENSATION_FAILED"]
    with core.database.read() as connection:
        [row] = connection.execute(DEADLINES.table.select()).all()
    assert row.due_at is None
    assert core.due_in(NOW + DAY) == float("inf")
    assert counters(core) == {"overdue": 2 + RECOVERY.undo_tries - 1, "timed_out": 2}
    core.database.close()


def test_what_an_operator_has_tried_again_is_the_same_question(orchestrator: Core) -> None:
    """The undo is asked for with the id that it had before, and with the next attempt."""
    asked_of(orchestrator)
    asked = [record for _, outgoing in woken(orchestrator, NOW + DAY) for record in outgoing]
    undos = [record for record in asked if told([record]) == [RELEASE]]
    [again] = orchestrator.process([command(RetryCompensation(order_id=order_id(1)), index=2)], NOW + DAY)
    assert told([again]) == [RELEASE]
    assert {record.id for record in undos} == {again.id}
    [(_, before)], [(_, after)] = attempts(undos[-1:]), attempts([again])
    assert after > before
    orchestrator.database.close()


# Whole modes: whatever is lost, the orders end, and alike in all services.


COMPLETED: Final = ("COMPLETED", None, "RESERVED", "CHARGED")
DECLINED: Final = ("FAILED", "payment_declined", "RELEASED", "DECLINED")
GOOD: Final = place_order(1)
TOO_MUCH: Final = place_order(1, price=400_00)
LOSSES: Final = [
    (orchestrated.MODE, SagaStarted, GOOD),
    (orchestrated.MODE, ReserveInventory, GOOD),
    (orchestrated.MODE, InventoryReserved, GOOD),
    (orchestrated.MODE, ProcessPayment, GOOD),
    (orchestrated.MODE, PaymentProcessed, GOOD),
    (orchestrated.MODE, SagaCompleted, GOOD),
    (orchestrated.MODE, PaymentDeclined, TOO_MUCH),
    (orchestrated.MODE, ReleaseInventory, TOO_MUCH),
    (orchestrated.MODE, InventoryReleased, TOO_MUCH),
    (orchestrated.MODE, SagaFailed, TOO_MUCH),
    (choreographed.MODE, OrderCreated, GOOD),
    (choreographed.MODE, InventoryReserved, GOOD),
    (choreographed.MODE, PaymentProcessed, GOOD),
    (choreographed.MODE, PaymentDeclined, TOO_MUCH),
    (choreographed.MODE, InventoryReleased, TOO_MUCH),
]
TO_AND_FROM_ORDER: Final = {SagaStarted, SagaCompleted, SagaFailed}
LOSS_IDS: Final = [f"{mode.name}-{kind.__name__}" for mode, kind, _ in LOSSES]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("mode", "kind", "order"), LOSSES, ids=LOSS_IDS)
def test_a_lost_record_costs_time_and_nothing_else(
    mode: Mode, kind: type[Message], order: Message, times: int, tmp_path: Path
) -> None:
    """Whichever record is lost, be it twice, it is asked for again, and the order ends as it would have."""
    pump = Pump(mode, tmp_path, STOCK, wire=losing(kind, times=times), copies=2)
    pump.request([order])
    pump.run()
    assert end_of(pump.state())[0] == "PENDING"
    pump.run(600)
    assert end_of(pump.state()) == (COMPLETED if order is GOOD else DECLINED)
    asks = "order" if mode is choreographed.MODE or kind in TO_AND_FROM_ORDER else "orchestrator"
    # In choreography, the goods that were released are told of as rejected when they are asked for again.
    needed = 1 if (mode, kind) == (choreographed.MODE, InventoryReleased) else times
    assert pump.cores[asks].counts["overdue"] == needed
    assert total(pump, "timed_out") == 0
    check_books(pump, STOCK, [1])
    pump.close()


@pytest.mark.parametrize(("mode", "kind", "order"), LOSSES, ids=LOSS_IDS)
def test_a_record_that_never_comes_through_fails_its_order(
    mode: Mode, kind: type[Message], order: Message, tmp_path: Path
) -> None:
    """If all attempts are lost the order is given up, and all is undone whether or not it had happened.

    Only what the Order service and the orchestrator say to each other has no substitute.
    """
    pump = Pump(mode, tmp_path, STOCK, wire=losing(kind, times=float("inf")))
    pump.request([order])
    pump.run(3600)
    status, reason, reservation, payment = end_of(pump.state())
    if kind in TO_AND_FROM_ORDER:
        assert status == "PENDING"
    elif (mode, kind) == (choreographed.MODE, InventoryReleased):
        assert end_of(pump.state()) == DECLINED
    elif kind in {InventoryReleased, ReleaseInventory}:
        assert status == "COMPENSATION_FAILED"
    else:
        # In choreography, Inventory knows of the refund, and the Payment service of the decline before it.
        declined = (mode, kind) == (choreographed.MODE, PaymentDeclined)
        assert (status, reason) == ("FAILED", "payment_declined" if declined else "timed_out")
        assert reservation != "RESERVED"
        assert payment != "CHARGED"
        check_books(pump, STOCK, [1])
    pump.close()


@MODES
@pytest.mark.parametrize("seconds", [15, 45, 100, 200, 700])
@pytest.mark.parametrize("service", ["inventory", "payment"])
@pytest.mark.parametrize("seed", range(2))
def test_a_service_that_stays_away_and_comes_back_late_revives_nothing(
    mode: Mode, service: str, seconds: int, seed: int, tmp_path: Path
) -> None:
    """However long it was away, and in whatever order it reads what waits for it, all services agree."""
    pump = Pump(mode, tmp_path, STOCK, shuffle=Random(seed), copies=1 + seed % 2)
    pump.request(place_order(number) for number in (1, 2))
    pump.stopped = {service}
    pump.run(seconds)
    pump.stopped = set()
    pump.run(3600)
    check_books(pump, STOCK, [1, 2])
    for number in (1, 2):
        status, reason, *_ = end_of(pump.state(), number)
        assert (status, reason) in {("COMPLETED", None), ("FAILED", "timed_out")}
    quick = seconds < 70
    assert (end_of(pump.state())[0] == "COMPLETED") == (
        quick or (mode.name == "choreographed" and seconds == 100)
    )
    pump.close()


@MODES
@pytest.mark.parametrize("service", ["inventory", "payment"])
def test_a_compensation_that_nobody_answers_ends_visibly(mode: Mode, service: str, tmp_path: Path) -> None:
    """A service that never comes back leaves its orders COMPENSATION_FAILED, and on its return they fail."""
    pump = Pump(mode, tmp_path, STOCK)
    pump.request([place_order(1)])
    pump.stopped = {service}
    pump.run(3 * 3600)
    assert end_of(pump.state())[:2] == ("COMPENSATION_FAILED", "timed_out")
    assert total(pump, "timed_out") == 2
    if mode is orchestrated.MODE:
        assert [row[5] for row in pump.state()["orchestrator"]["sagas"]] == ["COMPENSATION_FAILED"]
    assert len(on_topic(pump, OrderCompensationFailed)) == 1
    pump.stopped = set()
    pump.run(3 * 3600)
    assert end_of(pump.state())[:2] == ("FAILED", "timed_out")
    check_books(pump, STOCK, [1])
    pump.close()


@MODES
def test_an_order_that_has_ended_ignores_the_rest(mode: Mode, tmp_path: Path) -> None:
    """All records of an order, told once more as further attempts after its end, change nothing anywhere."""
    pump = Pump(mode, tmp_path, STOCK)
    pump.request([place_order(1), place_order(2, price=400_00), place_order(3, item="unicorn")])
    pump.run()
    before = pump.state()
    for log in list(pump.broker.logs.values()):
        for record in list(log):
            again = replace(record, offset=len(log), headers=(*record.headers, ("ce_attempt", b"7")))
            log.append(again)
    pump.run(3600)
    assert pump.state() == before
    assert total(pump, "late") > 0
    assert total(pump, "ignored") == 0
    assert total(pump, "dead_letter") == 0
    pump.close()


def test_a_deadline_overrules_a_captured_payment(tmp_path: Path) -> None:
    """Where the word of the payment never comes, its outcome is unknown, so the money is given back."""
    for mode in (orchestrated.MODE, choreographed.MODE):
        pump = Pump(mode, tmp_path / mode.name, STOCK, wire=losing(PaymentProcessed, times=10**9))
        pump.request([place_order(1)])
        pump.run(3600)
        assert end_of(pump.state()) == ("FAILED", "timed_out", "RELEASED", "REFUNDED")
        undone = [*on_topic(pump, PaymentRefunded), *on_topic(pump, InventoryReleased)]
        times = [dict(record.headers)["ce_time"] for record in undone]
        assert times == sorted(times), "the payment is undone before the reservation"
        assert len(on_topic(pump, RefundPayment, OrderAborted)) == 1
        pump.close()
