"""Temporal's workflow, in a file of its own: it runs isolated from clocks, chance and the network."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from common.messages import (
    Command,
    CompleteOrder,
    FailOrder,
    PlaceOrder,
    ProcessPayment,
    Reason,
    ReleaseInventory,
    ReserveInventory,
)

PLACE: Final = "place"
RESERVE: Final = "reserve"
CHARGE: Final = "charge"
RELEASE: Final = "release"
COMPLETE: Final = "complete"
FAIL: Final = "fail"

_TRY: Final = timedelta(seconds=10)
"""What one try may take; when a worker has died in the middle of it, that is noticed after so long."""
_RETRIES: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=100), maximum_interval=timedelta(seconds=5)
)
"""Without end; a refusal is an error that says of itself that it isn't to be tried again."""


@workflow.defn
class OrderSaga:
    """The saga of one order, whose id is the workflow's, too."""

    @workflow.run
    async def run(self, order: PlaceOrder, local: bool) -> None:  # noqa: FBT001 - arguments of a workflow have no names
        """Carry an order out, or undo what was done; `local` runs activities within the workflow task."""
        self._local = local
        order_id = order.order_id
        compensations: list[Callable[[Reason], tuple[str, Command]]] = []
        await self._do(PLACE, order)
        try:
            await self._do(
                RESERVE, ReserveInventory(order_id=order_id, item=order.item, quantity=order.quantity)
            )
            compensations.append(lambda reason: (RELEASE, ReleaseInventory(order_id=order_id, reason=reason)))
            await self._do(
                CHARGE,
                ProcessPayment(
                    order_id=order_id, customer_id=order.customer_id, amount_cents=order.total_cents
                ),
            )
        except (ActivityError, ApplicationError) as error:
            reason = _reason(error)
            for compensation in reversed(compensations):
                await self._do(*compensation(reason))
            await self._do(FAIL, FailOrder(order_id=order_id, reason=reason))
        else:
            await self._do(COMPLETE, CompleteOrder(order_id=order_id))

    async def _do(self, activity: str, command: Command) -> None:
        if self._local:
            await workflow.execute_local_activity(
                activity, command, start_to_close_timeout=_TRY, retry_policy=_RETRIES
            )
        else:
            await workflow.execute_activity(
                activity, command, start_to_close_timeout=_TRY, retry_policy=_RETRIES
            )


def _reason(error: ActivityError | ApplicationError) -> Reason:
    """Why a service has refused; whatever else an activity may fail of is tried again, and never gets here.

    A local activity's error comes as it is, another's within an `ActivityError`.
    """
    refusal = error.cause if isinstance(error, ActivityError) else error
    if not isinstance(refusal, ApplicationError):
        raise error
    return Reason(refusal.message)
