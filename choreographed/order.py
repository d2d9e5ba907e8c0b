"""The Order service, choreographed: it tells that an order was created, and hears the end from the others."""

from __future__ import annotations

from typing import Final

from choreographed.topics import topic_of
from common.messages import (
    CompleteOrder,
    FailOrder,
    InventoryRejected,
    InventoryReleased,
    PaymentProcessed,
)
from common.services import ORDER
from common.wiring import Wiring, on


def complete_order(event: PaymentProcessed) -> CompleteOrder:
    """The payment is the last step, so its success completes the order."""
    return CompleteOrder(order_id=event.order_id)


def fail_order(event: InventoryRejected | InventoryReleased) -> FailOrder:
    """Nothing is held, or nothing any more: now the order may fail."""
    return FailOrder(order_id=event.order_id, reason=event.reason)


WIRING: Final = Wiring(
    mode="choreographed",
    domain=ORDER,
    port=8002,
    topic_of=topic_of,
    reactions=(
        on(PaymentProcessed, complete_order),
        on(InventoryRejected, fail_order),
        on(InventoryReleased, fail_order),
    ),
)
