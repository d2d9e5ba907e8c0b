"""The three domain services, as both modes share them: decider, tables, and what each command may lead to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from common.domain import inventory, order, payment
from common.domain.inventory import Inventory, Reservation, Stock
from common.domain.order import Order
from common.domain.payment import Payment
from common.envelope import timestamp
from common.messages import CompleteOrder, FailOrder
from common.store.database import Database
from common.store.repository import RowPerOrder, StockRoom
from common.store.rows import LoadedRows, RowTable
from common.wiring import Domain

ORDERS: Final = RowTable(Order, "orders")
STOCK: Final = RowTable(Stock, "stock")
RESERVATIONS: Final = RowTable(Reservation, "reservations")
PAYMENTS: Final = RowTable(Payment, "payments")

ORDER: Final[Domain[Order | None]] = Domain(
    "order",
    order.decide,
    order.ANSWERS,
    RowPerOrder(ORDERS),
    requests=frozenset(order.REQUESTS),
    insists_on=frozenset({CompleteOrder, FailOrder}),
)
INVENTORY: Final[Domain[Inventory]] = Domain(
    "inventory",
    inventory.decide,
    inventory.ANSWERS,
    StockRoom(STOCK, RESERVATIONS),
    gives_up_with=inventory.GIVES_UP_WITH,
)
PAYMENT: Final[Domain[Payment | None]] = Domain(
    "payment", payment.decide, payment.ANSWERS, RowPerOrder(PAYMENTS), gives_up_with=payment.GIVES_UP_WITH
)


def fill_stock(database: Database, stock: Mapping[str, int]) -> None:
    """Put items on the shelves that have no row yet; a row that is there is left as it is.

    Alone, so that two instances that start at once don't both see them missing.
    """
    rows = LoadedRows(STOCK)
    with database.write_alone() as transaction:
        rows.load(transaction, stock)
        for item, available in stock.items():
            if rows.get(item) is None:
                rows.put(Stock(item, available))
        rows.save(transaction, timestamp(datetime.now(UTC)))
