"""A few orders of each kind that peers are tested with, and what has to become of them."""

from __future__ import annotations

from typing import Final

from uuid_utils import uuid7

from common.domain.order import OrderStatus
from common.messages import PlaceOrder, Reason
from compare.bench.subject import Expected

STOCK: Final = {"laptop": 1_000, "phone": 1_000}
PRICE_CENTS: Final = 20_00
DECLINED_CENTS: Final = 900_00


def make_orders(count: int) -> dict[str, tuple[PlaceOrder, Expected]]:
    """Orders by id, each third of which can't be paid for."""
    orders = {}
    for number in range(count):
        declined = number % 3 == 2
        order = PlaceOrder(
            order_id=str(uuid7()),
            customer_id=f"customer-{number}",
            item=("laptop", "phone")[number % 2],
            quantity=1 + number % 2,
            price_cents=DECLINED_CENTS if declined else PRICE_CENTS,
        )
        orders[order.order_id] = order, expected(order)
    return orders


def expected(order: PlaceOrder) -> Expected:
    """What has to become of an order, if there is stock."""
    declined = order.price_cents == DECLINED_CENTS
    return Expected(
        status=OrderStatus.FAILED if declined else OrderStatus.COMPLETED,
        reason=Reason.PAYMENT_DECLINED if declined else None,
        item=order.item,
        quantity=order.quantity,
        amount_cents=order.total_cents,
    )
