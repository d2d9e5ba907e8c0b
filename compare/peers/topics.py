"""The topics of the peer that uses a broker, known without its framework, since others create them."""

from __future__ import annotations

from typing import Final

from common.messages import (
    InventoryRejected,
    InventoryReleased,
    InventoryReserved,
    Message,
    OrderCompleted,
    OrderCreated,
    OrderFailed,
    PaymentDeclined,
    PaymentProcessed,
)

TOPICS: Final[dict[type[Message], str]] = {
    OrderCreated: "order.created",
    InventoryReserved: "inventory.reserved",
    InventoryRejected: "inventory.rejected",
    InventoryReleased: "inventory.released",
    PaymentProcessed: "payment.processed",
    PaymentDeclined: "payment.declined",
    OrderCompleted: "order.completed",
    OrderFailed: "order.failed",
}
"""By event: its topic, to which the prefix of a run is added."""
