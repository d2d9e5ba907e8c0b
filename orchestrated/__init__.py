"""The orchestrated mode: a central orchestrator commands the services and hears their answers."""

from __future__ import annotations

from typing import Final

from common.messages import OrderCompensationFailed, OrderCompleted, OrderFailed
from common.wiring import Mode
from orchestrated import inventory, orchestrator, order, payment

MODE: Final = Mode(
    name="orchestrated",
    services=(order.WIRING, orchestrator.WIRING, inventory.WIRING, payment.WIRING),
    final=frozenset({OrderCompleted, OrderFailed, OrderCompensationFailed}),
)
