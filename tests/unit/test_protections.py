"""Each protection is taken away in turn, and the harm that it prevents is done, and noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import structs
from sqlalchemy import Table, delete, literal_column, text

import choreographed
import orchestrated
from common.domain import inventory, order, payment
from common.domain.decision import Decision, Rules
from common.domain.inventory import Inventory, ReservationStatus
from common.envelope import Outgoing
from common.messages import (
    CancelOrder,
    CancelPayment,
    CompleteOrder,
    InventoryReleased,
    PaymentProcessed,
    ProcessPayment,
    ReleaseInventory,
    ReserveInventory,
    Step,
    TimedOut,
)
from common.store.schema import HISTORY, INBOX, OUTBOX
from common.wiring import Mode
from orchestrated.orchestrator import handle_event
from tests.pump import Pump, delivered, order_id, place_order
from tests.unit.records import MODES, Failing, check_books, end_of, losing

STOCK: Final = {"laptop": 10}
HOUR: Final = 3600
Decide = Callable[[Any, Any, Rules], Decision[Any]]


def deciding(mode: Mode, service: str, decide: Decide) -> Mode:
    """The mode with another decider for one of its services."""
    wiring = mode.service(service)
    return with_service(mode, replace(wiring, domain=replace(wiring.domain, decide=decide)))


def with_service(mode: Mode, service: Any) -> Mode:  # noqa: ANN401 - a wiring over whatever domain
    """The mode with one of its services replaced."""
    services = (service if one.name == service.name else one for one in mode.services)
    return replace(mode, services=tuple(services))


def without_deadlines(mode: Mode) -> Mode:
    """The mode, in which nobody waits for anything."""
    return replace(mode, services=tuple(replace(one, deadlines={}) for one in mode.services))


def forgetting(pump: Pump, table: Table) -> None:
    """Have the services' databases forget each row of a table as soon as it is there."""
    [key] = table.primary_key
    forget = str(delete(table).where(key == literal_column(f"NEW.{key.name}")))
    for core in pump.cores.values():
        with core.database.write() as transaction:
            transaction.execute(
                text(f"CREATE TRIGGER forgetful AFTER INSERT ON {table.name} BEGIN {forget}; END")
            )


def redeliver(pump: Pump) -> None:
    """Have every record consumed once more."""
    pump.broker.offsets.clear()
    pump.run()


def trusting(state: Inventory, command: Any, rules: Rules) -> Decision[Inventory]:  # noqa: ANN401 - as deciders are declared
    """A stock room that believes that each command comes once."""
    if isinstance(command, ReserveInventory) and state.reservation is not None:
        state = structs.replace(state, reservation=None)
    return inventory.decide(state, command, rules)


@MODES
def test_without_an_inbox_a_duplicate_has_a_second_effect(mode: Mode, tmp_path: Path) -> None:
    """A decider that isn't careful itself holds the goods twice, unless the inbox has dropped the copy."""
    pump = Pump(deciding(mode, "inventory", trusting), tmp_path, STOCK)
    pump.request([place_order(1)])
    pump.run()
    redeliver(pump)
    check_books(pump, STOCK, [1])
    for core in pump.cores.values():
        with core.database.write() as transaction:
            transaction.execute(INBOX.delete())
    redeliver(pump)
    with pytest.raises(AssertionError):
        check_books(pump, STOCK, [1])
    pump.close()


@MODES
@pytest.mark.parametrize("forgotten", [HISTORY, OUTBOX], ids=["with outbox", "without"])
def test_without_an_outbox_a_crash_loses_what_was_decided(
    mode: Mode, forgotten: Table, tmp_path: Path
) -> None:
    """What was committed but not published when all died is never told, and its order never ends."""
    pump = Pump(without_deadlines(mode), tmp_path / "before", STOCK)
    if forgotten is OUTBOX:
        forgetting(pump, OUTBOX)
    pump.request([place_order(1)])
    next(step for step in pump.steps() if step.endswith("inventory has committed"))
    after = pump.after_crash(tmp_path / "after")
    after.run(HOUR)
    assert end_of(after.state())[0] == ("PENDING" if forgotten is OUTBOX else "COMPLETED")
    after.close()
    pump.close()


@MODES
def test_without_deadlines_a_lost_reply_is_waited_for_for_ever(mode: Mode, tmp_path: Path) -> None:
    """With them, the order completes; see test_deadlines.py."""
    pump = Pump(without_deadlines(mode), tmp_path, STOCK, wire=losing(PaymentProcessed))
    pump.request([place_order(1)])
    pump.run(24 * HOUR)
    assert end_of(pump.state()) == ("PENDING", None, "RESERVED", "CHARGED")
    pump.close()


@MODES
def test_without_attempts_a_question_that_is_asked_again_is_taken_for_a_duplicate(
    mode: Mode, tmp_path: Path
) -> None:
    """The inbox can't tell the question from its copy, so the answer that was lost is never told again."""
    lossy = losing(PaymentProcessed)

    def wire(record: Outgoing) -> Iterable[Outgoing]:
        headers = tuple(header for header in record.headers if header[0] != "ce_attempt")
        return lossy(structs.replace(record, headers=headers))

    pump = Pump(mode, tmp_path, STOCK, wire=wire)
    pump.request([place_order(1)])
    pump.run(HOUR)
    assert end_of(pump.state())[:2] != ("COMPLETED", None)
    pump.close()


def without_tombstone(state: Inventory, command: Any, rules: Rules) -> Decision[Inventory]:  # noqa: ANN401 - as deciders are declared
    """A stock room that forgets an undo which had nothing to undo."""
    decision = inventory.decide(state, command, rules)
    unneeded = isinstance(command, ReleaseInventory) and state.reservation is None
    return replace_state(decision, state) if unneeded else decision


def replace_state(decision: Decision[Any], state: object) -> Decision[Any]:
    """What is told, without what is kept."""
    return Decision(state, decision.messages)


@pytest.mark.parametrize("decide", [inventory.decide, without_tombstone])
def test_without_a_tombstone_a_late_action_leaks_stock(decide: Decide, tmp_path: Path) -> None:
    """The undo overtakes the action, which is tried again: its goods are held by an order that has failed."""
    probe = Failing(ReserveInventory, times=1)
    pump = Pump(deciding(orchestrated.MODE, "inventory", decide), tmp_path, STOCK, probe=lambda _: probe)
    pump.request([place_order(1), CancelOrder(order_id=order_id(1))])
    pump.run(HOUR)
    assert end_of(pump.state())[:2] == ("FAILED", "cancelled")
    if decide is inventory.decide:
        check_books(pump, STOCK, [1])
    else:
        assert end_of(pump.state())[2] == "RESERVED"
        with pytest.raises(AssertionError):
            check_books(pump, STOCK, [1])
    pump.close()


@MODES
def test_a_cancel_that_is_not_remembered_charges_for_a_cancelled_order(mode: Mode, tmp_path: Path) -> None:
    """Where the Payment service only says that it won't charge, but does, services disagree on the winner."""

    def decide(state: Any, command: Any, rules: Rules) -> Decision[Any]:  # noqa: ANN401 - as deciders are declared
        decision = payment.decide(state, command, rules)
        return replace_state(decision, state) if isinstance(command, CancelPayment) else decision

    probe = Failing(ProcessPayment, times=1)
    pump = Pump(deciding(mode, "payment", decide), tmp_path, STOCK, probe=lambda _: probe)
    pump.request([place_order(1)])
    for step in pump.steps(HOUR):
        if probe.failed and step.endswith("payment has moved its offsets"):
            break
    pump.request([CancelOrder(order_id=order_id(1))])
    pump.run(HOUR)
    assert end_of(pump.state()) == ("FAILED", "cancelled", "RELEASED", "CHARGED")
    with pytest.raises(AssertionError):
        check_books(pump, STOCK, [1])
    pump.close()


def test_a_deadline_that_leaves_out_its_own_step_charges_for_a_failed_order(tmp_path: Path) -> None:
    """A request without an answer may have succeeded: to undo only what was answered is not enough."""

    def decide(saga: Any, event: Any, rules: Rules) -> Decision[Any]:  # noqa: ANN401 - as deciders are declared
        if isinstance(event, TimedOut):
            saga = structs.replace(saga, begun=tuple(step for step in saga.begun if step != Step.PAY))
        return handle_event(saga, event, rules)

    pump = Pump(
        deciding(orchestrated.MODE, "orchestrator", decide),
        tmp_path,
        STOCK,
        wire=losing(PaymentProcessed, times=float("inf")),
    )
    pump.request([place_order(1)])
    pump.run(HOUR)
    assert end_of(pump.state()) == ("FAILED", "timed_out", "RELEASED", "CHARGED")
    with pytest.raises(AssertionError):
        check_books(pump, STOCK, [1])
    pump.close()


def test_a_late_success_that_revives_an_order_completes_it_without_its_goods(tmp_path: Path) -> None:
    """In choreography, an order that was given up must not be completed by what comes late."""

    def decide(state: Any, command: Any, rules: Rules) -> Decision[Any]:  # noqa: ANN401 - as deciders are declared
        if state is not None and isinstance(command, CompleteOrder):
            state = structs.replace(state, status=order.OrderStatus.PENDING)
        return order.decide(state, command, rules)

    held_up = []

    def wire(record: Outgoing) -> Iterable[Outgoing]:
        if dict(record.headers)["ce_type"] != b"PaymentProcessed":
            return (record,)
        held_up.append(record)
        return ()

    pump = Pump(deciding(choreographed.MODE, "order", decide), tmp_path, STOCK, wire=wire)
    pump.request([place_order(1)])
    pump.run(HOUR)
    check_books(pump, STOCK, [1])
    late = held_up[0]
    log = pump.broker.logs[late.topic, late.partition]
    log.append(delivered(late, len(log)))
    pump.run(HOUR)
    assert end_of(pump.state()) == ("COMPLETED", "timed_out", "RELEASED", "REFUNDED")
    with pytest.raises(AssertionError):
        check_books(pump, STOCK, [1])
    pump.close()


def test_an_end_that_is_not_insisted_on_takes_back_what_was_paid_for(tmp_path: Path) -> None:
    """Past the pivot, giving up to complete an order means to undo it, though all of it has succeeded."""
    service = choreographed.MODE.service("order")
    giving_up = replace(service, domain=replace(service.domain, insists_on=frozenset()))
    probe = Failing(CompleteOrder)
    pump = Pump(with_service(choreographed.MODE, giving_up), tmp_path, STOCK, probe=lambda _: probe)
    pump.request([place_order(1)])
    pump.run(HOUR)
    assert end_of(pump.state()) == ("FAILED", "timed_out", "RELEASED", "REFUNDED")
    pump.close()


def test_stock_that_is_given_back_twice_is_noticed(tmp_path: Path) -> None:
    """The books are checked from the rows alone, so goods out of nothing don't go unseen."""

    def decide(state: Inventory, command: Any, rules: Rules) -> Decision[Inventory]:  # noqa: ANN401 - as deciders are declared
        if isinstance(command, ReleaseInventory) and state.reservation is not None:
            held = structs.replace(state.reservation, status=ReservationStatus.RESERVED)
            state = structs.replace(state, reservation=held)
        return inventory.decide(state, command, rules)

    pump = Pump(
        deciding(orchestrated.MODE, "inventory", decide),
        tmp_path,
        STOCK,
        wire=losing(InventoryReleased, times=2),
    )
    pump.request([place_order(1, price=400_00)])
    pump.run()
    assert end_of(pump.state())[2] == "RELEASED"
    pump.run(HOUR)
    with pytest.raises(AssertionError):
        check_books(pump, STOCK, [1])
    pump.close()
