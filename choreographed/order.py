"""The Order service, choreographed: it tells that an order was created, and hears the end from the others."""

from __future__ import annotations

from typing import Final

from choreographed.topics import topic_of
from common.domain.order import OrderStatus
from common.messages import (
    CompleteOrder,
    FailCompensation,
    FailOrder,
    InventoryRejected,
    InventoryReleased,
    InventoryReleaseFailed,
    PaymentProcessed,
    PaymentRefundFailed,
)
from common.recovery import Recovery
from common.services import ORDER
from common.wiring import Wiring, on


def complete_order(event: PaymentProcessed) -> CompleteOrder:
    """The payment is the last step, so its success completes the order."""
    return CompleteOrder(order_id=event.order_id)


def fail_order(event: InventoryRejected | InventoryReleased) -> FailOrder:
    """Nothing is held, or nothing any more: now the order may fail."""
    return FailOrder(order_id=event.order_id, reason=event.reason)


def fail_compensation(event: InventoryReleaseFailed | PaymentRefundFailed) -> FailCompensation:
    """Another service can't undo its step."""
    return FailCompensation(order_id=event.order_id, reason=event.reason)


WIRING: Final = Wiring(
    mode="choreographed",
    domain=ORDER,
    port=8002,
    topic_of=topic_of,
    reactions=(
        on(PaymentProcessed, complete_order),
        on(InventoryRejected, fail_order),
        on(InventoryReleased, fail_order),
        on(InventoryReleaseFailed, fail_compensation),
        on(PaymentRefundFailed, fail_compensation),
    ),
    # Nobody else sees the whole of an order, so nobody else can tell that it takes too long.
    deadlines={
        OrderStatus.PENDING: Recovery.order,
        OrderStatus.COMPENSATING: Recovery.undone_order,
        OrderStatus.COMPENSATION_FAILED: Recovery.operator,
    },
)
