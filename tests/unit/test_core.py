"""The core without a broker: whatever is delivered twice, lost or broken, each effect happens once."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import pytest
from sqlalchemy import event, func, select

import choreographed
import orchestrated
from common.core import Core
from common.domain.decision import Decision, Rules
from common.domain.inventory import Inventory
from common.envelope import Outgoing, open_envelope, origin, read_message, seal
from common.messages import (
    InventoryRejected,
    InventoryReserved,
    Message,
    OrderCompleted,
    OrderCreated,
    PaymentDeclined,
    ProcessPayment,
    Reason,
    ReleaseInventory,
    ReserveInventory,
)
from common.store.journal import Change, history
from common.store.schema import INBOX, OUTBOX
from common.wiring import Mode
from tests.pump import (
    NOW,
    Delivered,
    Pump,
    State,
    delivered,
    fill_stock,
    open_core,
    order_id,
    place_order,
    rows_of,
)

INVENTORY: Final = orchestrated.MODE.service("inventory")
ORDER: Final = orchestrated.MODE.service("order")
PAYMENT: Final = orchestrated.MODE.service("payment")
STAMP: Final = "2026-01-02T03:04:05.678901Z"


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[Core]:
    """The orchestrated Inventory service, with ten laptops."""
    core = open_core(INVENTORY, tmp_path)
    with core.database.write() as transaction:
        fill_stock(transaction, {"laptop": 10})
    yield core
    core.database.close()


@pytest.fixture
def order(tmp_path: Path) -> Iterator[Core]:
    """The orchestrated Order service."""
    core = open_core(ORDER, tmp_path)
    yield core
    core.database.close()


def command(message: Message, partition: int = 0, index: int = 0) -> Delivered:
    """A message as the orchestrator sends it."""
    because = origin(message.order_id, partition)
    return delivered(seal(message, because, source="/test", topic="saga.commands", index=index, now=NOW))


def reserve(number: int = 1, quantity: int = 2, partition: int = 0) -> Delivered:
    """Hold laptops for an order."""
    return command(ReserveInventory(order_id=order_id(number), item="laptop", quantity=quantity), partition)


def release(number: int = 1) -> Delivered:
    """Give an order's laptops back."""
    return command(ReleaseInventory(order_id=order_id(number), reason=Reason.PAYMENT_DECLINED), index=1)


def told(outgoing: list[Outgoing]) -> list[Message]:
    """The messages in their envelopes."""
    return [read_message(delivered(record))[1] for record in outgoing]


def free_laptops(core: Core) -> int:
    """The stock that nobody holds."""
    [(_, available, *_)] = rows_of(core)["stock"]
    return int(available)


def held_by(core: Core) -> list[str]:
    """The orders that have a reservation, whatever became of it."""
    return [str(row[0]) for row in rows_of(core)["reservations"]]


def counts(core: Core) -> tuple[int, int, int]:
    """How many rows are in the inbox, the outbox and the history."""
    with core.database.read() as connection:
        inbox = connection.scalar(select(func.count()).select_from(INBOX)) or 0
        outbox = connection.scalar(select(func.count()).select_from(OUTBOX)) or 0
        return inbox, outbox, len(history(connection))


def reopened(core: Core, folder: Path) -> Core:
    """The same service after a crash: all that was in memory is gone."""
    core.database.close()
    return open_core(core.wiring, folder)


def test_a_command_is_decided_saved_and_answered(inventory: Core) -> None:
    """One record in: the rows change, and one answer goes out on the topic of answers."""
    [answer] = inventory.process([reserve()], NOW)
    assert told([answer]) == [InventoryReserved(order_id=order_id(1), item="laptop", quantity=2)]
    assert (answer.topic, open_envelope(delivered(answer)).source) == (
        "saga.events",
        "/orchestrated/inventory",
    )
    assert free_laptops(inventory) == 8


def test_a_duplicate_in_a_later_batch_has_no_second_effect(inventory: Core) -> None:
    """A record that comes again is counted and dropped."""
    inventory.process([reserve()], NOW)
    assert inventory.process([reserve()], NOW) == []
    assert free_laptops(inventory) == 8
    assert inventory.counts == {"consumed": 2, "duplicate": 1}


def test_a_duplicate_within_a_batch_has_no_second_effect(inventory: Core) -> None:
    """A record that is in one batch twice is taken the first time."""
    assert len(inventory.process([reserve(1), reserve(2), reserve(1)], NOW)) == 2
    assert free_laptops(inventory) == 6
    assert inventory.counts == {"consumed": 3, "duplicate": 1}


def test_commands_of_one_batch_see_each_other(inventory: Core) -> None:
    """Within a batch, the second order gets what the first has left."""
    outgoing = inventory.process([reserve(1, quantity=7), reserve(2, quantity=7), release(1)], NOW)
    assert [type(message).__name__ for message in told(outgoing)] == [
        "InventoryReserved",
        "InventoryRejected",
        "InventoryReleased",
    ]
    assert free_laptops(inventory) == 10


def test_what_is_not_its_business_leaves_no_trace(inventory: Core) -> None:
    """A record of another type is skipped by its header, though its body be unreadable."""
    created = OrderCreated(order_id=order_id(1), customer_id="a", item="laptop", quantity=1, price_cents=1)
    assert inventory.process([replace(command(created), value=b"?")], NOW) == []
    assert counts(inventory) == (0, 0, 0)
    assert inventory.counts == {"consumed": 1, "skipped": 1}


@pytest.mark.parametrize(
    "broken", [replace(reserve(3), value=b"{"), replace(reserve(3), headers=())], ids=["body", "headers"]
)
def test_an_unreadable_record_does_not_hold_up_the_others(
    inventory: Core, broken: Delivered, caplog: pytest.LogCaptureFixture
) -> None:
    """What can't be read is counted and logged with its place, and what is around it is done."""
    outgoing = inventory.process([reserve(1), broken, reserve(2)], NOW)
    assert len(outgoing) == 2
    assert held_by(inventory) == [order_id(1), order_id(2)]
    assert inventory.counts == {"consumed": 3, "unreadable": 1}
    [logged] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "orchestrated/inventory skips a record that it cannot read: saga.commands[0]@0" in logged.message


def test_an_event_that_a_reaction_refuses_is_unreadable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In choreography, goods without a charge can't be paid for: counted, logged, and nobody is charged."""
    payment = open_core(choreographed.MODE.service("payment"), tmp_path)
    reserved = InventoryReserved(order_id=order_id(1), item="laptop", quantity=2)
    assert payment.process([command(reserved)], NOW) == []
    assert payment.counts == {"consumed": 1, "unreadable": 1}
    assert f"{order_id(1)} does not say what to charge" in caplog.text
    assert rows_of(payment) == {"payments": []}
    payment.database.close()


def test_a_command_that_changes_nothing_is_logged_as_ignored(
    order: Core, caplog: pytest.LogCaptureFixture
) -> None:
    """An order that is placed again tells nothing more, and the log says so."""
    with order.database.write() as transaction:
        order.submit(transaction, place_order(), 0, NOW)
        assert order.submit(transaction, place_order(), 0, NOW) == []
    assert order.counts == {"ignored": 1}
    assert f"orchestrated/order ignores PlaceOrder for order {order_id(1)!r}" in caplog.text


class DecisionFailedError(Exception):
    """What goes wrong in the middle of a batch."""


def failing_at(number: int) -> Mode:
    """The orchestrated mode, whose Inventory fails when it comes to this order."""

    def decide(state: Inventory, message: ReserveInventory, rules: Rules) -> Decision[Inventory]:
        if message.order_id == order_id(number):
            raise DecisionFailedError
        return INVENTORY.domain.decide(state, message, rules)

    failing = replace(INVENTORY, domain=replace(INVENTORY.domain, decide=decide))
    services = tuple(failing if one is INVENTORY else one for one in orchestrated.MODE.services)
    return replace(orchestrated.MODE, services=services)


def test_an_error_in_mid_batch_leaves_nothing_behind(inventory: Core, tmp_path: Path) -> None:
    """A batch is done as a whole or not at all, and one that failed succeeds when it is tried again."""
    batch = [reserve(1), reserve(2), reserve(3)]
    failing = open_core(failing_at(3).service("inventory"), tmp_path)
    with pytest.raises(DecisionFailedError):
        failing.process(batch, NOW)
    failing.database.close()
    assert counts(inventory) == (0, 0, 0)
    assert held_by(inventory) == []
    assert free_laptops(inventory) == 10

    assert len(inventory.process(batch, NOW)) == 3
    assert counts(inventory) == (3, 3, 3)
    assert free_laptops(inventory) == 4


def test_a_failed_batch_keeps_its_acknowledgements(inventory: Core, tmp_path: Path) -> None:
    """What was acknowledged before a batch that failed is forgotten with the next that succeeds."""
    core = open_core(failing_at(2).service("inventory"), tmp_path)
    core.acknowledge(core.process([reserve(1)], NOW))
    with pytest.raises(DecisionFailedError):
        core.process([reserve(2)], NOW)
    assert counts(core)[1] == 1
    core.process([reserve(3)], NOW)
    assert [record.key.decode() for record in core.unsent([0])] == [order_id(3)]
    core.database.close()
    assert free_laptops(inventory) == 6


def test_a_crash_after_the_commit_loses_no_message(inventory: Core, tmp_path: Path) -> None:
    """What was committed but not published is in the outbox of the next run, unchanged and in order."""
    decided = inventory.process([reserve(1), reserve(2), release(1)], NOW)
    again = reopened(inventory, tmp_path)
    assert again.unsent([0]) == decided
    assert again.backlog() == 3
    again.database.close()


def test_the_outbox_is_handed_on_by_partition(inventory: Core, tmp_path: Path) -> None:
    """The new owner of some partitions gets what belongs to them, each in its order."""
    batch = [reserve(number, quantity=1, partition=number % 3) for number in range(1, 7)]
    decided = inventory.process(batch, NOW)
    again = reopened(inventory, tmp_path)
    assert again.unsent([1]) == [decided[0], decided[3]]
    assert again.unsent([2, 0]) == [decided[1], decided[2], decided[4], decided[5]]
    assert again.unsent([]) == []
    again.database.close()


def test_replies_stay_on_the_partition_of_their_cause(inventory: Core) -> None:
    """An order stays in one partition, so its messages stay in order."""
    outgoing = inventory.process([reserve(1, partition=2), reserve(2, partition=0)], NOW)
    assert [(record.key.decode(), record.partition) for record in outgoing] == [
        (order_id(1), 2),
        (order_id(2), 0),
    ]


def test_an_acknowledged_record_is_not_sent_again(inventory: Core) -> None:
    """From the acknowledgement on, a record is no longer waiting, though its row is still there."""
    first, second = inventory.process([reserve(1), reserve(2)], NOW)
    inventory.acknowledge([first])
    assert inventory.unsent([0]) == [second]
    assert inventory.backlog() == 1
    assert counts(inventory)[1] == 2


def test_a_record_that_is_acknowledged_twice_counts_once(inventory: Core) -> None:
    """A record that two ways have published, as after a rebalance, is one record less that waits."""
    first, _ = inventory.process([reserve(1), reserve(2)], NOW)
    inventory.acknowledge([first])
    inventory.acknowledge([first])
    assert inventory.backlog() == 1


def test_the_next_batch_forgets_what_is_acknowledged(inventory: Core, tmp_path: Path) -> None:
    """The outbox is cleaned up in the transaction of the next batch."""
    inventory.acknowledge(inventory.process([reserve(1)], NOW))
    [second] = inventory.process([reserve(2)], NOW)
    again = reopened(inventory, tmp_path)
    assert again.unsent([0]) == [second]
    again.database.close()


def test_any_number_of_acknowledged_records_can_be_forgotten(inventory: Core) -> None:
    """After a long outage there may be more of them than a statement of the database has variables."""
    event.listen(
        inventory.database.engine,
        "checkout",
        lambda connection, *_: connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 1_500),
    )
    for start in range(0, 4_000, 1_000):
        numbers = range(start, start + 1_000)
        inventory.acknowledge(inventory.process([reserve(number) for number in numbers], NOW))
    inventory.tidy()
    assert inventory.backlog() == 0


def test_tidying_forgets_what_is_acknowledged(inventory: Core, tmp_path: Path) -> None:
    """Where no batch comes, the outbox is cleaned up on its own, once."""
    inventory.acknowledge(inventory.process([reserve(1)], NOW))
    inventory.tidy()
    inventory.tidy()
    assert (counts(inventory)[1], inventory.backlog()) == (0, 0)
    again = reopened(inventory, tmp_path)
    assert again.unsent([0]) == []
    again.database.close()


def test_the_same_step_has_the_same_ids(tmp_path: Path) -> None:
    """A step that is executed again, elsewhere and later, produces the same messages with the same ids."""
    cores = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        cores.append(open_core(INVENTORY, tmp_path / name))
    first, second = cores
    later = NOW.replace(year=2027)
    before, after = first.process([reserve()], NOW), second.process([reserve()], later)
    assert [record.id for record in before] == [record.id for record in after]
    assert (
        told(before) == told(after) == [InventoryRejected(order_id=order_id(1), reason=Reason.UNKNOWN_ITEM)]
    )
    first.database.close()
    second.database.close()


def test_history_says_what_changed_and_why(inventory: Core) -> None:
    """Each change of state is written down once, with its cause; a repeated answer is no change."""
    held, freed = reserve(1), release(1)
    repeated = command(ReleaseInventory(order_id=order_id(1), reason=Reason.OUT_OF_STOCK), index=2)
    inventory.process([held, freed, repeated, reserve(2)], NOW)
    with inventory.database.read() as connection:
        mine, all_of_them = history(connection, order_id(1)), history(connection)
    assert mine == [
        Change(order_id(1), open_envelope(held).id, "NONE", "RESERVED", STAMP),
        Change(order_id(1), open_envelope(freed).id, "RESERVED", "RELEASED", STAMP),
    ]
    assert [change.order_id for change in all_of_them] == [order_id(1), order_id(1), order_id(2)]


def test_a_saga_begins_at_pending(tmp_path: Path) -> None:
    """The first change of a saga comes from the start of its table."""
    pump = Pump(orchestrated.MODE, tmp_path, {"laptop": 10})
    pump.request([place_order()])
    pump.run()
    path = [(change.from_status, change.to_status) for change in pump.histories()["orchestrator"]]
    assert sorted(path) == [
        ("PENDING", "RESERVING_INVENTORY"),
        ("PROCESSING_PAYMENT", "COMPLETED"),
        ("RESERVING_INVENTORY", "PROCESSING_PAYMENT"),
    ]
    pump.close()


def test_submit_is_part_of_the_callers_transaction(order: Core) -> None:
    """When the caller's transaction fails, the order was never taken on."""
    with pytest.raises(DecisionFailedError), order.database.write() as transaction:  # noqa: PT012 - both belong to it
        assert len(order.submit(transaction, place_order(), 1, NOW)) == 1
        raise DecisionFailedError
    assert counts(order) == (0, 0, 0)
    assert rows_of(order) == {"orders": []}


def test_a_submitted_order_begins_its_own_chain(order: Core) -> None:
    """The first message of an order is caused by the order itself, and goes where its key belongs."""
    with order.database.write() as transaction:
        [started] = order.submit(transaction, place_order(), 1, NOW)
    envelope = open_envelope(delivered(started))
    assert (started.topic, started.partition, envelope.type) == ("saga.commands", 1, "SagaStarted")
    assert (envelope.causation_id, envelope.correlation_id) == (order_id(1), order_id(1))
    assert order.unsent([1]) == [started]


def test_the_rules_of_a_core_are_those_that_it_is_given(tmp_path: Path) -> None:
    """An operator's limit decides in place of the usual one."""
    payment = open_core(PAYMENT, tmp_path)
    strict = Core(PAYMENT, Rules(payment_limit_cents=1_00), payment.database)
    pay = ProcessPayment(order_id=order_id(1), customer_id="alice", amount_cents=1_01)
    declined = PaymentDeclined(order_id=order_id(1), reason=Reason.PAYMENT_DECLINED)
    assert told(strict.process([command(pay)], NOW)) == [declined]
    payment.database.close()


def test_a_prefix_goes_before_every_topic(inventory: Core) -> None:
    """Separate runs can share a broker, since each has topics of its own."""
    prefixed = Core(INVENTORY, Rules(), inventory.database, prefix="run7.")
    [answer] = prefixed.process([reserve()], NOW)
    assert answer.topic == "run7.saga.events"


# Whole sagas: one order that ends well, and one for each way to fail.

MODES: Final = pytest.mark.parametrize(
    "mode", [orchestrated.MODE, choreographed.MODE], ids=lambda mode: mode.name
)
STOCK: Final = {"laptop": 10, "phone": 1}
REQUESTS: Final = {
    "happy": place_order(1, quantity=2),
    "declined": place_order(2, quantity=6, price=100_00),
    "out of stock": place_order(3, item="phone", quantity=2),
    "unknown item": place_order(4, item="unicorn"),
}
ENDS: Final = {
    "happy": ("COMPLETED", None, "RESERVED", "CHARGED"),
    "declined": ("FAILED", "payment_declined", "RELEASED", "DECLINED"),
    "out of stock": ("FAILED", "out_of_stock", "REJECTED", None),
    "unknown item": ("FAILED", "unknown_item", "REJECTED", None),
}


def run_all(pump: Pump, *names: str) -> None:
    """Place these orders and run their sagas to the end."""
    pump.request(REQUESTS[name] for name in names)
    pump.run()


def end_of(state: dict[str, State], name: str) -> tuple[str | None, ...]:
    """What became of an order: its status and reason, its reservation, its payment."""
    wanted = REQUESTS[name].order_id

    def row(service: str, table: str) -> tuple[str | None, ...]:
        found = [row for row in state[service][table] if row[0] == wanted]
        return tuple(found[0]) if found else (None,) * 7

    order_row = row("order", "orders")
    return order_row[5], order_row[6], row("inventory", "reservations")[1], row("payment", "payments")[1]


@MODES
@pytest.mark.parametrize("name", REQUESTS)
def test_a_saga_runs_to_its_end(mode: Mode, name: str, tmp_path: Path) -> None:
    """Each order ends as it must, in both modes alike."""
    pump = Pump(mode, tmp_path, STOCK)
    run_all(pump, name)
    assert end_of(pump.state(), name) == ENDS[name]
    assert sum(row[1] for row in pump.state()["inventory"]["stock"]) == (9 if name == "happy" else 11)
    pump.close()


@MODES
def test_nothing_waits_when_all_is_done(mode: Mode, tmp_path: Path) -> None:
    """At the end no record is unpublished, unreadable or ignored."""
    pump = Pump(mode, tmp_path, STOCK)
    run_all(pump, *REQUESTS)
    for core in pump.cores.values():
        assert core.backlog() == 0
        assert {"unreadable", "ignored", "duplicate"}.isdisjoint(core.counts)
    pump.close()


@MODES
def test_every_record_twice_ends_the_same(mode: Mode, tmp_path: Path) -> None:
    """With every record delivered twice, rows, history and messages are those of a quiet run."""
    quiet, noisy = tmp_path / "quiet", tmp_path / "noisy"
    quiet.mkdir()
    noisy.mkdir()
    once, twice = Pump(mode, quiet, STOCK), Pump(mode, noisy, STOCK, copies=2)
    for pump in (once, twice):
        run_all(pump, *REQUESTS)
    assert twice.state() == once.state()
    assert twice.histories() == once.histories()
    assert twice.told() == once.told()
    assert all(core.counts["duplicate"] for core in twice.cores.values())
    once.close()
    twice.close()


@MODES
@pytest.mark.parametrize("seed", range(5))
def test_orders_in_any_interleaving_end_the_same(mode: Mode, seed: int, tmp_path: Path) -> None:
    """However services, partitions and batches take turns, each order ends as it would alone."""
    pump = Pump(mode, tmp_path, STOCK, copies=2, shuffle=Random(seed))
    run_all(pump, *REQUESTS)
    assert {name: end_of(pump.state(), name) for name in REQUESTS} == ENDS
    pump.close()


@MODES
@pytest.mark.parametrize("name", REQUESTS)
def test_a_crash_after_any_step_changes_nothing(mode: Mode, name: str, tmp_path: Path) -> None:
    """With all services lost after the n-th step, for every n, the end is that of a run without a crash."""
    (tmp_path / "undisturbed").mkdir()
    undisturbed = Pump(mode, tmp_path / "undisturbed", STOCK)
    undisturbed.request([REQUESTS[name]])
    crashed = [
        (undisturbed.after_crash(tmp_path / f"crash {number}"), step)
        for number, step in enumerate(undisturbed.steps())
    ]
    for pump, step in crashed:
        pump.run()
        assert pump.state() == undisturbed.state(), f"after a crash when {step}"
        assert pump.histories() == undisturbed.histories(), f"after a crash when {step}"
        assert pump.told() == undisturbed.told(), f"after a crash when {step}"
        pump.close()
    undisturbed.close()


def test_both_modes_end_alike(tmp_path: Path) -> None:
    """Coordination is the only variable: orders, stock, reservations and payments end alike in both modes."""
    ends = []
    for mode in (orchestrated.MODE, choreographed.MODE):
        (tmp_path / mode.name).mkdir()
        pump = Pump(mode, tmp_path / mode.name, STOCK)
        run_all(pump, *REQUESTS)
        state = pump.state()
        ends.append({service: state[service] for service in ("order", "inventory", "payment")})
        assert (
            sum(
                OrderCompleted.__name__ in str(record.headers)
                for log in pump.broker.logs.values()
                for record in log
            )
            == 1
        )
        pump.close()
    assert ends[0] == ends[1]
