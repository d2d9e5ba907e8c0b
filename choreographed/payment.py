"""The Payment service, choreographed: it hears that goods are held, and charges for them."""

from __future__ import annotations

from typing import Final

from choreographed.topics import topic_of
from common.errors import UnreadableRecordError
from common.messages import InventoryReserved, ProcessPayment
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


WIRING: Final = Wiring(
    mode="choreographed",
    domain=PAYMENT,
    port=8032,
    topic_of=topic_of,
    reactions=(on(InventoryReserved, process_payment),),
)
