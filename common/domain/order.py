"""The Order service: it takes orders on and ends each exactly once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from common.domain.decision import Decision, Rules
from common.messages import (
    CompleteOrder,
    FailOrder,
    Message,
    OrderCompleted,
    OrderCreated,
    OrderFailed,
    PlaceOrder,
    Reason,
)

ANSWERS: Final[dict[type[Message], tuple[type[Message], ...]]] = {
    PlaceOrder: (OrderCreated,),
    CompleteOrder: (OrderCompleted,),
    FailOrder: (OrderFailed,),
}


class OrderStatus(StrEnum):
    """Where an order stands; COMPLETED and FAILED are final."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Order:
    """An order; `price_cents` is the price of one piece."""

    order_id: str
    customer_id: str
    item: str
    quantity: int
    price_cents: int
    status: OrderStatus = OrderStatus.PENDING
    reason: Reason | None = None


def decide(
    order: Order | None, command: PlaceOrder | CompleteOrder | FailOrder, _: Rules
) -> Decision[Order | None]:
    """Take an order on, or end one that is pending; an unknown or ended order ignores the rest."""
    match order, command:
        case None, PlaceOrder():
            details = command.model_dump()
            return Decision(Order(**details), (OrderCreated(**details),))
        case Order(status=OrderStatus.PENDING), CompleteOrder():
            completed = replace(order, status=OrderStatus.COMPLETED)
            return Decision(completed, (OrderCompleted(order_id=order.order_id),))
        case Order(status=OrderStatus.PENDING), FailOrder(reason=reason):
            failed = replace(order, status=OrderStatus.FAILED, reason=reason)
            return Decision(failed, (OrderFailed(order_id=order.order_id, reason=reason),))
        case _:
            return Decision(order)
