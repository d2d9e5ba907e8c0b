"""The Payment service, choreographed: it hears that goods are held, and charges for them."""

from __future__ import annotations

from typing import Final

from choreographed.topics import topic_of
from common.errors import UnreadableRecordError
from common.messages import (
    CancelPayment,
    InventoryReserved,
    OrderAborted,
    OrderCancelRequested,
    ProcessPayment,
    Reason,
    RefundPayment,
)
from common.services import PAYMENT
from common.wiring import Wiring, on


def process_payment(event: InventoryReserved) -> ProcessPayment:
    """The goods are held, so charge the customer; the event is all that is known here."""
    if event.charge is None:
        message = f"InventoryReserved for order {event.order_id} does not say what to charge."
        raise UnreadableRecordError(message)
    return ProcessPayment(
        order_id=event.order_id,
        customer_id=event.charge.customer_id,
        amount_cents=event.charge.amount_cents,
    )


def cancel_payment(event: OrderCancelRequested) -> CancelPayment:
    """The customer wants out: that is still possible unless the customer is charged already."""
    return CancelPayment(order_id=event.order_id, reason=Reason.CANCELLED)


def refund_payment(event: OrderAborted) -> RefundPayment:
    """Compensation begins with the last step, which is ours."""
    return RefundPayment(order_id=event.order_id, reason=event.reason)


WIRING: Final = Wiring(
    mode="choreographed",
    domain=PAYMENT,
    port=8032,
    topic_of=topic_of,
    reactions=(
        on(InventoryReserved, process_payment),
        on(OrderCancelRequested, cancel_payment),
        on(OrderAborted, refund_payment),
    ),
)
