"""The orchestrator: it drives every saga by the table, and is the only service that sends commands.

It runs on the same core as the domain services. Its "decider" is `handle_event`, its state the saga's row, so
a crash in mid-saga loses nothing: the row, the inbox and the outbox are one transaction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from common.domain.decision import Decision, Rules
from common.messages import Event, SagaStarted, Step
from common.store.repository import RowPerOrder
from common.store.rows import RowTable
from common.wiring import Domain, Wiring, accept
from orchestrated.saga import ORDER_SAGA, OrderSaga, compensate
from orchestrated.topics import topic_of

__all__ = ["ORCHESTRATOR", "SAGAS", "WIRING", "compensate", "handle_event"]

_UNDONE_BY: Final = {Step.RELEASE: Step.RESERVE, Step.REFUND: Step.PAY}


def handle_event(
    saga: OrderSaga | None, event: SagaStarted | Event, _: Rules | None = None
) -> Decision[OrderSaga | None]:
    """Take the row of the table that fits the saga's state and the event; without one, ignore the event."""
    if saga is None:
        if not isinstance(event, SagaStarted):
            return Decision(None)
        saga = OrderSaga(**event.model_dump())
    row = ORDER_SAGA.find(saga.state, type(event))
    if row is None:
        return Decision(saga)
    moved = replace(
        saga,
        state=row.to,
        done=_done_after(saga.done, event),
        reason=saga.reason or getattr(event, "reason", None),
    )
    return Decision(moved, (row.send(moved),))


def _done_after(done: tuple[str, ...], event: SagaStarted | Event) -> tuple[str, ...]:
    if event.STEP in _UNDONE_BY:
        return tuple(step for step in done if step != _UNDONE_BY[event.STEP])
    if isinstance(event, Event) and not event.FAILURE:
        return (*done, event.STEP)
    return done


SAGAS: Final = RowTable(OrderSaga, "sagas")

ORCHESTRATOR: Final[Domain[OrderSaga | None]] = Domain(
    name="orchestrator",
    decide=handle_event,
    answers=ORDER_SAGA.sends,
    storage=RowPerOrder(SAGAS),
    origin=ORDER_SAGA.start,
)

WIRING: Final = Wiring(
    mode="orchestrated",
    domain=ORCHESTRATOR,
    port=8011,
    topic_of=topic_of,
    reactions=tuple(accept(event) for event in ORDER_SAGA.sends),
)
