"""The saga of an order as one table: the single place that knows the whole process.

Read a row as: *at* this state, *on* this event, go *to* that state and *send* that message. `late` lists what
may still come at a state and doesn't matter there any more. What has no row at all changes nothing; it is
counted and logged.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

from common.messages import (
    CancelPayment,
    CancelSaga,
    InventoryRejected,
    InventoryReleased,
    InventoryReleaseFailed,
    InventoryReserved,
    Overdue,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    PaymentRefundFailed,
    ProcessPayment,
    Reason,
    RefundPayment,
    RefuseSaga,
    ReleaseInventory,
    ReserveInventory,
    RetryCompensation,
    SagaCompensationFailed,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
    Step,
    TimedOut,
)
from common.process_table import ProcessTable, late, row

DEFINITION_VERSION: Final = 2
"""Raised when the table changes, so that sagas begun under an older one can be told apart."""


class SagaState(StrEnum):
    """Where a saga stands; COMPLETED and FAILED are final."""

    PENDING = "PENDING"
    RESERVING_INVENTORY = "RESERVING_INVENTORY"
    PROCESSING_PAYMENT = "PROCESSING_PAYMENT"
    COMPLETED = "COMPLETED"
    COMPENSATING = "COMPENSATING"
    COMPENSATION_FAILED = "COMPENSATION_FAILED"
    """An undo keeps failing: this waits for an operator."""
    FAILED = "FAILED"


class OrderSaga(Struct, frozen=True, array_like=True):
    """All that the orchestrator knows of one order's saga; one that ended before it began has no details."""

    order_id: str
    customer_id: str = ""
    item: str = ""
    quantity: int = 0
    price_cents: int = 0
    state: SagaState = SagaState.PENDING
    begun: tuple[str, ...] = ()
    """The steps that may have had an effect, in their order: what there is to undo.

    A step is entered before it is asked for, since a request without an answer may have succeeded."""
    reason: Reason | None = None
    definition_version: int = DEFINITION_VERSION

    @property
    def status(self) -> str:
        """The state, under the name that every service's rows have for it."""
        return self.state


def reserve_inventory(saga: OrderSaga) -> ReserveInventory:
    """The first step; its answer need carry nothing, since the saga row holds the rest."""
    return ReserveInventory(order_id=saga.order_id, item=saga.item, quantity=saga.quantity)


def process_payment(saga: OrderSaga) -> ProcessPayment:
    """The second step, and the pivot."""
    return ProcessPayment(
        order_id=saga.order_id,
        customer_id=saga.customer_id,
        amount_cents=saga.price_cents * saga.quantity,
    )


def cancel_payment(saga: OrderSaga) -> CancelPayment:
    """Ask for the second step not to be done; it is the Payment service that decides which was faster."""
    return CancelPayment(order_id=saga.order_id, reason=Reason.CANCELLED)


def saga_completed(saga: OrderSaga) -> SagaCompleted:
    """Tell that every step succeeded."""
    return SagaCompleted(order_id=saga.order_id)


def saga_failed(saga: OrderSaga) -> SagaFailed:
    """Tell that a step failed and nothing is left of those before it."""
    return SagaFailed(order_id=saga.order_id, reason=_reason(saga))


def undo_failed(saga: OrderSaga) -> SagaCompensationFailed:
    """Tell that something is left, and that it takes a person to mend that."""
    return SagaCompensationFailed(order_id=saga.order_id, reason=_reason(saga))


def compensate(saga: OrderSaga) -> ReleaseInventory | RefundPayment:
    """The undo of the latest step begun: compensation runs in reverse order, one awaited step at a time.

    Source: Garcia-Molina and Salem, "Sagas" (1987), section 2: T1 .. Tj, Cj .. C1.
    """
    if Step.PAY in saga.begun:
        return RefundPayment(order_id=saga.order_id, reason=_reason(saga))
    return ReleaseInventory(order_id=saga.order_id, reason=_reason(saga))


def _reason(saga: OrderSaga) -> Reason:
    if saga.reason is None:
        message = f"the saga of order {saga.order_id} has not failed"
        raise ValueError(message)
    return saga.reason


S: Final = SagaState
"""Short, so that a row fits its line."""

ORDER_SAGA: Final = ProcessTable(
    start=S.PENDING,
    ends=frozenset({S.COMPLETED, S.FAILED}),
    rows=(
    #   at                     on                      to                     send
    row(S.PENDING,             SagaStarted,            S.RESERVING_INVENTORY, reserve_inventory),
    # These come before a saga has begun, and leave a tombstone: one that is started later has ended already.
    row(S.PENDING,             CancelSaga,             S.FAILED,              saga_failed),
    row(S.PENDING,             RefuseSaga,             S.FAILED,              saga_failed),

    row(S.RESERVING_INVENTORY, InventoryReserved,      S.PROCESSING_PAYMENT,  process_payment),
    row(S.RESERVING_INVENTORY, InventoryRejected,      S.FAILED,              saga_failed),
    row(S.RESERVING_INVENTORY, Overdue,                S.RESERVING_INVENTORY, reserve_inventory),
    row(S.RESERVING_INVENTORY, TimedOut,               S.COMPENSATING,        compensate),
    row(S.RESERVING_INVENTORY, CancelSaga,             S.COMPENSATING,        compensate),
    *late(S.RESERVING_INVENTORY, SagaStarted, RefuseSaga),

    row(S.PROCESSING_PAYMENT,  PaymentProcessed,       S.COMPLETED,           saga_completed),
    row(S.PROCESSING_PAYMENT,  PaymentDeclined,        S.COMPENSATING,        compensate),
    row(S.PROCESSING_PAYMENT,  Overdue,                S.PROCESSING_PAYMENT,  process_payment),
    row(S.PROCESSING_PAYMENT,  TimedOut,               S.COMPENSATING,        compensate),
    row(S.PROCESSING_PAYMENT,  CancelSaga,             S.PROCESSING_PAYMENT,  cancel_payment),
    row(S.PROCESSING_PAYMENT,  PaymentRefunded,        S.COMPENSATING,        compensate),
    *late(S.PROCESSING_PAYMENT, SagaStarted, RefuseSaga, InventoryReserved, InventoryRejected),

    row(S.COMPENSATING,        PaymentRefunded,        S.COMPENSATING,        compensate),
    row(S.COMPENSATING,        InventoryReleased,      S.FAILED,              saga_failed),
    row(S.COMPENSATING,        Overdue,                S.COMPENSATING,        compensate),
    row(S.COMPENSATING,        TimedOut,               S.COMPENSATION_FAILED, undo_failed),
    row(S.COMPENSATING,        PaymentRefundFailed,    S.COMPENSATION_FAILED, undo_failed),
    row(S.COMPENSATING,        InventoryReleaseFailed, S.COMPENSATION_FAILED, undo_failed),
    # A late success needs no undo of its own: that has been asked for, behind the step in the same partition.
    *late(S.COMPENSATING, SagaStarted, RefuseSaga, CancelSaga, RetryCompensation),
    *late(S.COMPENSATING, InventoryReserved, InventoryRejected, PaymentProcessed, PaymentDeclined),

    row(S.COMPENSATION_FAILED, RetryCompensation,      S.COMPENSATING,        compensate),
    row(S.COMPENSATION_FAILED, PaymentRefunded,        S.COMPENSATING,        compensate),
    row(S.COMPENSATION_FAILED, InventoryReleased,      S.FAILED,              saga_failed),
    row(S.COMPENSATION_FAILED, SagaStarted,            S.COMPENSATION_FAILED, undo_failed),
    *late(S.COMPENSATION_FAILED, CancelSaga, InventoryReserved, InventoryRejected, PaymentProcessed),
    *late(S.COMPENSATION_FAILED, RefuseSaga, PaymentDeclined, InventoryReleaseFailed, PaymentRefundFailed),

    # An end is told again to whoever asks again, and is never left.
    row(S.COMPLETED,           SagaStarted,            S.COMPLETED,           saga_completed),
    *late(S.COMPLETED, RefuseSaga, CancelSaga, InventoryReserved, InventoryRejected),
    *late(S.COMPLETED, PaymentProcessed, PaymentDeclined, PaymentRefunded),
    row(S.FAILED,              SagaStarted,            S.FAILED,              saga_failed),
    row(S.FAILED,              RetryCompensation,      S.FAILED,              saga_failed),
    *late(S.FAILED, RefuseSaga, CancelSaga, InventoryReserved, InventoryRejected),
    *late(S.FAILED, PaymentProcessed, PaymentDeclined, PaymentRefunded, PaymentRefundFailed),
    *late(S.FAILED, InventoryReleased, InventoryReleaseFailed),
    ),
)  # fmt: skip
