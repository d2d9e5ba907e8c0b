"""The saga's table, told as stories: given what has happened, when one event comes, expect this command."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import pytest

from common.messages import (
    Command,
    Event,
    InventoryRejected,
    InventoryReleased,
    InventoryReserved,
    Message,
    OrderCompleted,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    ProcessPayment,
    Reason,
    RefundPayment,
    ReleaseInventory,
    ReserveInventory,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
    Step,
)
from orchestrated.orchestrator import compensate, handle_event
from orchestrated.saga import DEFINITION_VERSION, ORDER_SAGA, OrderSaga, SagaState, saga_failed

ID: Final = "order-1"
DECLINED: Final = Reason.PAYMENT_DECLINED

STARTED: Final = SagaStarted(order_id=ID, customer_id="alice", item="laptop", quantity=2, price_cents=100_00)
RESERVED: Final = InventoryReserved(order_id=ID, item="laptop", quantity=2)
REJECTED: Final = InventoryRejected(order_id=ID, reason=Reason.OUT_OF_STOCK)
PAID: Final = PaymentProcessed(order_id=ID, amount_cents=200_00)
NOT_PAID: Final = PaymentDeclined(order_id=ID, reason=DECLINED)
REFUNDED: Final = PaymentRefunded(order_id=ID, reason=DECLINED)
RELEASED: Final = InventoryReleased(order_id=ID, reason=DECLINED)

RESERVE: Final = ReserveInventory(order_id=ID, item="laptop", quantity=2)
PAY: Final = ProcessPayment(order_id=ID, customer_id="alice", amount_cents=200_00)
RELEASE: Final = ReleaseInventory(order_id=ID, reason=DECLINED)
REFUND: Final = RefundPayment(order_id=ID, reason=DECLINED)

Heard = SagaStarted | Event


@dataclass(frozen=True)
class Story:
    """A saga so far, and what its last event has led to."""

    saga: OrderSaga | None = None
    sent: tuple[Message, ...] = ()

    def when(self, event: Heard) -> Story:
        """One more event comes."""
        return Story(*handle_event(self.saga, event))

    def expect(self, *sent: Message, at: SagaState) -> Story:
        """The last event has led to exactly these messages and this state."""
        assert self.sent == sent
        assert self.saga is not None
        assert self.saga.state is at
        return self


def given(*history: Heard) -> Story:
    """A saga to which all this has happened."""
    story = Story()
    for event in history:
        story = story.when(event)
    return story


def saga_at(state: SagaState, *done: str, reason: Reason | None = DECLINED) -> OrderSaga:
    """A saga in this state, with these steps done."""
    return OrderSaga(ID, "alice", "laptop", 2, 100_00, state=state, done=done, reason=reason)


def test_a_new_saga_reserves_inventory() -> None:
    """Given nothing, when the saga starts, expect the first step."""
    given().when(STARTED).expect(RESERVE, at=SagaState.RESERVING_INVENTORY)


def test_reserved_inventory_is_paid_for() -> None:
    """Given a started saga, when goods are held, expect the second step."""
    given(STARTED).when(RESERVED).expect(PAY, at=SagaState.PROCESSING_PAYMENT)


def test_a_paid_order_completes_the_saga() -> None:
    """Given held goods, when the customer is charged, expect the good end."""
    given(STARTED, RESERVED).when(PAID).expect(SagaCompleted(order_id=ID), at=SagaState.COMPLETED)


def test_rejected_inventory_fails_the_saga_at_once() -> None:
    """Given a started saga, when goods can't be held, expect the end, as there is nothing to undo."""
    failed = SagaFailed(order_id=ID, reason=Reason.OUT_OF_STOCK)
    given(STARTED).when(REJECTED).expect(failed, at=SagaState.FAILED)


def test_a_declined_payment_releases_inventory() -> None:
    """Given held goods, when the payment is declined, expect the undo of the first step."""
    given(STARTED, RESERVED).when(NOT_PAID).expect(RELEASE, at=SagaState.COMPENSATING)


def test_released_inventory_ends_the_compensation() -> None:
    """Given a declined payment, when the goods are free again, expect the bad end with the first reason."""
    story = given(STARTED, RESERVED, NOT_PAID).when(RELEASED)
    story.expect(SagaFailed(order_id=ID, reason=DECLINED), at=SagaState.FAILED)
    assert story.saga is not None
    assert story.saga.done == ()


def test_compensation_runs_in_reverse_order() -> None:
    """Given two steps done, expect the refund first, the release after it, and only then the end."""
    compensating = saga_at(SagaState.COMPENSATING, Step.RESERVE, Step.PAY)
    assert compensate(compensating) == REFUND
    refunded = Story(compensating).when(REFUNDED).expect(RELEASE, at=SagaState.COMPENSATING)
    refunded.when(RELEASED).expect(SagaFailed(order_id=ID, reason=DECLINED), at=SagaState.FAILED)


def test_done_steps_are_noted_in_the_order_in_which_they_were_done() -> None:
    """Given both steps succeeded, the saga's row says so, and which definition it was begun under."""
    saga = given(STARTED, RESERVED, PAID).saga
    assert saga == replace(
        saga_at(SagaState.COMPLETED, Step.RESERVE, Step.PAY, reason=None),
        definition_version=DEFINITION_VERSION,
    )


def test_the_first_reason_stays() -> None:
    """Given a failed step, no later reason replaces the one that it failed for."""
    released = RELEASED.model_copy(update={"reason": Reason.OUT_OF_STOCK})
    saga = given(STARTED, RESERVED, NOT_PAID, released).saga
    assert saga is not None
    assert saga.reason is DECLINED


@pytest.mark.parametrize("event", [RESERVED, REJECTED, PAID, NOT_PAID, REFUNDED, RELEASED])
def test_an_event_of_an_unknown_saga_changes_nothing(event: Event) -> None:
    """Given no saga, an answer creates none and sends nothing."""
    assert given().when(event) == Story(None, ())


def test_a_saga_that_has_not_failed_cannot_say_why() -> None:
    """To tell of a failure without a reason is a defect, and is refused."""
    with pytest.raises(ValueError, match=f"the saga of order {ID} has not failed"):
        saga_failed(saga_at(SagaState.COMPLETED, reason=None))


def test_the_same_saga_and_event_give_the_same_decision() -> None:
    """Neither `handle_event` nor `compensate` changes what it is given or remembers what it was asked."""
    saga = saga_at(SagaState.COMPENSATING, Step.RESERVE, Step.PAY)
    before = replace(saga)
    assert handle_event(saga, REFUNDED) == handle_event(saga, REFUNDED)
    assert compensate(saga) == compensate(saga)
    assert saga == before


EVENTS: Final[tuple[Heard, ...]] = (
    STARTED,
    RESERVED,
    REJECTED,
    PAID,
    NOT_PAID,
    REFUNDED,
    RELEASED,
    OrderCompleted(order_id=ID),
)
SAGAS: Final = {
    SagaState.PENDING: saga_at(SagaState.PENDING),
    SagaState.RESERVING_INVENTORY: saga_at(SagaState.RESERVING_INVENTORY),
    SagaState.PROCESSING_PAYMENT: saga_at(SagaState.PROCESSING_PAYMENT, Step.RESERVE),
    SagaState.COMPLETED: saga_at(SagaState.COMPLETED, Step.RESERVE, Step.PAY),
    SagaState.COMPENSATING: saga_at(SagaState.COMPENSATING, Step.RESERVE),
    SagaState.FAILED: saga_at(SagaState.FAILED),
}
MOVES: Final[dict[tuple[SagaState, type[Heard]], tuple[SagaState, type[Message]]]] = {
    (SagaState.PENDING, SagaStarted): (SagaState.RESERVING_INVENTORY, ReserveInventory),
    (SagaState.RESERVING_INVENTORY, InventoryReserved): (SagaState.PROCESSING_PAYMENT, ProcessPayment),
    (SagaState.RESERVING_INVENTORY, InventoryRejected): (SagaState.FAILED, SagaFailed),
    (SagaState.PROCESSING_PAYMENT, PaymentProcessed): (SagaState.COMPLETED, SagaCompleted),
    (SagaState.PROCESSING_PAYMENT, PaymentDeclined): (SagaState.COMPENSATING, ReleaseInventory),
    (SagaState.COMPENSATING, PaymentRefunded): (SagaState.COMPENSATING, ReleaseInventory),
    (SagaState.COMPENSATING, InventoryReleased): (SagaState.FAILED, SagaFailed),
}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", SagaState)
def test_rows_move_and_all_else_is_ignored(state: SagaState, event: Heard) -> None:
    """Crossing each state with each event, the saga moves where a row says so, and else stays as it is."""
    saga = SAGAS[state]
    story = Story(saga).when(event)
    if (state, type(event)) in MOVES:
        to, sent = MOVES[state, type(event)]
        assert story.saga is not None
        assert (story.saga.state, [type(message) for message in story.sent]) == (to, [sent])
    else:
        assert story == Story(saga, ())


def test_the_matrix_knows_every_row() -> None:
    """The moves that the tests expect are the rows of the table, and no more."""
    assert {(row.at, row.on): row.to for row in ORDER_SAGA.rows} == {at: to for at, (to, _) in MOVES.items()}
    assert all(sent in row.sends for row in ORDER_SAGA.rows for _, sent in [MOVES[SagaState(row.at), row.on]])  # type: ignore[index] # every row is on something heard


def test_only_commands_are_sent_before_the_end() -> None:
    """Until a saga ends, the orchestrator tells others what to do, and afterwards what has become of it."""
    for to, sent in MOVES.values():
        assert issubclass(sent, Command) == (to not in ORDER_SAGA.ends)
