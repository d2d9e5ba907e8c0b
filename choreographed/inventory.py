"""The Inventory service, choreographed: it hears of new orders, and of payments that were declined."""

from __future__ import annotations

from typing import Final

from choreographed.topics import topic_of
from common.messages import (
    Charge,
    OrderCreated,
    PaymentDeclined,
    PaymentRefunded,
    ReleaseInventory,
    ReserveInventory,
)
from common.services import INVENTORY
from common.wiring import Wiring, on


def reserve_inventory(event: OrderCreated) -> ReserveInventory:
    """A new order wants its goods; its event must carry on what Payment, which hears only us, has to know."""
    charge = Charge(customer_id=event.customer_id, amount_cents=event.total_cents)
    return ReserveInventory(order_id=event.order_id, item=event.item, quantity=event.quantity, charge=charge)


def release_inventory(event: PaymentDeclined | PaymentRefunded) -> ReleaseInventory:
    """Compensation: another service's failure, or undo, makes us undo our own step, which came before it."""
    return ReleaseInventory(order_id=event.order_id, reason=event.reason)


WIRING: Final = Wiring(
    mode="choreographed",
    domain=INVENTORY,
    port=8022,
    topic_of=topic_of,
    reactions=(
        on(OrderCreated, reserve_inventory),
        on(PaymentDeclined, release_inventory),
        on(PaymentRefunded, release_inventory),
    ),
)
