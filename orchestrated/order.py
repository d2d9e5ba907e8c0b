"""The Order service, orchestrated: it starts the saga of an order, and the orchestrator tells it the end."""

from __future__ import annotations

from typing import Final

from common.messages import CompleteOrder, FailOrder, OrderCreated, SagaCompleted, SagaFailed, SagaStarted
from common.services import ORDER
from common.wiring import Wiring, instead_of, on
from orchestrated.topics import topic_of


def start_saga(event: OrderCreated) -> SagaStarted:
    """Ask the orchestrator to take over, rather than tell the world of an order."""
    return SagaStarted(**event.model_dump())


def complete_order(event: SagaCompleted) -> CompleteOrder:
    """Every step succeeded."""
    return CompleteOrder(order_id=event.order_id)


def fail_order(event: SagaFailed) -> FailOrder:
    """A step failed and all before it is undone."""
    return FailOrder(order_id=event.order_id, reason=event.reason)


WIRING: Final = Wiring(
    mode="orchestrated",
    domain=ORDER,
    port=8001,
    topic_of=topic_of,
    reactions=(
        on(SagaCompleted, complete_order),
        on(SagaFailed, fail_order),
    ),
    substitutions=(instead_of(OrderCreated, start_saga),),
)
