"""The Order service, orchestrated: it starts the saga of an order, and the orchestrator tells it the end."""

from __future__ import annotations

from typing import Final

from msgspec.structs import asdict

from common.domain.order import OrderStatus
from common.messages import (
    CancelSaga,
    CompleteOrder,
    FailCompensation,
    FailOrder,
    OrderAborted,
    OrderCancelRequested,
    OrderCreated,
    RetryCompensation,
    SagaCompensationFailed,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
)
from common.recovery import Recovery
from common.services import ORDER
from common.wiring import Wiring, instead_of, on
from orchestrated.topics import topic_of


def start_saga(event: OrderCreated) -> SagaStarted:
    """Ask the orchestrator to take over, rather than tell the world of an order."""
    return SagaStarted(**asdict(event))


def cancel_saga(event: OrderCancelRequested) -> CancelSaga:
    """Pass the customer's wish on; the orchestrator knows what is under way."""
    return CancelSaga(order_id=event.order_id)


def retry_compensation(event: OrderAborted) -> RetryCompensation:
    """Pass the operator's command on; here an order is given up by nobody but the orchestrator."""
    return RetryCompensation(order_id=event.order_id)


def complete_order(event: SagaCompleted) -> CompleteOrder:
    """Every step succeeded."""
    return CompleteOrder(order_id=event.order_id)


def fail_order(event: SagaFailed) -> FailOrder:
    """A step failed and all before it is undone."""
    return FailOrder(order_id=event.order_id, reason=event.reason)


def fail_compensation(event: SagaCompensationFailed) -> FailCompensation:
    """An undo keeps failing."""
    return FailCompensation(order_id=event.order_id, reason=event.reason)


WIRING: Final = Wiring(
    mode="orchestrated",
    domain=ORDER,
    port=8001,
    topic_of=topic_of,
    reactions=(
        on(SagaCompleted, complete_order),
        on(SagaFailed, fail_order),
        on(SagaCompensationFailed, fail_compensation),
    ),
    substitutions=(
        instead_of(OrderCreated, start_saga),
        instead_of(OrderCancelRequested, cancel_saga),
        instead_of(OrderAborted, retry_compensation),
    ),
    # The orchestrator is asked again, for ever: when to give an order up is its business.
    deadlines={
        OrderStatus.PENDING: Recovery.word,
        OrderStatus.COMPENSATING: Recovery.word,
        OrderStatus.COMPENSATION_FAILED: Recovery.operator,
    },
)
