"""The saga of an order as one table: the single place that knows the whole process.

Read a row as: *at* this state, *on* this event, go *to* that state and *send* that message. An event without
a row changes nothing; it is counted and logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from common.messages import (
    InventoryRejected,
    InventoryReleased,
    InventoryReserved,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    ProcessPayment,
    Reason,
    RefundPayment,
    ReleaseInventory,
    ReserveInventory,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
    Step,
)
from common.process_table import ProcessTable, row

DEFINITION_VERSION: Final = 1
"""Raised when the table changes, so that sagas begun under an older one can be told apart."""


class SagaState(StrEnum):
    """Where a saga stands; COMPLETED and FAILED are final."""

    PENDING = "PENDING"
    RESERVING_INVENTORY = "RESERVING_INVENTORY"
    PROCESSING_PAYMENT = "PROCESSING_PAYMENT"
    COMPLETED = "COMPLETED"
    COMPENSATING = "COMPENSATING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class OrderSaga:
    """All that the orchestrator knows of one order's saga."""

    order_id: str
    customer_id: str
    item: str
    quantity: int
    price_cents: int
    state: SagaState = SagaState.PENDING
    done: tuple[str, ...] = ()
    """The steps that have succeeded and are not undone, in the order in which they were done."""
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


def release_inventory(saga: OrderSaga) -> ReleaseInventory:
    """Undo the first step."""
    return ReleaseInventory(order_id=saga.order_id, reason=_reason(saga))


def refund_payment(saga: OrderSaga) -> RefundPayment:
    """Undo the second step."""
    return RefundPayment(order_id=saga.order_id, reason=_reason(saga))


def saga_completed(saga: OrderSaga) -> SagaCompleted:
    """Tell that every step succeeded."""
    return SagaCompleted(order_id=saga.order_id)


def saga_failed(saga: OrderSaga) -> SagaFailed:
    """Tell that a step failed and nothing is left of those before it."""
    return SagaFailed(order_id=saga.order_id, reason=_reason(saga))


def compensate(saga: OrderSaga) -> ReleaseInventory | RefundPayment:
    """The undo of the latest step that is still done: compensation runs in reverse order, one step at a time.

    Source: Garcia-Molina and Salem, "Sagas" (1987), section 2: T1 .. Tj, Cj .. C1.
    """
    return refund_payment(saga) if saga.done[-1] == Step.PAY else release_inventory(saga)


def _reason(saga: OrderSaga) -> Reason:
    if saga.reason is None:
        message = f"the saga of order {saga.order_id} has not failed"
        raise ValueError(message)
    return saga.reason


ORDER_SAGA: Final = ProcessTable(
    start=SagaState.PENDING,
    ends=frozenset({SagaState.COMPLETED, SagaState.FAILED}),
    rows=(
    #   at                             on                 to                             send
    row(SagaState.PENDING,             SagaStarted,       SagaState.RESERVING_INVENTORY, reserve_inventory),
    row(SagaState.RESERVING_INVENTORY, InventoryReserved, SagaState.PROCESSING_PAYMENT,  process_payment),
    row(SagaState.RESERVING_INVENTORY, InventoryRejected, SagaState.FAILED,              saga_failed),
    row(SagaState.PROCESSING_PAYMENT,  PaymentProcessed,  SagaState.COMPLETED,           saga_completed),
    row(SagaState.PROCESSING_PAYMENT,  PaymentDeclined,   SagaState.COMPENSATING,        compensate),
    row(SagaState.COMPENSATING,        PaymentRefunded,   SagaState.COMPENSATING,        compensate),
    row(SagaState.COMPENSATING,        InventoryReleased, SagaState.FAILED,              saga_failed),
    ),
)  # fmt: skip
