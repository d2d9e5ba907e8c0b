"""The saga's table, told as stories: given what has happened, when one event comes, expect this command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest
from msgspec.structs import replace

from common.domain.decision import Decision
from common.messages import (
    CancelPayment,
    CancelSaga,
    Command,
    InventoryRejected,
    InventoryReleased,
    InventoryReleaseFailed,
    InventoryReserved,
    Message,
    OrderCompleted,
    Overdue,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    PaymentRefundFailed,
    ProcessPayment,
    Reason,
    RefundPayment,
    RefuseSaga,
    ReleaseInventory,
    ReserveInventory,
    RetryCompensation,
    SagaCompensationFailed,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
    Step,
    TimedOut,
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
REFUNDED: Final = PaymentRefunded(order_id=ID, reason=DECLINED, amount_cents=200_00)
NOT_REFUNDED: Final = PaymentRefundFailed(order_id=ID, reason=DECLINED)
RELEASED: Final = InventoryReleased(order_id=ID, reason=DECLINED, item="laptop", quantity=2)
NOT_RELEASED: Final = InventoryReleaseFailed(order_id=ID, reason=DECLINED)
NEVER_CHARGED: Final = PaymentRefunded(order_id=ID, reason=Reason.CANCELLED)
CANCEL: Final = CancelSaga(order_id=ID)
REFUSE: Final = RefuseSaga(order_id=ID, reason=Reason.DEAD_LETTER)
OVERDUE: Final = Overdue(order_id=ID)
TIMED_OUT: Final = TimedOut(order_id=ID)
RETRY: Final = RetryCompensation(order_id=ID)

RESERVE: Final = ReserveInventory(order_id=ID, item="laptop", quantity=2)
PAY: Final = ProcessPayment(order_id=ID, customer_id="alice", amount_cents=200_00)
RELEASE: Final = ReleaseInventory(order_id=ID, reason=DECLINED)
REFUND: Final = RefundPayment(order_id=ID, reason=DECLINED)


def because(message: Message, reason: Reason) -> Message:
    """The same message for another reason."""
    return replace(message, reason=reason)


@dataclass(frozen=True)
class Story:
    """A saga so far, and what its last event has led to."""

    saga: OrderSaga | None = None
    sent: tuple[Message, ...] = ()
    late: bool = False

    def when(self, event: Message) -> Story:
        """One more event comes."""
        return Story(*handle_event(self.saga, event))

    def expect_nothing(self, at: SagaState) -> Story:
        """The last event came too late to matter."""
        assert self.late
        return self.expect(at=at)

    def expect(self, *sent: Message, at: SagaState) -> Story:
        """The last event has led to exactly these messages and this state."""
        assert self.sent == sent
        assert self.saga is not None
        assert self.saga.state is at
        return self


def given(*history: Message) -> Story:
    """A saga to which all this has happened."""
    story = Story()
    for event in history:
        story = story.when(event)
    return story


def saga_at(state: SagaState, *begun: str, reason: Reason | None = DECLINED) -> OrderSaga:
    """A saga in this state, with these steps begun and not undone."""
    return OrderSaga(ID, "alice", "laptop", 2, 100_00, state=state, begun=begun, reason=reason)


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
    assert story.saga.begun == ()


def test_compensation_runs_in_reverse_order() -> None:
    """Given a payment that may have happened, expect the refund first, the release after it, then the end."""
    reason = Reason.TIMED_OUT
    story = given(STARTED, RESERVED).when(TIMED_OUT)
    story.expect(because(REFUND, reason), at=SagaState.COMPENSATING)
    refunded = story.when(REFUNDED).expect(because(RELEASE, reason), at=SagaState.COMPENSATING)
    refunded.when(RELEASED).expect(SagaFailed(order_id=ID, reason=reason), at=SagaState.FAILED)


def test_the_undo_is_known_from_the_steps_that_may_have_happened() -> None:
    """The latest step is undone first, and a saga that began nothing has the first step's undo sent."""
    assert compensate(saga_at(SagaState.COMPENSATING, Step.RESERVE, Step.PAY)) == REFUND
    assert compensate(saga_at(SagaState.COMPENSATING, Step.RESERVE)) == RELEASE


@pytest.mark.parametrize(
    ("history", "begun"),
    [
        ([STARTED], (Step.RESERVE,)),
        ([STARTED, OVERDUE], (Step.RESERVE,)),
        ([STARTED, REJECTED], ()),
        ([STARTED, TIMED_OUT], (Step.RESERVE,)),
        ([STARTED, CANCEL], (Step.RESERVE,)),
        ([STARTED, RESERVED], (Step.RESERVE, Step.PAY)),
        ([STARTED, RESERVED, OVERDUE], (Step.RESERVE, Step.PAY)),
        ([STARTED, RESERVED, CANCEL], (Step.RESERVE, Step.PAY)),
        ([STARTED, RESERVED, PAID], (Step.RESERVE, Step.PAY)),
        ([STARTED, RESERVED, NOT_PAID], (Step.RESERVE,)),
        ([STARTED, RESERVED, CANCEL, NEVER_CHARGED], (Step.RESERVE,)),
        ([STARTED, RESERVED, TIMED_OUT], (Step.RESERVE, Step.PAY)),
        ([STARTED, RESERVED, TIMED_OUT, PAID], (Step.RESERVE, Step.PAY)),
        ([STARTED, RESERVED, TIMED_OUT, NOT_PAID], (Step.RESERVE, Step.PAY)),
        ([STARTED, RESERVED, TIMED_OUT, REFUNDED], (Step.RESERVE,)),
        ([STARTED, RESERVED, TIMED_OUT, REFUNDED, RELEASED], ()),
        ([STARTED, RESERVED, TIMED_OUT, NOT_REFUNDED], (Step.RESERVE, Step.PAY)),
        ([STARTED, RESERVED, TIMED_OUT, REFUNDED, NOT_RELEASED], (Step.RESERVE,)),
    ],
)
def test_a_step_counts_as_begun_from_its_request_to_the_word_that_it_is_undone(
    history: list[Message], begun: tuple[Step, ...]
) -> None:
    """What may have had an effect is to be undone, be there an answer or not."""
    saga = given(*history).saga
    assert saga is not None
    assert saga.begun == begun
    assert saga.definition_version == DEFINITION_VERSION


def test_an_overdue_step_is_asked_for_again() -> None:
    """Given a question without an answer, expect the same question in the same state."""
    given(STARTED).when(OVERDUE).expect(RESERVE, at=SagaState.RESERVING_INVENTORY)
    given(STARTED, RESERVED).when(OVERDUE).expect(PAY, at=SagaState.PROCESSING_PAYMENT)
    given(STARTED, RESERVED, NOT_PAID).when(OVERDUE).expect(RELEASE, at=SagaState.COMPENSATING)


def test_a_step_that_timed_out_is_undone_itself() -> None:
    """Given no answer at all, the outcome is unknown, so the undo of that very step comes first."""
    reason = Reason.TIMED_OUT
    given(STARTED).when(TIMED_OUT).expect(because(RELEASE, reason), at=SagaState.COMPENSATING)
    given(STARTED, RESERVED).when(TIMED_OUT).expect(because(REFUND, reason), at=SagaState.COMPENSATING)


@pytest.mark.parametrize("answer", [PAID, NOT_PAID, RESERVED, REJECTED])
def test_a_late_answer_revives_nothing(answer: Message) -> None:
    """Given a compensation that has begun, no answer to what is being undone changes its course."""
    given(STARTED, RESERVED, TIMED_OUT).when(answer).expect_nothing(at=SagaState.COMPENSATING)


def test_a_cancel_before_the_payment_undoes_the_reservation() -> None:
    """Given goods that may be held, when the customer cancels, expect their release and the bad end."""
    story = given(STARTED).when(CANCEL)
    story.expect(because(RELEASE, Reason.CANCELLED), at=SagaState.COMPENSATING)
    story.when(RELEASED).expect(SagaFailed(order_id=ID, reason=Reason.CANCELLED), at=SagaState.FAILED)


@pytest.mark.parametrize(("early", "reason"), [(CANCEL, Reason.CANCELLED), (REFUSE, Reason.DEAD_LETTER)])
def test_a_saga_that_ended_before_it_began_is_not_started_any_more(early: Message, reason: Reason) -> None:
    """Given nothing, when it is cancelled or refused, expect the bad end, and that again when it starts."""
    failed = SagaFailed(order_id=ID, reason=reason)
    story = given().when(early).expect(failed, at=SagaState.FAILED)
    assert story.saga == OrderSaga(ID, "", "", 0, 0, state=SagaState.FAILED, reason=reason)
    story.when(STARTED).expect(failed, at=SagaState.FAILED)


def test_a_cancel_that_races_the_payment_is_left_to_the_payment_service() -> None:
    """Given a payment under way, expect the wish to be passed on, and then whatever came of it."""
    story = given(STARTED, RESERVED).when(CANCEL)
    story.expect(CancelPayment(order_id=ID, reason=Reason.CANCELLED), at=SagaState.PROCESSING_PAYMENT)
    story.when(PAID).expect(SagaCompleted(order_id=ID), at=SagaState.COMPLETED)
    story.when(NEVER_CHARGED).expect(because(RELEASE, Reason.CANCELLED), at=SagaState.COMPENSATING)
    story.when(NOT_PAID).expect(RELEASE, at=SagaState.COMPENSATING)


def test_an_undo_that_keeps_failing_waits_for_an_operator() -> None:
    """Given an undo that was given up, expect a state that says so, and the same undo once it is retried."""
    stuck = given(STARTED, RESERVED, NOT_PAID).when(NOT_RELEASED)
    failed = SagaCompensationFailed(order_id=ID, reason=DECLINED)
    stuck.expect(failed, at=SagaState.COMPENSATION_FAILED)
    given(STARTED, RESERVED, NOT_PAID).when(TIMED_OUT).expect(failed, at=SagaState.COMPENSATION_FAILED)
    retried = stuck.when(RETRY).expect(RELEASE, at=SagaState.COMPENSATING)
    retried.when(RELEASED).expect(SagaFailed(order_id=ID, reason=DECLINED), at=SagaState.FAILED)


def test_an_undo_that_succeeds_after_all_goes_on_by_itself() -> None:
    """Given a failed compensation, when its undo is done after all, expect the rest of it."""
    stuck = given(STARTED, RESERVED, TIMED_OUT, NOT_REFUNDED)
    refunded = stuck.when(REFUNDED)
    refunded.expect(because(RELEASE, Reason.TIMED_OUT), at=SagaState.COMPENSATING)


def test_an_end_is_told_again_to_whoever_asks_again() -> None:
    """Given an end whose message was lost, when the Order service asks again, expect the same end."""
    completed, failed = SagaCompleted(order_id=ID), SagaFailed(order_id=ID, reason=DECLINED)
    given(STARTED, RESERVED, PAID).when(STARTED).expect(completed, at=SagaState.COMPLETED)
    for question in (STARTED, RETRY):
        story = given(STARTED, RESERVED, NOT_PAID, RELEASED).when(question)
        story.expect(failed, at=SagaState.FAILED)
    stuck = given(STARTED, RESERVED, NOT_PAID, NOT_RELEASED).when(STARTED)
    stuck.expect(SagaCompensationFailed(order_id=ID, reason=DECLINED), at=SagaState.COMPENSATION_FAILED)


def test_the_first_reason_stays() -> None:
    """Given a failed step, no later reason replaces the one that it failed for."""
    saga = given(STARTED, RESERVED, NOT_PAID, because(RELEASED, Reason.OUT_OF_STOCK)).saga
    assert saga is not None
    assert saga.reason is DECLINED


@pytest.mark.parametrize(
    "event",
    [RESERVED, REJECTED, PAID, NOT_PAID, REFUNDED, RELEASED, RETRY, OVERDUE, TIMED_OUT],
    ids=lambda event: type(event).__name__,
)
def test_an_event_of_an_unknown_saga_changes_nothing(event: Message) -> None:
    """Given no saga, an answer creates none and sends nothing, which is not to be expected."""
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


EVENTS: Final = {
    type(event): event
    for event in (
        STARTED,
        CANCEL,
        RETRY,
        RESERVED,
        REJECTED,
        RELEASED,
        NOT_RELEASED,
        PAID,
        NOT_PAID,
        REFUNDED,
        NOT_REFUNDED,
        OVERDUE,
        TIMED_OUT,
        REFUSE,
        OrderCompleted(order_id=ID),
    )
}
P, R, PAYING, DONE, UNDOING, STUCK, FAILED = SagaState
SAGAS: Final = {
    P: saga_at(P, reason=None),
    R: saga_at(R, Step.RESERVE, reason=None),
    PAYING: saga_at(PAYING, Step.RESERVE, Step.PAY, reason=None),
    DONE: saga_at(DONE, Step.RESERVE, Step.PAY, reason=None),
    UNDOING: saga_at(UNDOING, Step.RESERVE),
    STUCK: saga_at(STUCK, Step.RESERVE),
    FAILED: saga_at(FAILED),
}
MOVES: Final[dict[tuple[SagaState, type[Message]], tuple[SagaState, type[Message]]]] = {
    (P, SagaStarted): (R, ReserveInventory),
    (P, CancelSaga): (FAILED, SagaFailed),
    (P, RefuseSaga): (FAILED, SagaFailed),
    (R, InventoryReserved): (PAYING, ProcessPayment),
    (R, InventoryRejected): (FAILED, SagaFailed),
    (R, Overdue): (R, ReserveInventory),
    (R, TimedOut): (UNDOING, ReleaseInventory),
    (R, CancelSaga): (UNDOING, ReleaseInventory),
    (PAYING, PaymentProcessed): (DONE, SagaCompleted),
    (PAYING, PaymentDeclined): (UNDOING, ReleaseInventory),
    (PAYING, PaymentRefunded): (UNDOING, ReleaseInventory),
    (PAYING, Overdue): (PAYING, ProcessPayment),
    (PAYING, TimedOut): (UNDOING, RefundPayment),
    (PAYING, CancelSaga): (PAYING, CancelPayment),
    (UNDOING, PaymentRefunded): (UNDOING, ReleaseInventory),
    (UNDOING, InventoryReleased): (FAILED, SagaFailed),
    (UNDOING, Overdue): (UNDOING, ReleaseInventory),
    (UNDOING, TimedOut): (STUCK, SagaCompensationFailed),
    (UNDOING, PaymentRefundFailed): (STUCK, SagaCompensationFailed),
    (UNDOING, InventoryReleaseFailed): (STUCK, SagaCompensationFailed),
    (STUCK, RetryCompensation): (UNDOING, ReleaseInventory),
    (STUCK, PaymentRefunded): (UNDOING, ReleaseInventory),
    (STUCK, InventoryReleased): (FAILED, SagaFailed),
    (STUCK, SagaStarted): (STUCK, SagaCompensationFailed),
    (DONE, SagaStarted): (DONE, SagaCompleted),
    (FAILED, SagaStarted): (FAILED, SagaFailed),
    (FAILED, RetryCompensation): (FAILED, SagaFailed),
}
_STEPS: Final[tuple[type[Message], ...]] = (
    InventoryReserved,
    InventoryRejected,
    PaymentProcessed,
    PaymentDeclined,
)
_UNDOS: Final[tuple[type[Message], ...]] = (
    InventoryReleased,
    InventoryReleaseFailed,
    PaymentRefunded,
    PaymentRefundFailed,
)
LATE: Final[dict[SagaState, set[type[Message]]]] = {
    P: set(),
    R: {SagaStarted, RefuseSaga},
    PAYING: {SagaStarted, RefuseSaga, InventoryReserved, InventoryRejected},
    DONE: {RefuseSaga, CancelSaga, *_STEPS, PaymentRefunded},
    UNDOING: {SagaStarted, RefuseSaga, CancelSaga, RetryCompensation, *_STEPS},
    STUCK: {RefuseSaga, CancelSaga, *_STEPS, InventoryReleaseFailed, PaymentRefundFailed},
    FAILED: {RefuseSaga, CancelSaga, *_STEPS, *_UNDOS},
}
"""What may come at a state and doesn't matter there any more; all else is not to be expected."""


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", SagaState)
def test_rows_move_and_all_else_is_late_or_ignored(state: SagaState, event: Message) -> None:
    """Crossing each state with each event, the saga moves where a row says so, and else stays as it is."""
    saga = SAGAS[state]
    story = Story(saga).when(event)
    if (state, type(event)) in MOVES:
        to, sent = MOVES[state, type(event)]
        assert story.saga is not None
        assert (story.saga.state, [type(message) for message in story.sent]) == (to, [sent])
        assert not story.late
    else:
        assert story == Story(saga, (), late=type(event) in LATE[state])


def test_the_matrix_knows_every_row() -> None:
    """The moves that the tests expect are the rows of the table, and no more."""
    moving = [one for one in ORDER_SAGA.rows if one.send is not None]
    assert {(one.at, one.on): one.to for one in moving} == {at: to for at, (to, _) in MOVES.items()}
    assert all(MOVES[SagaState(one.at), one.on][1] in one.sends for one in moving)
    staying = {(one.at, one.on) for one in ORDER_SAGA.rows if one.stays}
    assert staying == {(state, event) for state, events in LATE.items() for event in events}
    assert ORDER_SAGA.sends.keys() | {OrderCompleted} == EVENTS.keys()


def test_only_commands_are_sent_before_the_end() -> None:
    """While a saga runs, the orchestrator tells others what to do, and then what has become of it."""
    for to, sent in MOVES.values():
        assert issubclass(sent, Command) == (to not in {*ORDER_SAGA.ends, STUCK})


def test_a_saga_that_runs_can_always_be_asked_about_again() -> None:
    """Each state in which an answer is waited for has a way on for a deadline, and none has one elsewhere."""
    waits = {R, PAYING, UNDOING}
    for passed in (Overdue, TimedOut):
        assert {state for state, event in MOVES if event is passed} == waits
    assert handle_event(SAGAS[DONE], OVERDUE) == Decision(SAGAS[DONE])
