"""The choreographed mode: services react to each other's events, and nobody holds the whole."""

from __future__ import annotations

from typing import Final

from choreographed import inventory, order, payment
from common.messages import OrderCompensationFailed, OrderCompleted, OrderFailed
from common.wiring import Mode

MODE: Final = Mode(
    name="choreographed",
    services=(order.WIRING, inventory.WIRING, payment.WIRING),
    final=frozenset({OrderCompleted, OrderFailed, OrderCompensationFailed}),
)
