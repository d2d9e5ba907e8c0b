"""The core without a broker: whatever is delivered twice, lost or broken, each effect happens once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

import choreographed
import orchestrated
from common.core import Core
from common.domain.decision import Rules
from common.envelope import Outgoing, open_envelope
from common.messages import (
    CancelOrder,
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
    RetryCompensation,
)
from common.probe import Boundary, Probe
from common.store.journal import Change, history
from common.wiring import Mode
from tests.pump import (
    NOW,
    PARTITIONS,
    Pump,
    delivered,
    fill_stock,
    open_core,
    order_id,
    pages,
    place_order,
    rows_of,
)
from tests.unit.records import (
    INVENTORY,
    MODES,
    ORDER,
    PAYMENT,
    command,
    counters,
    counts,
    end_of,
    free_laptops,
    held_by,
    release,
    reopened,
    reserve,
    told,
    with_headers,
)

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
    """Records of another type are skipped by their header, though their bodies be unreadable."""
    created = OrderCreated(order_id=order_id(1), customer_id="a", item="laptop", quantity=1, price_cents=1)
    assert inventory.process([replace(command(created), value=b"?")] * 2, NOW) == []
    assert counts(inventory) == (0, 0, 0)
    assert inventory.counts == {"consumed": 2, "skipped": 2}


def test_what_is_not_its_business_needs_no_transaction(inventory: Core) -> None:
    """The database isn't even asked, though an earlier batch had something to count."""
    inventory.process([with_headers(reserve(), ce_type=b"Unheard")], NOW)
    asked = []
    event.listen(inventory.database.engine, "checkout", lambda *_: asked.append("something"))
    created = OrderCreated(order_id=order_id(1), customer_id="a", item="laptop", quantity=1, price_cents=1)
    assert inventory.process([command(created)], NOW) == []
    assert asked == []
    inventory.process([reserve()], NOW)
    assert asked


def test_a_command_that_changes_nothing_is_logged_as_ignored(
    order: Core, caplog: pytest.LogCaptureFixture
) -> None:
    """An order that is placed again tells nothing more, and the log says so."""
    with order.database.write() as transaction:
        order.submit(transaction, [(place_order(), 0)], NOW)
        assert order.submit(transaction, [(place_order(), 0)], NOW) == []
    assert order.counts == {"ignored": 1}
    assert f"orchestrated/order ignores PlaceOrder for order {order_id(1)!r}" in caplog.text


class BatchFailedError(Exception):
    """What goes wrong in the middle of a batch."""


class Dying(Probe):
    """Fails the whole batch, just before it is committed, as often as it is told."""

    times = 1

    def passing(self, boundary: Boundary, commands: Sequence[Message]) -> None:
        if commands and boundary is Boundary.DECIDED and self.times:
            self.times -= 1
            raise BatchFailedError


def test_a_batch_that_fails_leaves_nothing_behind(inventory: Core, tmp_path: Path) -> None:
    """A batch is done as a whole or not at all, and one that failed succeeds when it is tried again."""
    batch = [reserve(1), reserve(2), reserve(3)]
    failing = open_core(INVENTORY, tmp_path, probe=Dying())
    with pytest.raises(BatchFailedError):
        failing.process(batch, NOW)
    assert counts(inventory) == (0, 0, 0)
    assert held_by(inventory) == []
    assert free_laptops(inventory) == 10

    assert len(failing.process(batch, NOW)) == 3
    assert counts(inventory) == (3, 3, 3)
    assert free_laptops(inventory) == 4
    failing.database.close()


def test_a_batch_that_fails_counts_nothing(inventory: Core, tmp_path: Path) -> None:
    """What is rolled back was not counted either, so that a batch which is tried again counts once."""
    failing = open_core(INVENTORY, tmp_path, probe=Dying())
    batch = [reserve(1), reserve(1), replace(reserve(2), value=b"?")]
    with pytest.raises(BatchFailedError):
        failing.process(batch, NOW)
    assert failing.counts == {}
    failing.process(batch, NOW)
    assert failing.counts == {"consumed": 3, "duplicate": 1, "dead_letter": 1}
    assert counters(inventory) == {"duplicate": 1, "dead_letter": 1}
    failing.database.close()


def test_a_failed_batch_keeps_its_acknowledgements(inventory: Core, tmp_path: Path) -> None:
    """What was acknowledged before a batch that failed is forgotten with the next that succeeds."""
    probe = Dying()
    probe.times = 0
    core = open_core(INVENTORY, tmp_path, probe=probe)
    core.acknowledge(core.process([reserve(1)], NOW))
    probe.times = 1
    with pytest.raises(BatchFailedError):
        core.process([reserve(2)], NOW)
    assert counts(core)[1] == 1
    core.process([reserve(3)], NOW)
    assert [record.key for record in core.unsent([0])] == [order_id(3).encode()]
    core.database.close()
    assert free_laptops(inventory) == 6


def test_counts_survive_the_process(inventory: Core, tmp_path: Path) -> None:
    """What is worth a look later is counted in the database, whichever way it came about."""
    foreign = with_headers(reserve(3), ce_type=b"NoSuchThing")
    inventory.process([reserve(1), reserve(1), foreign], NOW)
    inventory.process([foreign], NOW)
    again = reopened(inventory, tmp_path)
    again.process([reserve(1)], NOW)
    assert counters(again) == {"duplicate": 2, "unknown": 2}
    again.database.close()


def test_what_comes_from_outside_is_counted_like_a_record(order: Core, tmp_path: Path) -> None:
    """A cancel that comes too late is counted in the database, though no record has brought it."""
    with order.database.write() as transaction:
        order.submit(transaction, [(place_order(), 0)], NOW)
        order.submit(transaction, [(RetryCompensation(order_id=order_id(1)), 0)], NOW)
        order.submit(transaction, [(CancelOrder(order_id=order_id(2)), 0)], NOW)
    assert order.counts == {"late": 1, "ignored": 1}
    again = reopened(order, tmp_path)
    assert counters(again) == {"late": 1, "ignored": 1}
    again.database.close()


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
    inherited = again.unsent([2, 0])
    assert [record for record in inherited if record.partition == 2] == [decided[1], decided[4]]
    assert [record for record in inherited if record.partition == 0] == [decided[2], decided[5]]
    assert len(inherited) == 4
    assert again.unsent([]) == []
    again.database.close()


def test_replies_stay_on_the_partition_of_their_cause(inventory: Core) -> None:
    """An order stays in one partition, so its messages stay in order."""
    outgoing = inventory.process([reserve(1, partition=2), reserve(2, partition=0)], NOW)
    assert [(record.key, record.partition) for record in outgoing] == [
        (order_id(1).encode(), 2),
        (order_id(2).encode(), 0),
    ]


def reservation(number: int) -> ReserveInventory:
    """Hold a laptop for an order."""
    return ReserveInventory(order_id=order_id(number), item="laptop", quantity=1)


def submitted(core: Core, number: int) -> list[Outgoing]:
    """What an Inventory service tells of a command from outside; unlike a batch, that drops nothing."""
    with core.database.write() as transaction:
        return core.submit(transaction, [(reservation(number), 0)], NOW)


def test_an_acknowledged_record_is_not_sent_again(inventory: Core) -> None:
    """From the acknowledgement on, records are no longer waiting, though they are still in the outbox."""
    inventory.acknowledge(inventory.process([reserve(1), reserve(2)], NOW))
    # No batch comes between, which would have dropped them.
    third = submitted(inventory, 3)
    assert inventory.unsent([0]) == third
    assert inventory.backlog() == 1
    assert counts(inventory)[1] == 3


def test_a_record_that_is_acknowledged_twice_counts_once(inventory: Core) -> None:
    """A record that two ways have published, as after a rebalance, is one record less that waits."""
    first = inventory.process([reserve(1)], NOW)
    submitted(inventory, 3)
    inventory.acknowledge(first)
    inventory.acknowledge(first)
    assert inventory.backlog() == 1


def test_what_is_told_on_several_partitions_is_acknowledged_for_each(inventory: Core, tmp_path: Path) -> None:
    """Of one batch, what one partition has acknowledged is forgotten, and what another hasn't is kept."""
    batch = [reserve(number, quantity=1, partition=number % 2) for number in range(1, 5)]
    odd, even, *more = inventory.process(batch, NOW)
    inventory.acknowledge([odd, more[0]])
    assert inventory.unsent([0, 1]) == [even, more[1]]
    inventory.tidy()
    again = reopened(inventory, tmp_path)
    assert again.unsent([0, 1]) == [even, more[1]]
    again.database.close()


def test_a_long_outbox_is_read_in_pages(inventory: Core, tmp_path: Path) -> None:
    """After a long outage, all that is left is read little by little, whole transactions, in their order."""
    decided = [
        inventory.process([reserve(2 * number, quantity=1), reserve(2 * number + 1, quantity=1)], NOW)
        for number in range(45)
    ]
    again = reopened(inventory, tmp_path)
    read = list(pages(again, [0]))
    assert [record for page in read for record in page] == [record for batch in decided for record in batch]
    assert [len(page) for page in read] == [40, 40, 10]
    assert again.backlog() == 90
    again.database.close()


def test_a_sweep_of_the_outbox_ends(inventory: Core) -> None:
    """What is added while it is read isn't its business: of a busy service, there would be no end."""
    left = [record for number in range(3) for record in submitted(inventory, number)]
    until = inventory.latest_parcel()
    later = submitted(inventory, 3)
    assert inventory.unsent([0], 0, until) == left
    assert inventory.unsent([0], left[-1].parcel, until) == []
    assert inventory.unsent([0], left[-1].parcel) == later


def test_a_page_of_the_outbox_may_be_acknowledged_already(inventory: Core) -> None:
    """However much of the outbox is acknowledged and not dropped yet, what comes after that is found."""
    sent = [record for number in range(45) for record in submitted(inventory, number)]
    left = [record for number in range(45, 50) for record in submitted(inventory, number)]
    inventory.acknowledge(sent)
    assert [record for page in pages(inventory, [0]) for record in page] == left
    assert inventory.backlog() == 5


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
        lambda connection, *_: connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 2_500),
    )
    with inventory.database.write() as transaction:
        for number in range(4_000):
            inventory.acknowledge(inventory.submit(transaction, [(reservation(number), 0)], NOW))
    assert inventory.unsent([0]) == []
    assert inventory.backlog() == 0
    assert counts(inventory)[1] == 4_000
    inventory.tidy()
    assert counts(inventory)[1] == 0


def test_tidying_forgets_what_is_acknowledged(inventory: Core, tmp_path: Path) -> None:
    """Where no batch comes, the outbox is cleaned up on its own, once."""
    inventory.acknowledge(inventory.process([reserve(1)], NOW))
    inventory.tidy()
    inventory.tidy()
    assert (counts(inventory)[1], inventory.backlog()) == (0, 0)
    again = reopened(inventory, tmp_path)
    assert again.unsent([0]) == []
    again.database.close()


def test_trying_to_write_leaves_nothing_behind(inventory: Core) -> None:
    """The database is asked whether it takes anything, again and again, and holds nothing more for it."""
    for _ in range(2):
        inventory.try_to_write()
    assert counts(inventory) == (0, 0, 0)
    inventory.process([reserve()], NOW)
    inventory.try_to_write()
    assert counts(inventory) == (1, 1, 1)


def test_trying_to_write_tells_of_a_database_that_takes_nothing(inventory: Core) -> None:
    """Where it can only be read, that shows though there is nothing to do."""
    event.listen(
        inventory.database.engine,
        "checkout",
        lambda connection, *_: connection.execute("PRAGMA query_only = 1"),
    )
    with pytest.raises(OperationalError, match="readonly"):
        inventory.try_to_write()


def test_a_service_that_looks_again_has_something_to_do_at_once(inventory: Core) -> None:
    """A new core looks what there is, then knows that there is nothing, until it is to look again."""
    assert inventory.due_in(NOW) == 0
    assert inventory.wake(range(PARTITIONS), NOW) == []
    assert inventory.due_in(NOW) == float("inf")
    inventory.look_again()
    assert inventory.due_in(NOW) == 0


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
    with pytest.raises(BatchFailedError), order.database.write() as transaction:  # noqa: PT012 - both belong to it
        assert len(order.submit(transaction, [(place_order(), 1)], NOW)) == 1
        raise BatchFailedError
    assert counts(order) == (0, 0, 0)
    assert rows_of(order) == {"orders": []}


def test_a_submitted_order_begins_its_own_chain(order: Core) -> None:
    """The first message of an order is caused by the order itself, and goes where its key belongs."""
    with order.database.write() as transaction:
        [started] = order.submit(transaction, [(place_order(), 1)], NOW)
    envelope = open_envelope(delivered(started))
    assert (started.topic, started.partition, envelope.type) == ("saga.commands", 1, "SagaStarted")
    assert (envelope.causation_id, envelope.correlation_id) == (order_id(1), order_id(1))
    assert order.unsent([1]) == [started]


def test_commands_that_are_submitted_together_are_decided_in_their_order(order: Core) -> None:
    """Of several, each meets what those before it have made, and goes where its own key belongs."""
    commands = [
        (place_order(1), 1),
        (place_order(2), 0),
        (CancelOrder(order_id=order_id(1)), 1),
        (RetryCompensation(order_id=order_id(2)), 0),
    ]
    with order.database.write() as transaction:
        outgoing = order.submit(transaction, commands, NOW)
    assert [(type(message).__name__, message.order_id) for message in told(outgoing)] == [
        ("SagaStarted", order_id(1)),
        ("SagaStarted", order_id(2)),
        ("CancelSaga", order_id(1)),
    ]
    assert [record.partition for record in outgoing] == [1, 0, 1]
    assert order.unsent([1]) == [outgoing[0], outgoing[2]]
    assert order.counts == counters(order) == {"late": 1}


def test_nothing_that_is_submitted_does_nothing(order: Core) -> None:
    """A request that asks for nothing is answered with nothing, and leaves nothing behind."""
    with order.database.write() as transaction:
        assert order.submit(transaction, [], NOW) == []
    assert counts(order) == (0, 0, 0)


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

STOCK: Final = {"laptop": 10, "phone": 1}
REQUESTS: Final = {
    "happy": place_order(1, quantity=2),
    "declined": place_order(2, quantity=6, price=100_00),
    "out of stock": place_order(3, item="phone", quantity=2),
    "unknown item": place_order(4, item="unicorn"),
}
NUMBERS: Final = {name: number for number, name in enumerate(REQUESTS, 1)}
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


@MODES
@pytest.mark.parametrize("name", REQUESTS)
def test_a_saga_runs_to_its_end(mode: Mode, name: str, tmp_path: Path) -> None:
    """Each order ends as it must, in both modes alike."""
    pump = Pump(mode, tmp_path, STOCK)
    run_all(pump, name)
    assert end_of(pump.state(), NUMBERS[name]) == ENDS[name]
    assert sum(row[1] for row in pump.state()["inventory"]["stock"]) == (9 if name == "happy" else 11)
    pump.close()


@MODES
def test_nothing_waits_when_all_is_done(mode: Mode, tmp_path: Path) -> None:
    """At the end no record is unpublished, refused or ignored, and no deadline is left."""
    pump = Pump(mode, tmp_path, STOCK)
    run_all(pump, *REQUESTS)
    for core in pump.cores.values():
        assert core.backlog() == 0
        assert set(core.counts) <= {"consumed", "skipped"}
        assert not core.expects(range(PARTITIONS))
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
    assert {name: end_of(pump.state(), NUMBERS[name]) for name in REQUESTS} == ENDS
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
