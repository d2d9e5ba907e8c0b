"""The Order service: it takes orders on and ends each exactly once."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, assert_never

from msgspec import Struct
from msgspec.structs import asdict, replace

from common.domain.decision import Decision, Rules
from common.messages import (
    CancelOrder,
    CompleteOrder,
    FailCompensation,
    FailOrder,
    Message,
    OrderAborted,
    OrderCancelRequested,
    OrderCompensationFailed,
    OrderCompleted,
    OrderCreated,
    OrderFailed,
    Overdue,
    PlaceOrder,
    Reason,
    RetryCompensation,
    TimedOut,
)

ANSWERS: Final[dict[type[Message], tuple[type[Message], ...]]] = {
    PlaceOrder: (OrderCreated,),
    CancelOrder: (OrderCancelRequested,),
    CompleteOrder: (OrderCompleted,),
    FailOrder: (OrderFailed,),
    FailCompensation: (OrderCompensationFailed,),
    RetryCompensation: (OrderAborted,),
    Overdue: (OrderCreated, OrderAborted),
    TimedOut: (OrderAborted, OrderCompensationFailed),
}
REQUESTS: Final = (PlaceOrder, CancelOrder, RetryCompensation)
"""What customers and operators may ask for, over HTTP."""


class OrderStatus(StrEnum):
    """Where an order stands; COMPLETED and FAILED are final, and all others are locks (see below).

    Until an order has ended, its status tells readers that nothing about it may be relied on yet: the
    semantic lock of Garcia-Molina and Salem, "Sagas" (1987), as Richardson's "Microservices Patterns" (2018),
    section 4.3, names it.
    """

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    COMPENSATING = "COMPENSATING"
    """The Order service has given it up, and waits until all is undone."""
    COMPENSATION_FAILED = "COMPENSATION_FAILED"
    """An undo keeps failing: something may be held or charged until an operator has it tried again."""
    FAILED = "FAILED"


ENDS: Final = frozenset({OrderStatus.COMPLETED, OrderStatus.FAILED})
"""Where nothing happens to an order any more."""


class Order(Struct, frozen=True, array_like=True):
    """An order; `price_cents` is the price of one piece, pinned when it was placed."""

    order_id: str
    customer_id: str
    item: str
    quantity: int
    price_cents: int
    status: OrderStatus = OrderStatus.PENDING
    reason: Reason | None = None


Asked = (
    PlaceOrder
    | CancelOrder
    | CompleteOrder
    | FailOrder
    | FailCompensation
    | RetryCompensation
    | Overdue
    | TimedOut
)
"""Every command of this service."""


def decide(order: Order | None, command: Asked, _: Rules) -> Decision[Order | None]:
    """Take an order on, or move one that has not ended; an unknown or ended order ignores the rest."""
    match order, command:
        case None, PlaceOrder():
            placed = Order(**asdict(command))
            return Decision(placed, (_created(placed),))
        case None, _:
            return Decision(None)
        case Order(), _:
            move = _MOVES.get((order.status, type(command)))
            if move is None:
                return Decision(order, late=not isinstance(command, PlaceOrder))
            return move(order, _reason(order, command))
        case _:
            assert_never((order, command))


def _reason(order: Order, command: Asked) -> Reason:
    """Why an order goes backward: what others have decided counts more than that it has taken too long."""
    if isinstance(command, FailOrder | FailCompensation) and order.reason in {None, Reason.TIMED_OUT}:
        return command.reason
    return order.reason or Reason.TIMED_OUT


def _created(order: Order) -> OrderCreated:
    return OrderCreated(
        order_id=order.order_id,
        customer_id=order.customer_id,
        item=order.item,
        quantity=order.quantity,
        price_cents=order.price_cents,
    )


def _tell_again(order: Order, _: Reason) -> Decision[Order | None]:
    return Decision(order, (_created(order),))


def _request_cancel(order: Order, _: Reason) -> Decision[Order | None]:
    return Decision(order, (OrderCancelRequested(order_id=order.order_id),))


def _complete(order: Order, _: Reason) -> Decision[Order | None]:
    completed = replace(order, status=OrderStatus.COMPLETED)
    return Decision(completed, (OrderCompleted(order_id=order.order_id),))


def _fail(order: Order, reason: Reason) -> Decision[Order | None]:
    failed = replace(order, status=OrderStatus.FAILED, reason=reason)
    return Decision(failed, (OrderFailed(order_id=order.order_id, reason=reason),))


def _abort(order: Order, reason: Reason) -> Decision[Order | None]:
    aborted = replace(order, status=OrderStatus.COMPENSATING, reason=reason)
    return Decision(aborted, (OrderAborted(order_id=order.order_id, reason=reason),))


def _give_up(order: Order, reason: Reason) -> Decision[Order | None]:
    stuck = replace(order, status=OrderStatus.COMPENSATION_FAILED, reason=reason)
    return Decision(stuck, (OrderCompensationFailed(order_id=order.order_id, reason=reason),))


_MOVES: Final[dict[tuple[OrderStatus, type[Message]], Callable[[Order, Reason], Decision[Order | None]]]] = {
    # Forward.
    (OrderStatus.PENDING, CancelOrder): _request_cancel,
    (OrderStatus.PENDING, CompleteOrder): _complete,
    (OrderStatus.PENDING, FailOrder): _fail,
    (OrderStatus.PENDING, Overdue): _tell_again,
    # Backward. A payment that succeeds after all is refunded, so it completes nothing any more.
    (OrderStatus.PENDING, TimedOut): _abort,
    (OrderStatus.PENDING, FailCompensation): _give_up,
    (OrderStatus.COMPENSATING, FailOrder): _fail,
    (OrderStatus.COMPENSATING, Overdue): _abort,
    (OrderStatus.COMPENSATING, TimedOut): _give_up,
    (OrderStatus.COMPENSATING, FailCompensation): _give_up,
    (OrderStatus.COMPENSATION_FAILED, FailOrder): _fail,
    (OrderStatus.COMPENSATION_FAILED, RetryCompensation): _abort,
}
"""By status and command: what it leads to, for the reason that the order or else the command has."""
