"""What customers and operators may ask of an order that was placed: to cancel it, and to go on undoing it.

Whether that can be done is looked up in the transaction that also takes the wish on, with the order's row
locked, so that nothing comes between. What becomes of a wish to cancel is not decided here: the payment may
be under way, and of the two, the one that reaches the Payment service first wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, event

from common.domain.order import OrderStatus
from common.http.problems import ProblemError
from common.http.views import view
from common.http.waiting import FIND_ORDER, Waiting
from common.messages import CancelOrder, Command, Reason, RetryCompensation
from common.runner import Runner

_LOCK: Final = FIND_ORDER.with_for_update()
_NOT_CANCELLABLE: Final = "urn:saga-lab:problem:not-cancellable"
_NOTHING_TO_RETRY: Final = "urn:saga-lab:problem:nothing-to-retry"
_DECIDED: Final = frozenset(OrderStatus) - {OrderStatus.PENDING}
_WHY_NOT: Final = {
    OrderStatus.COMPLETED: "The order is COMPLETED: its payment was faster, and stands.",
    OrderStatus.FAILED: "The order has FAILED already ({reason}); nothing of it is held or charged.",
    OrderStatus.COMPENSATING: "The order is given up already ({reason}); it is being undone.",
    OrderStatus.COMPENSATION_FAILED: "The order is given up already ({reason}), but an undo keeps failing: "
    "an operator has to mend the cause, and then POST /orders/{order_id}/retry-compensation.",
}
"""By status: why an order can't be cancelled."""


class Asked(NamedTuple):
    """What is answered."""

    status: HTTPStatus
    order: dict[str, Any]


@dataclass
class _Wish:
    """A command about an order that exists, if the order is where that means something."""

    command: Command
    at: OrderStatus
    taken: bool = False
    row: Mapping[str, Any] = field(init=False)
    """The order as it is once the wish is taken on, or found to be of no use."""

    def settle(self, transaction: Connection) -> Sequence[Command]:
        """The command, or nothing if it is of no use.

        Raises:
            ProblemError: there is no such order.
        """
        self.taken = False  # an earlier try of this was rolled back, if there was one
        found = transaction.execute(_LOCK, {"order_id": self.command.order_id}).first()
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "There is no such order here.")
        self.row = found._asdict()
        if found.status != self.at:
            return ()
        # As the last act of the transaction: a later read might fail, with the wish taken on.
        event.listen(transaction, "commit", self._read)
        self.taken = True
        return (self.command,)

    def _read(self, transaction: Connection) -> None:
        self.row = transaction.execute(FIND_ORDER, {"order_id": self.command.order_id}).one()._asdict()


class Asking:
    """Takes wishes for one instance of the Order service."""

    def __init__(self, runner: Runner, waiting: Waiting) -> None:
        self._runner = runner
        self._waiting = waiting

    async def cancel(self, order_id: str, wait_s: int) -> Asked:
        """Ask for an order's end without its effects, and wait for what becomes of that.

        Raises:
            ProblemError: there is no such order, or it can't be cancelled (any more).
            OverloadedError: too much waits for the broker; nothing is asked for.
            SQLAlchemyError: the database can't be used; nothing is asked for.
        """
        wish = _Wish(CancelOrder(order_id=order_id), OrderStatus.PENDING)
        await self._runner.submit(wish.settle)
        if wish.row["status"] == OrderStatus.PENDING and wait_s:
            wish.row = await self._waiting.until(order_id, _DECIDED, wait_s) or wish.row
        return _cancelled(wish.row)

    async def retry_compensation(self, order_id: str) -> Asked:
        """Have an undo that kept failing tried again.

        Raises:
            ProblemError: there is no such order, or no undo of it has failed for good.
            OverloadedError: too much waits for the broker; nothing is asked for.
            SQLAlchemyError: the database can't be used; nothing is asked for.
        """
        wish = _Wish(RetryCompensation(order_id=order_id), OrderStatus.COMPENSATION_FAILED)
        await self._runner.submit(wish.settle)
        if not wish.taken:
            detail = (
                f"The order is {wish.row['status']}: only an undo that has failed for good can be retried."
            )
            raise _conflict(detail, _NOTHING_TO_RETRY, wish.row)
        return Asked(HTTPStatus.ACCEPTED, view(wish.row))


def _cancelled(row: Mapping[str, Any]) -> Asked:
    match row:
        case {"status": OrderStatus.PENDING}:
            return Asked(HTTPStatus.ACCEPTED, view(row))
        case {"status": OrderStatus.FAILED, "reason": Reason.CANCELLED}:
            return Asked(HTTPStatus.OK, view(row))
    why = _WHY_NOT[OrderStatus(row["status"])].format_map(row)
    raise _conflict(why, _NOT_CANCELLABLE, row)


def _conflict(detail: str, kind: str, row: Mapping[str, Any]) -> ProblemError:
    return ProblemError(HTTPStatus.CONFLICT, detail, kind, more={"order": view(row)})
