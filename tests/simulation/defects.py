"""Defects to plant in the services: small mistakes, each of a kind that somebody makes one day.

Each is planted into the code that runs, and nothing else is changed: what the simulation is asked then is
whether it sees what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pytest

import choreographed.payment
import common.batch
import common.core
import common.domain.inventory
import common.domain.order
import common.domain.payment
import common.recovery
import common.store.runtime
import common.wiring
import orchestrated.orchestrator
from common.batch import Batch, Service, Task, Unreadable
from common.core import Core
from common.domain.decision import Decision
from common.domain.inventory import Inventory, Reservation, ReservationStatus, Stock
from common.domain.order import Order, OrderStatus
from common.domain.payment import Payment, PaymentStatus
from common.envelope import Cause, Outgoing
from common.errors import PermanentError
from common.messages import (
    CancelPayment,
    CancelSaga,
    Charge,
    CompleteOrder,
    FailOrder,
    InventoryRejected,
    InventoryReleased,
    InventoryReleaseFailed,
    InventoryReserved,
    Message,
    OrderCancelRequested,
    OrderCreated,
    Overdue,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    PaymentRefundFailed,
    ProcessPayment,
    Reason,
    RefundPayment,
    ReleaseInventory,
    ReserveInventory,
    RetryCompensation,
    SagaStarted,
    Step,
    TimedOut,
)
from common.process_table import ProcessTable, Row, late, row
from common.recovery import Limit
from common.store import journal
from common.store.rows import LoadedRows
from common.store.runtime import Deadline, Deadlines
from common.wiring import Mode, Reaction, on
from compare.simulation.drive import Anomaly
from orchestrated.saga import (
    ORDER_SAGA,
    OrderSaga,
    SagaState,
    compensate,
    process_payment,
    saga_completed,
    saga_failed,
)

Plant = Callable[[pytest.MonkeyPatch, Mode], Mode | None]
"""Plants a defect, and returns the mode that has it if that is not the same one."""

BOTH: Final = ("orchestrated", "choreographed")
ORCHESTRATED: Final = ("orchestrated",)
CHOREOGRAPHED: Final = ("choreographed",)
S: Final = SagaState
A: Final = Anomaly

inventory, payment, order = common.domain.inventory, common.domain.payment, common.domain.order


@dataclass(frozen=True)
class Defect:
    """A mistake, where it can show, and what comes of it: one of these anomalies is found first."""

    name: str
    plant: Plant
    modes: tuple[str, ...]
    anomalies: frozenset[Anomaly]
    orders: int
    """The most orders that it takes to show it."""
    actions: int
    """The longest schedule that it takes."""

    def planted(self, patch: pytest.MonkeyPatch, mode: Mode) -> Mode:
        """The mode that has it."""
        return self.plant(patch, mode) or mode


DEFECTS: Final[list[Defect]] = []


def defect(
    name: str, *anomalies: Anomaly, modes: tuple[str, ...] = BOTH, orders: int = 1, actions: int = 4
) -> Callable[[Plant], Plant]:
    """Enter a defect into the list."""

    def enter(plant: Plant) -> Plant:
        DEFECTS.append(Defect(name, plant, modes, frozenset(anomalies), orders, actions))
        return plant

    return enter


# The deciders. What a cancel leaves behind matters only where it can overtake the charge. An orchestrator
# sends both on one partition, so there the charge has to be tried again just then, which is too rare here.


def _with_move(
    patch: pytest.MonkeyPatch,
    at: tuple[OrderStatus, type[Message]],
    move: Callable[[Order, Reason], Decision[Order | None]],
) -> None:
    moves: dict[tuple[OrderStatus, type[Message]], object] = {**order._MOVES, at: move}
    patch.setattr(order, "_MOVES", moves)


@defect("the limit itself is above the limit", A.UNEXPLAINED)
def _limit_below(patch: pytest.MonkeyPatch, _: Mode) -> None:
    process = payment._process
    patch.setattr(payment, "_process", lambda known, command, limit: process(known, command, limit - 1))


@defect("nothing is above the limit", A.UNEXPLAINED)
def _no_limit(patch: pytest.MonkeyPatch, _: Mode) -> None:
    process = payment._process
    patch.setattr(payment, "_process", lambda known, command, _limit: process(known, command, 10**12))


@defect("the last piece is not sold", A.UNEXPLAINED)
def _last_piece_kept(patch: pytest.MonkeyPatch, _: Mode) -> None:
    reserve = inventory._reserve

    def keep_last(known: Inventory, command: ReserveInventory) -> Decision[Inventory]:
        stock = known.stock
        if known.reservation is None and stock is not None and stock.available <= command.quantity:
            return inventory._reject(known, command, Reason.OUT_OF_STOCK)
        return reserve(known, command)

    patch.setattr(inventory, "_reserve", keep_last)


@defect("one piece more is sold than there is", A.OVERSELL, A.UNEXPLAINED)
def _oversold(patch: pytest.MonkeyPatch, _: Mode) -> None:
    reserve = inventory._reserve

    def oversell(known: Inventory, command: ReserveInventory) -> Decision[Inventory]:
        stock = known.stock
        if known.reservation is None and stock is not None and stock.available + 1 == command.quantity:
            return Decision(
                Inventory(
                    Stock(stock.item, -1),
                    Reservation(command.order_id, ReservationStatus.RESERVED, command.item, command.quantity),
                ),
                (inventory._reserved(command, command.item, command.quantity),),
            )
        return reserve(known, command)

    patch.setattr(inventory, "_reserve", oversell)


@defect("what is reserved stays on the shelf", A.LEAKED_STOCK)
def _not_taken(patch: pytest.MonkeyPatch, _: Mode) -> None:
    reserve = inventory._reserve

    def leave(known: Inventory, command: ReserveInventory) -> Decision[Inventory]:
        decision = reserve(known, command)
        return decision._replace(state=Inventory(known.stock, decision.state.reservation))

    patch.setattr(inventory, "_reserve", leave)


@defect("a reservation that is asked for again is made again", A.LEAKED_STOCK)
def _reserved_again(patch: pytest.MonkeyPatch, _: Mode) -> None:
    reserve = inventory._reserve

    def again(known: Inventory, command: ReserveInventory) -> Decision[Inventory]:
        if known.status == ReservationStatus.RESERVED:
            return reserve(Inventory(known.stock), command)
        return reserve(known, command)

    patch.setattr(inventory, "_reserve", again)


@defect("a release gives nothing back", A.LEAKED_STOCK)
def _nothing_given_back(patch: pytest.MonkeyPatch, _: Mode) -> None:
    release = inventory._release

    def keep(known: Inventory, command: ReleaseInventory) -> Decision[Inventory]:
        decision = release(known, command)
        return decision._replace(state=Inventory(known.stock, decision.state.reservation))

    patch.setattr(inventory, "_release", keep)


@defect("a release that is asked for again gives back twice", A.LEAKED_STOCK)
def _given_back_twice(patch: pytest.MonkeyPatch, _: Mode) -> None:
    release = inventory._release

    def twice(known: Inventory, command: ReleaseInventory) -> Decision[Inventory]:
        held, decision = known.reservation, release(known, command)
        if held is None or held.status != ReservationStatus.RELEASED or known.stock is None:
            return decision
        more = Stock(known.stock.item, known.stock.available + held.quantity)
        return decision._replace(state=Inventory(more, held))

    patch.setattr(inventory, "_release", twice)


@defect("an unknown item is told to be out of stock", A.UNEXPLAINED)
def _wrong_reason(patch: pytest.MonkeyPatch, _: Mode) -> None:
    reject = inventory._reject
    patch.setattr(
        inventory, "_reject", lambda known, command, _reason: reject(known, command, Reason.OUT_OF_STOCK)
    )


@defect("a refund leaves the payment charged", A.LEAKED_MONEY)
def _not_refunded(patch: pytest.MonkeyPatch, _: Mode) -> None:
    refund = payment._refund

    def leave(known: Payment | None, command: RefundPayment | CancelPayment) -> Decision[Payment | None]:
        decision = refund(known, command)
        if known is not None and known.status is PaymentStatus.CHARGED:
            return decision._replace(state=known)
        return decision

    patch.setattr(payment, "_refund", leave)


@defect("a refund tells one cent less", A.MISTOLD)
def _wrong_amount(patch: pytest.MonkeyPatch, _: Mode) -> None:
    refunded = payment._refunded

    def less(known: Payment, reason: Reason) -> PaymentRefunded:
        told = refunded(known, reason)
        return msgspec.structs.replace(told, amount_cents=max(0, told.amount_cents - 1))

    patch.setattr(payment, "_refunded", less)


@defect("a cancel refunds what is charged already", A.UNPAID, A.UNEXPLAINED, A.MISTOLD, A.STUCK)
def _cancel_refunds(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(payment, "_cancel", payment._refund)


@defect("a cancel is forgotten", A.UNEXPLAINED, A.LEAKED_MONEY, A.UNPAID, A.MISTOLD, modes=CHOREOGRAPHED)
def _no_tombstone_of_money(patch: pytest.MonkeyPatch, _: Mode) -> None:
    refund = payment._refund

    def forget(known: Payment | None, command: RefundPayment | CancelPayment) -> Decision[Payment | None]:
        decision = refund(known, command)
        return decision._replace(state=None) if known is None else decision

    patch.setattr(payment, "_refund", forget)


@defect(
    "a payment that is refunded already is charged after all",
    A.LEAKED_MONEY,
    A.UNPAID,
    A.MISTOLD,
    modes=CHOREOGRAPHED,
)
def _charged_after_all(patch: pytest.MonkeyPatch, _: Mode) -> None:
    process = payment._process

    def charge(known: Payment | None, command: ProcessPayment, limit: int) -> Decision[Payment | None]:
        refunded = known is not None and known.status is PaymentStatus.REFUNDED
        return process(None if refunded else known, command, limit)

    patch.setattr(payment, "_process", charge)


@defect(
    "whatever is not declined is told to be paid",
    A.UNPAID,
    A.MISTOLD,
    A.BROKEN,
    A.UNEXPLAINED,
    modes=CHOREOGRAPHED,
)
def _told_to_be_paid(patch: pytest.MonkeyPatch, _: Mode) -> None:
    outcome = payment._outcome

    def tell(known: Payment) -> PaymentProcessed | PaymentDeclined:
        if known.status is PaymentStatus.REFUNDED:
            return PaymentProcessed(order_id=known.order_id, amount_cents=known.amount_cents or 1)
        return outcome(known)

    patch.setattr(payment, "_outcome", tell)


@defect(
    "an order completes though it is compensating",
    A.UNPAID, A.RESURRECTED, A.MISTOLD, modes=CHOREOGRAPHED, orders=2, actions=5)  # fmt: skip
def _completes_late(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_move(patch, (OrderStatus.COMPENSATING, CompleteOrder), order._complete)


@defect("an order completes though it has failed", A.RESURRECTED, A.UNPAID, modes=CHOREOGRAPHED)
def _completes_after_all(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_move(patch, (OrderStatus.FAILED, CompleteOrder), order._complete)


@defect("an order fails for the time that it took, whatever it fails for", A.UNEXPLAINED, A.MISTOLD)
def _always_timed_out(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(order, "_reason", lambda known, _command: known.reason or Reason.TIMED_OUT)


@defect("a failed order is told to be completed", A.MISTOLD)
def _wrong_end_told(patch: pytest.MonkeyPatch, _: Mode) -> None:
    complete = order._complete

    def fail(known: Order, reason: Reason) -> Decision[Order | None]:
        failed = msgspec.structs.replace(known, status=OrderStatus.FAILED, reason=reason)
        return Decision(failed, complete(known, reason).messages)

    _with_move(patch, (OrderStatus.PENDING, FailOrder), fail)


@defect("a cancel that was accepted is not passed on", A.UNEXPLAINED, A.MISTOLD)
def _cancel_dropped(patch: pytest.MonkeyPatch, _: Mode) -> None:
    def drop(known: Order, _reason: Reason) -> Decision[Order | None]:
        return Decision(known, late=True)

    _with_move(patch, (OrderStatus.PENDING, common.messages.CancelOrder), drop)


# The orchestrator's table.


def _with_rows(patch: pytest.MonkeyPatch, *rows: Row) -> None:
    """Replace rows of the saga's table; the table that comes of it must pass its own check."""
    instead = {(one.at, one.on): one for one in rows}
    kept = tuple(instead.pop((one.at, one.on), one) for one in ORDER_SAGA.rows)
    table = ProcessTable(ORDER_SAGA.start, ORDER_SAGA.ends, (*kept, *instead.values()))
    patch.setattr(orchestrated.orchestrator, "ORDER_SAGA", table)


@defect("a declined payment releases nothing", A.LEAKED_STOCK, modes=ORCHESTRATED)
def _no_release(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.PROCESSING_PAYMENT, PaymentDeclined, S.FAILED, saga_failed))


@defect("a payment that timed out undoes nothing", A.LEAKED_STOCK, A.LEAKED_MONEY, modes=ORCHESTRATED)
def _timed_out_without_undo(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.PROCESSING_PAYMENT, TimedOut, S.FAILED, saga_failed))


@defect("a reservation that timed out is not released", A.LEAKED_STOCK, modes=ORCHESTRATED)
def _reservation_not_undone(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.RESERVING_INVENTORY, TimedOut, S.FAILED, saga_failed))


@defect("a cancel while goods are reserved undoes nothing", A.LEAKED_STOCK, modes=ORCHESTRATED)
def _cancel_without_undo(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.RESERVING_INVENTORY, CancelSaga, S.FAILED, saga_failed))


@defect("after the refund, nothing is released", A.LEAKED_STOCK, modes=ORCHESTRATED)
def _only_refunded(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.COMPENSATING, PaymentRefunded, S.FAILED, saga_failed))


@defect("after a cancelled payment, nothing is released", A.LEAKED_STOCK, modes=ORCHESTRATED)
def _cancelled_and_kept(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.PROCESSING_PAYMENT, PaymentRefunded, S.FAILED, saga_failed))


@defect(
    "a saga completes though it is compensating", A.UNPAID, A.MISTOLD, A.STUCK, modes=ORCHESTRATED, actions=6
)
def _late_success(patch: pytest.MonkeyPatch, _: Mode) -> None:
    late_undos = late(S.COMPLETED, InventoryReleased, InventoryReleaseFailed, PaymentRefundFailed)
    success = row(S.COMPENSATING, PaymentProcessed, S.COMPLETED, saga_completed)
    again = row(S.COMPLETED, RetryCompensation, S.COMPLETED, saga_completed)
    _with_rows(patch, success, again, *late_undos)


@defect("a payment's success is taken for late", A.UNEXPLAINED, modes=ORCHESTRATED)
def _success_ignored(patch: pytest.MonkeyPatch, _: Mode) -> None:
    # The table's own check would refuse it: nothing ends well any more.
    (ignored,) = late(S.PROCESSING_PAYMENT, PaymentProcessed)
    patch.setitem(ORDER_SAGA._by_key, (str(ignored.at), ignored.on), ignored)


@defect("the end of an undo is taken for late", A.UNEXPLAINED, A.STUCK, modes=ORCHESTRATED)
def _undo_ignored(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, *late(S.COMPENSATING, InventoryReleased))


@defect("a rejected reservation is told as success", A.UNPAID, A.UNEXPLAINED, modes=ORCHESTRATED)
def _wrong_end(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.RESERVING_INVENTORY, InventoryRejected, S.FAILED, saga_completed))


@defect("a rejected reservation is charged for", A.UNPAID, A.UNEXPLAINED, modes=ORCHESTRATED)
def _charged_without_goods(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.RESERVING_INVENTORY, InventoryRejected, S.PROCESSING_PAYMENT, process_payment))


@defect("an end is not told again", A.STUCK, modes=ORCHESTRATED)
def _end_not_told_again(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, *late(S.COMPLETED, SagaStarted))


@defect("a release that failed is told as an end", A.LEAKED_STOCK, modes=ORCHESTRATED)
def _failure_told_as_end(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.COMPENSATING, InventoryReleaseFailed, S.FAILED, saga_failed))


@defect("an operator's word is not heard", A.STUCK, A.MISTOLD, modes=ORCHESTRATED)
def _operator_ignored(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, *late(S.COMPENSATION_FAILED, RetryCompensation))


@defect(
    "goods are released before money is refunded", A.LEAKED_MONEY, A.OTHER, A.UNEXPLAINED, modes=ORCHESTRATED
)
def _wrong_order(patch: pytest.MonkeyPatch, _: Mode) -> None:
    def undo_first(saga: OrderSaga) -> ReleaseInventory | RefundPayment:
        reason = saga.reason or Reason.TIMED_OUT
        if Step.RESERVE in saga.begun:
            return ReleaseInventory(order_id=saga.order_id, reason=reason)
        return RefundPayment(order_id=saga.order_id, reason=reason)

    rows = [replace(one, send=undo_first) for one in ORDER_SAGA.rows if one.send is compensate]
    release = row(S.COMPENSATING, InventoryReleased, S.COMPENSATING, undo_first)
    refund = row(S.COMPENSATING, PaymentRefunded, S.FAILED, saga_failed)
    for one in (*rows, release, refund):
        patch.setitem(ORDER_SAGA._by_key, (str(one.at), one.on), one)


@defect("a step that is undone is undone again and again", A.STUCK, modes=ORCHESTRATED)
def _never_undone(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(orchestrated.orchestrator, "_NOTHING_OF", {})


@defect("one piece is charged for, however many there are", A.UNPAID, modes=ORCHESTRATED)
def _one_piece_charged(patch: pytest.MonkeyPatch, _: Mode) -> None:
    def charge_one(saga: OrderSaga) -> ProcessPayment:
        return ProcessPayment(
            order_id=saga.order_id, customer_id=saga.customer_id, amount_cents=saga.price_cents
        )

    _with_rows(patch, row(S.RESERVING_INVENTORY, InventoryReserved, S.PROCESSING_PAYMENT, charge_one))


# The choreographed reactions.


def _with_reactions(
    mode: Mode, *, less: type[Message] | None = None, **instead: tuple[Reaction, ...]
) -> Mode:
    """Have services react otherwise, or not at all; the mode that comes of it must pass its own check."""
    services = []
    for wiring in mode.services:
        new = {one.message: one for one in instead.get(wiring.name, ())}
        kept = [new.pop(one.message, one) for one in wiring.reactions if one.message is not less]
        services.append(replace(wiring, reactions=(*kept, *new.values())))
    return replace(mode, services=tuple(services))


@defect("one piece is charged for, however many are told", A.UNPAID, modes=CHOREOGRAPHED)
def _one_piece_told(_: pytest.MonkeyPatch, mode: Mode) -> Mode:
    def reserve_inventory(event: OrderCreated) -> ReserveInventory:
        charge = Charge(customer_id=event.customer_id, amount_cents=event.price_cents)
        return ReserveInventory(
            order_id=event.order_id, item=event.item, quantity=event.quantity, charge=charge
        )

    return _with_reactions(mode, inventory=(on(OrderCreated, reserve_inventory),))


@defect("a release is told for another reason", A.UNEXPLAINED, A.MISTOLD, modes=CHOREOGRAPHED)
def _reason_lost(_: pytest.MonkeyPatch, mode: Mode) -> Mode:
    def release_inventory(event: PaymentDeclined) -> ReleaseInventory:
        return ReleaseInventory(order_id=event.order_id, reason=Reason.CANCELLED)

    return _with_reactions(mode, inventory=(on(PaymentDeclined, release_inventory),))


@defect("a declined payment fails the order, and releases nothing", A.LEAKED_STOCK, modes=CHOREOGRAPHED)
def _release_missing(_: pytest.MonkeyPatch, mode: Mode) -> Mode:
    def fail_order(event: PaymentDeclined) -> FailOrder:
        return FailOrder(order_id=event.order_id, reason=event.reason)

    return _with_reactions(mode, less=PaymentDeclined, order=(on(PaymentDeclined, fail_order),))


@defect("an order fails as soon as its payment is refunded", A.MISTOLD, A.LEAKED_STOCK, modes=CHOREOGRAPHED)
def _refund_ends_the_order(_: pytest.MonkeyPatch, mode: Mode) -> Mode:
    def fail_order(event: PaymentRefunded) -> FailOrder:
        return FailOrder(order_id=event.order_id, reason=event.reason)

    return _with_reactions(mode, less=PaymentRefunded, order=(on(PaymentRefunded, fail_order),))


@defect("a cancel is taken for a refund", A.UNPAID, modes=CHOREOGRAPHED)
def _cancel_is_refund(_: pytest.MonkeyPatch, mode: Mode) -> Mode:
    def cancel_payment(event: OrderCancelRequested) -> RefundPayment:
        return RefundPayment(order_id=event.order_id, reason=Reason.CANCELLED)

    return _with_reactions(mode, payment=(on(OrderCancelRequested, cancel_payment),))


@defect("an order completes once its goods are reserved", A.UNPAID, A.UNEXPLAINED, modes=CHOREOGRAPHED)
def _completes_early(_: pytest.MonkeyPatch, mode: Mode) -> Mode:
    def complete_order(event: InventoryReserved) -> CompleteOrder:
        return CompleteOrder(order_id=event.order_id)

    return _with_reactions(mode, order=(on(InventoryReserved, complete_order),))


@defect("an order waits for its undo without a deadline", A.STUCK, modes=CHOREOGRAPHED, orders=2, actions=9)
def _no_deadline_of_undo(_: pytest.MonkeyPatch, mode: Mode) -> Mode:
    services = [
        replace(
            wiring,
            deadlines={at: wait for at, wait in wiring.deadlines.items() if at != OrderStatus.COMPENSATING},
        )
        for wiring in mode.services
    ]
    return replace(mode, services=tuple(services))


# The core, and what it stores.


@defect("the inbox takes what is asked again for a duplicate", A.STUCK, A.UNEXPLAINED)
def _attempts_ignored(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(common.batch, "inbox_key", lambda message_id, _attempt: message_id)


@defect("the inbox forgets", A.REPEATED)
def _inbox_forgets(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(common.core, "first_seen", lambda _transaction, ids, _at: set(ids))


@defect("duplicates within a batch are not dropped", A.REPEATED, orders=2, actions=7)
def _duplicates_in_batch(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(Core, "_once", lambda _core, arrivals, fresh: [one for one in arrivals if one.key in fresh])


@defect("the outbox is not written", A.UNEXPLAINED, A.MISTOLD)
def _no_outbox(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(common.batch, "add_to_outbox", lambda _transaction, _outgoing: None)


@defect("what is left in the outbox is published for one partition only", A.UNEXPLAINED, A.MISTOLD)
def _partition_left(patch: pytest.MonkeyPatch, _: Mode) -> None:
    unsent = journal.unsent

    def of_the_last(transaction: Any, partitions: Sequence[int], *more: Any, **named: Any) -> list[Outgoing]:  # noqa: ANN401 - passed on
        return unsent(transaction, partitions[1:], *more, **named)

    patch.setattr(common.core, "unsent", of_the_last)


@defect("only the first page of the outbox is published", A.UNEXPLAINED, A.MISTOLD, orders=2)
def _page_left(patch: pytest.MonkeyPatch, _: Mode) -> None:
    unsent = journal.unsent

    def first_page(
        transaction: Any,  # noqa: ANN401 - passed on
        partitions: Sequence[int],
        after: int,
        _most: int,
        **named: Any,  # noqa: ANN401 - passed on
    ) -> list[Outgoing]:
        return [] if after else unsent(transaction, partitions, after, 1, **named)

    patch.setattr(common.core, "unsent", first_page)


@defect("retries are lost", A.UNEXPLAINED, A.STUCK)
def _retries_lost(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(common.batch, "add_retries", lambda _transaction, _retries: None)


@defect("retries of one partition are never taken", A.UNEXPLAINED, A.STUCK)
def _retries_left(patch: pytest.MonkeyPatch, _: Mode) -> None:
    take = journal.take_retries
    patch.setattr(
        common.core,
        "take_retries",
        lambda transaction, partitions, at, most: take(transaction, partitions[1:], at, most),
    )


@defect(
    "a retry is kept without its attempt", A.UNEXPLAINED, A.REPEATED, A.STUCK, modes=ORCHESTRATED, actions=6
)
def _retry_of_the_first_attempt(patch: pytest.MonkeyPatch, _: Mode) -> None:
    retry_later = Batch._retry_later

    def without_attempt(batch: Batch, task: Task, record: Any, tries: int, due: str) -> None:  # noqa: ANN401 - passed on
        retry_later(batch, task, record, tries, due)
        kept = batch._retries.pop()
        headers = tuple(pair for pair in kept.headers if pair[0] != "ce_attempt")
        batch._retries.append(kept._replace(headers=headers))

    patch.setattr(Batch, "_retry_later", without_attempt)


@defect("a deadline is not set", A.STUCK, A.UNEXPLAINED)
def _deadline_not_set(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(Deadlines, "put", lambda _deadlines, _deadline: None)


@defect("a deadline is not dropped", A.STUCK)
def _deadline_not_dropped(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(Deadlines, "drop", lambda _deadlines, _order_id: None)


@defect("a deadline is over when it is set", A.UNEXPLAINED, A.STUCK)
def _deadline_in_the_past(patch: pytest.MonkeyPatch, _: Mode) -> None:
    delay = Limit.delay

    def back(limit: Limit, tries: int, key: str) -> timedelta | None:
        wait = delay(limit, tries, key)
        return None if wait is None else -wait

    patch.setattr(Limit, "delay", back)


@defect("deadlines are never due", A.STUCK, A.UNEXPLAINED)
def _never_due(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(common.core, "due_deadlines", lambda *_given: [])


@defect("what comes next is forgotten once something was due", A.STUCK, A.UNEXPLAINED, orders=2)
def _next_forgotten(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(common.core, "next_due", lambda *_given: None)


@defect("when something is due is told without its zone", A.BROKEN)
def _due_without_zone(patch: pytest.MonkeyPatch, _: Mode) -> None:
    next_due = common.store.runtime.next_due

    def naive(transaction: Any, partitions: Sequence[int]) -> str | None:  # noqa: ANN401 - passed on
        due = next_due(transaction, partitions)
        return None if due is None else due.removesuffix("Z")

    patch.setattr(common.core, "next_due", naive)


@defect("something is always due", A.STUCK)
def _always_due(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(Core, "due_in", lambda _core, _now: 0.0)


@defect("nothing is ever due", A.STUCK)
def _nothing_due(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(Core, "due_in", lambda _core, _now: float("inf"))


@defect("the last try is not known for the last", A.STUCK, A.UNEXPLAINED)
def _never_the_last(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(Limit, "is_last", lambda _limit, _tries: False)


@defect("the first try is taken for the last", A.UNEXPLAINED, A.STUCK)
def _first_is_last(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(Limit, "is_last", lambda limit, _tries: limit.tries is not None)


@defect("what is asked for again has the attempt that it had", A.STUCK, A.UNEXPLAINED, A.REPEATED)
def _attempt_not_raised(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(
        Deadline,
        "again",
        lambda one: Cause(one.cause_id, one.correlation_id, one.trace_id, one.partition, one.attempt),
    )


@defect("what is asked for again goes to the last partition", A.OTHER)
def _wrong_partition(patch: pytest.MonkeyPatch, _: Mode) -> None:
    again = Deadline.again
    patch.setattr(Deadline, "again", lambda one: msgspec.structs.replace(again(one), partition=1))


@defect("what is asked for again is a new message", A.MISTOLD, A.OTHER, A.DOUBLE_CHARGE)
def _new_identity(patch: pytest.MonkeyPatch, _: Mode) -> None:
    again = Deadline.again
    patch.setattr(
        Deadline, "again", lambda one: msgspec.structs.replace(again(one), id=f"{one.cause_id}-again")
    )


def _with_header(patch: pytest.MonkeyPatch, name: str, value: Callable[[Outgoing], bytes]) -> None:
    seal = Batch._seal

    def sealed(batch: Batch, message: Message, because: Cause, index: int) -> Outgoing:
        told = seal(batch, message, because, index)
        told.headers = tuple((one, value(told) if one == name else old) for one, old in told.headers)
        return told

    patch.setattr(Batch, "_seal", sealed)


@defect("a message names itself as its cause", A.MISTOLD)
def _cause_wrong(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_header(patch, "ce_causationid", lambda told: told.id.encode())


@defect("a message names its kind as its saga", A.OTHER, A.MISTOLD)
def _correlation_wrong(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_header(patch, "ce_correlationid", lambda told: dict(told.headers)["ce_type"])


@defect("the history is not written", A.MISTOLD)
def _no_history(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(common.batch, "add_history", lambda _transaction, _changes: None)


@defect("a dead letter is counted and not sent", A.OTHER)
def _no_dead_letter(patch: pytest.MonkeyPatch, _: Mode) -> None:
    send = Batch._send_to_dead_letters

    def count(batch: Batch, *given: Any) -> None:  # noqa: ANN401 - passed on
        send(batch, *given)
        batch.outgoing.pop()

    patch.setattr(Batch, "_send_to_dead_letters", count)


@defect(
    "what can't be read takes the rest of its batch along",
    A.UNEXPLAINED,
    A.STUCK,
    A.MISTOLD,
    orders=2,
    modes=ORCHESTRATED,
)
def _neighbours_lost(patch: pytest.MonkeyPatch, _: Mode) -> None:
    run = Batch.run

    def until_unreadable(batch: Batch, tasks: Sequence[Task | Unreadable]) -> None:
        bad = next((at for at, task in enumerate(tasks) if isinstance(task, Unreadable)), len(tasks))
        run(batch, tasks[: bad + 1])

    patch.setattr(Batch, "run", until_unreadable)


@defect(
    "a failing command takes the rest of its batch along",
    A.UNEXPLAINED,
    A.STUCK,
    A.OTHER,
    A.MISTOLD,
    orders=3,
)
def _neighbours_fail(patch: pytest.MonkeyPatch, _: Mode) -> None:
    run, failed = Batch.run, Batch._failed
    gone: set[int] = set()

    def fail(batch: Batch, task: Task, error: Exception) -> None:
        gone.add(id(batch))
        failed(batch, task, error)

    attempt = Batch._try

    def unless_failed(batch: Batch, task: Task) -> None:
        if id(batch) not in gone:
            attempt(batch, task)

    def fresh(batch: Batch, tasks: Sequence[Task | Unreadable]) -> None:
        gone.clear()
        run(batch, tasks)

    patch.setattr(Batch, "_failed", fail)
    patch.setattr(Batch, "_try", unless_failed)
    patch.setattr(Batch, "run", fresh)


@defect("of two changes to a row in one batch, the first is kept", A.LEAKED_STOCK, A.MISTOLD, orders=2)
def _last_change_lost(patch: pytest.MonkeyPatch, _: Mode) -> None:
    put = LoadedRows.put

    def first_only(rows: LoadedRows[Any], changed: Any) -> None:  # noqa: ANN401 - rows differ by table
        if getattr(changed, rows._key) not in rows._changed:
            put(rows, changed)

    patch.setattr(LoadedRows, "put", first_only)


@defect(
    "a batch decides on the rows as they were",
    A.LEAKED_STOCK,
    A.UNEXPLAINED,
    A.RESURRECTED,
    A.MISTOLD,
    A.OVERSELL,
    orders=2,
)
def _rows_as_they_were(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(LoadedRows, "get", lambda rows, key: rows._stored.get(key))


@defect("all that a batch leads to has the cause of its first", A.MISTOLD, A.OTHER, A.REPEATED, orders=2)
def _causes_mixed_up(patch: pytest.MonkeyPatch, _: Mode) -> None:
    resumed, run = Batch._resumed, Batch.run
    first: list[Cause] = []

    def of_the_first(batch: Batch, task: Task) -> Cause:
        first.append(resumed(batch, task))
        return first[0]

    def fresh(batch: Batch, tasks: Sequence[Task | Unreadable]) -> None:
        first.clear()
        run(batch, tasks)

    patch.setattr(Batch, "_resumed", of_the_first)
    patch.setattr(Batch, "run", fresh)


@defect(
    "of two orders in one batch, the second has the first's row",
    A.MISTOLD,
    A.BROKEN,
    A.STUCK,
    A.OTHER,
    A.UNEXPLAINED,
    orders=2,
    actions=5,
)
def _orders_mixed_up(patch: pytest.MonkeyPatch, _: Mode) -> None:
    get = LoadedRows.get

    def any_row(rows: LoadedRows[Any], key: str) -> Any:  # noqa: ANN401 - rows differ by table
        found = get(rows, key)
        return found if found is None else next(iter(rows._stored.values()), found)

    patch.setattr(LoadedRows, "get", any_row)


@defect("what wakes is published and not kept", A.UNEXPLAINED, A.MISTOLD, actions=8, modes=ORCHESTRATED)
def _wake_without_outbox(patch: pytest.MonkeyPatch, _: Mode) -> None:
    wake = Core.wake

    def forgetful(core: Core, partitions: Sequence[int], now: datetime) -> list[Outgoing]:
        outgoing = wake(core, partitions, now)
        with core.database.write() as transaction:
            journal.forget_sent(transaction, {one.parcel for one in outgoing})
        return outgoing

    patch.setattr(Core, "wake", forgetful)


# What only somebody sees who knows all that has happened: what is told wrongly, or done too soon. These come
# last, so that the defects before them keep their numbers, by which some cases are always run.


@defect("a refund tells that there was nothing to give back", A.MISTOLD)
def _refund_of_nothing(patch: pytest.MonkeyPatch, _: Mode) -> None:
    refunded = payment._refunded
    patch.setattr(
        payment,
        "_refunded",
        lambda known, reason: msgspec.structs.replace(refunded(known, reason), amount_cents=0),
    )


@defect("a release tells that there was nothing to give back", A.MISTOLD)
def _release_of_nothing(patch: pytest.MonkeyPatch, _: Mode) -> None:
    released = inventory._released
    patch.setattr(
        inventory,
        "_released",
        lambda ended, command: msgspec.structs.replace(released(ended, command), item=None, quantity=0),
    )


@defect("another item is told to be reserved", A.MISTOLD)
def _wrong_item_told(patch: pytest.MonkeyPatch, _: Mode) -> None:
    reserved = inventory._reserved
    patch.setattr(
        inventory,
        "_reserved",
        lambda command, _item, quantity: reserved(command, command.order_id, quantity),
    )


@defect("a release that succeeds after all is taken for late", A.UNEXPLAINED, modes=ORCHESTRATED, actions=5)
def _late_release_ignored(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, *late(S.COMPENSATION_FAILED, InventoryReleased))


@defect("a cancel refunds a payment that is captured", A.UNEXPLAINED, modes=ORCHESTRATED)
def _captured_and_refunded(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_rows(patch, row(S.PROCESSING_PAYMENT, CancelSaga, S.COMPENSATING, compensate))


@defect("somebody else is charged", A.MISTOLD, modes=ORCHESTRATED)
def _another_customer(patch: pytest.MonkeyPatch, _: Mode) -> None:
    def charge_another(saga: OrderSaga) -> ProcessPayment:
        return msgspec.structs.replace(process_payment(saga), customer_id=saga.order_id)

    _with_rows(patch, row(S.RESERVING_INVENTORY, InventoryReserved, S.PROCESSING_PAYMENT, charge_another))


@defect("somebody else is charged than who is told", A.MISTOLD, modes=CHOREOGRAPHED)
def _another_customer_told(_: pytest.MonkeyPatch, mode: Mode) -> Mode:
    def charge_another(event: InventoryReserved) -> ProcessPayment:
        charged = choreographed.payment.process_payment(event)
        return msgspec.structs.replace(charged, customer_id=event.order_id)

    return _with_reactions(mode, payment=(on(InventoryReserved, charge_another),))


@defect("a retry forgets how often it was tried", A.REPEATED)
def _tries_forgotten(patch: pytest.MonkeyPatch, _: Mode) -> None:
    read = Core._read
    patch.setattr(Core, "_read", lambda core, record, _tries=0: read(core, record))


@defect(
    "an undo has the tries of the step before it", A.UNEXPLAINED, modes=ORCHESTRATED, orders=2, actions=11
)
def _tries_carried(patch: pytest.MonkeyPatch, _: Mode) -> None:
    arm = Batch._arm

    def carry(batch: Batch, command: Message, because: Cause, was: str, status: str) -> None:
        timed_out = isinstance(command, TimedOut)
        arm(batch, Overdue(order_id=command.order_id) if timed_out else command, because, was, status)

    patch.setattr(Batch, "_arm", carry)


@defect("an end that fails for good is given up", A.MISTOLD)
def _end_given_up(patch: pytest.MonkeyPatch, _: Mode) -> None:
    failed = Batch._failed

    def give_up(batch: Batch, task: Task, error: Exception) -> None:
        domain = batch._domain
        if isinstance(error, PermanentError):
            batch._domain = replace(domain, insists_on=frozenset())
        failed(batch, task, error)
        batch._domain = domain

    patch.setattr(Batch, "_failed", give_up)


@defect("what fails is tried once more than is allowed", A.MISTOLD, A.REPEATED)
def _one_try_more(patch: pytest.MonkeyPatch, _: Mode) -> None:
    failed = Batch._failed

    def persist(batch: Batch, task: Task, error: Exception) -> None:
        service, known = batch._service, batch._service.recovery
        more = replace(known, retry_tries=known.retry_tries + 1, undo_tries=known.undo_tries + 1)
        batch._service = replace(service, recovery=more)
        failed(batch, task, error)
        batch._service = service

    patch.setattr(Batch, "_failed", persist)


@defect("what fails is tried again at once", A.REPEATED)
def _tried_at_once(patch: pytest.MonkeyPatch, _: Mode) -> None:
    retry_later = Batch._retry_later

    def retry_now(batch: Batch, task: Task, record: Any, tries: int, _due: str) -> None:  # noqa: ANN401 - passed on
        retry_later(batch, task, record, tries, batch._at)

    patch.setattr(Batch, "_retry_later", retry_now)


@defect("what fails again and again is tried as soon as at first", A.REPEATED)
def _no_growth(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(common.recovery, "_GROWTH", 1)


@defect("nothing is decided in place of what can't be read", A.MISTOLD)
def _nothing_instead(patch: pytest.MonkeyPatch, _: Mode) -> None:
    bury = Batch._bury
    patch.setattr(
        Batch,
        "_bury",
        lambda batch, unreadable: bury(batch, msgspec.structs.replace(unreadable, command=None)),
    )


@defect("of what can't be read in a partition, only the first is noticed", A.MISTOLD, actions=6)
def _known_by_partition(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(Unreadable, "key", property(lambda one: f"00/{one.record.topic}/{one.record.partition}"))


@defect("a dead letter says that it was tried once less", A.MISTOLD)
def _wrong_tries_told(patch: pytest.MonkeyPatch, _: Mode) -> None:
    send = Batch._send_to_dead_letters
    patch.setattr(
        Batch,
        "_send_to_dead_letters",
        lambda batch, record, reason, error, tries: send(batch, record, reason, error, tries - 1),
    )


@defect("the history names the order as the cause", A.MISTOLD)
def _history_without_cause(patch: pytest.MonkeyPatch, _: Mode) -> None:
    add_history = journal.add_history
    patch.setattr(
        common.batch,
        "add_history",
        lambda transaction, changes: add_history(
            transaction, [one._replace(cause_id=one.order_id) for one in changes]
        ),
    )


@defect("a message names its order as its cause", A.MISTOLD)
def _cause_is_the_order(patch: pytest.MonkeyPatch, _: Mode) -> None:
    _with_header(patch, "ce_causationid", lambda told: dict(told.headers)["ce_subject"])


@defect("all that is told is told by the Order service", A.MISTOLD)
def _one_source(patch: pytest.MonkeyPatch, _: Mode) -> None:
    patch.setattr(Service, "source", property(lambda service: f"/{service.wiring.mode}/order"))
