"""The orchestrator: it drives every saga by the table, and is the only service that sends commands.

It runs on the same core as the domain services. Its "decider" is `handle_event`, its state the saga's row, so
a crash in mid-saga loses nothing: the row, the inbox and the outbox are one transaction.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import asdict, replace

from common.domain.decision import Decision, Rules
from common.messages import (
    COMPENSATIONS,
    MESSAGES,
    CancelSaga,
    InventoryRejected,
    InventoryReleased,
    Message,
    PaymentDeclined,
    PaymentRefunded,
    Reason,
    RefuseSaga,
    SagaStarted,
    Step,
    TimedOut,
)
from common.recovery import Recovery
from common.store.repository import RowPerOrder
from common.store.rows import RowTable
from common.wiring import Domain, Wiring, accept
from orchestrated.saga import ORDER_SAGA, OrderSaga, SagaState, compensate
from orchestrated.topics import topic_of

__all__ = ["ORCHESTRATOR", "SAGAS", "WIRING", "compensate", "handle_event"]

_NOTHING_OF: Final[dict[type[Message], Step]] = {
    InventoryRejected: Step.RESERVE,
    InventoryReleased: Step.RESERVE,
    PaymentDeclined: Step.PAY,
    PaymentRefunded: Step.PAY,
}
"""By event: the step of which it says that there is no effect, or none any more."""
_BACKWARD: Final = {SagaState.COMPENSATING, SagaState.FAILED}
_REASONS: Final[dict[type[Message], Reason]] = {CancelSaga: Reason.CANCELLED, TimedOut: Reason.TIMED_OUT}


def handle_event(
    saga: OrderSaga | None, event: Message, _: Rules | None = None
) -> Decision[OrderSaga | None]:
    """Take the row of the table that fits the saga's state and the event; without one, ignore the event."""
    if saga is None:
        if not isinstance(event, SagaStarted | CancelSaga | RefuseSaga):
            return Decision(None)
        saga = OrderSaga(**asdict(event)) if isinstance(event, SagaStarted) else OrderSaga(event.order_id)
    row = ORDER_SAGA.find(saga.state, type(event))
    if row is None:
        return Decision(saga)
    if row.send is None:
        return Decision(saga, late=True)
    undone = _NOTHING_OF.get(type(event))
    left = tuple(step for step in saga.begun if step != undone) if undone else saga.begun
    begins = next((command.STEP for command in row.sends if command in COMPENSATIONS), None)
    moved = replace(
        saga,
        state=row.to,
        begun=left if begins is None or begins in left else (*left, begins),
        reason=saga.reason or (_reason(event) if row.to in _BACKWARD else None),
    )
    return Decision(moved, (row.send(moved),))


def _reason(event: Message) -> Reason | None:
    return _REASONS.get(type(event)) or getattr(event, "reason", None)


SAGAS: Final = RowTable(OrderSaga, "sagas")

ORCHESTRATOR: Final[Domain[OrderSaga | None]] = Domain(
    name="orchestrator",
    decide=handle_event,
    answers=ORDER_SAGA.sends,
    storage=RowPerOrder(SAGAS),
    origin=ORDER_SAGA.start,
    gives_up_with={SagaStarted: RefuseSaga},
)

WIRING: Final = Wiring(
    mode="orchestrated",
    domain=ORCHESTRATOR,
    port=8011,
    topic_of=topic_of,
    reactions=tuple(accept(event) for event in ORDER_SAGA.sends if event.__name__ in MESSAGES),
    deadlines={
        SagaState.RESERVING_INVENTORY: Recovery.step,
        SagaState.PROCESSING_PAYMENT: Recovery.step,
        SagaState.COMPENSATING: Recovery.undo,
        SagaState.COMPENSATION_FAILED: Recovery.operator,
    },
)
