"""The three domain services, as both modes share them: decider, tables, and what each command may lead to."""

from __future__ import annotations

from typing import Final

from common.domain import inventory, order, payment
from common.domain.inventory import Inventory, Reservation, Stock
from common.domain.order import Order
from common.domain.payment import Payment
from common.store.repository import RowPerOrder, StockRoom
from common.store.rows import RowTable
from common.wiring import Domain

ORDERS: Final = RowTable(Order, "orders")
STOCK: Final = RowTable(Stock, "stock")
RESERVATIONS: Final = RowTable(Reservation, "reservations")
PAYMENTS: Final = RowTable(Payment, "payments")

ORDER: Final[Domain[Order | None]] = Domain("order", order.decide, order.ANSWERS, RowPerOrder(ORDERS))
INVENTORY: Final[Domain[Inventory]] = Domain(
    "inventory", inventory.decide, inventory.ANSWERS, StockRoom(STOCK, RESERVATIONS)
)
PAYMENT: Final[Domain[Payment | None]] = Domain(
    "payment", payment.decide, payment.ANSWERS, RowPerOrder(PAYMENTS)
)
