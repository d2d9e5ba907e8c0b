"""Faults: a file's mistakes are named, and one file hits the same thing in both modes."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pydantic import ValidationError

from common.messages import Step
from common.wiring import Mode
from compare.aim import aim, not_applicable
from compare.faults import OWNERS, Fault, FaultSpec, Which
from tests.compare.recordings import CHOREOGRAPHED, ORCHESTRATED

MISTAKES: Final[list[tuple[dict[str, Any], str]]] = [
    ({"fault": "crash"}, "a crash strikes at a step; add `step`"),
    ({"fault": "clock_skew", "seconds": 3}, "name the `service` whose clock it is"),
    ({"fault": "stop", "step": "pay"}, "say how long the stop is; add `seconds`"),
    ({"fault": "delay", "step": "pay", "seconds": -1}, "only a clock can be behind"),
    ({"fault": "crash", "step": "pay", "times": "always"}, "a crash can't strike always"),
    ({"fault": "crash", "step": "place"}, "only the `record: answer` of placing can be struck"),
    ({"fault": "lose", "step": "place"}, "only the `record: answer` of placing can be struck"),
    (
        {"fault": "lose", "step": "complete", "record": "answer"},
        "nobody waits to hear of an order's end, so nobody would miss it",
    ),
    (
        {"fault": "crash", "step": "pay", "service": "orchestrator"},
        "a mode has no orchestrator; name the service to hit there, as `instead`",
    ),
    ({"fault": "explode", "step": "pay"}, "Input should be 'crash'"),
    ({"fault": "crash", "step": "pay", "at": "never"}, "Input should be 'before'"),
]

REQUESTS: Final[dict[Step, tuple[set[str], set[str]]]] = {
    Step.RESERVE: ({"ReserveInventory"}, {"OrderCreated"}),
    Step.PAY: ({"ProcessPayment"}, {"InventoryReserved"}),
    Step.CANCEL: ({"CancelPayment"}, {"OrderCancelRequested"}),
    Step.REFUND: ({"RefundPayment"}, {"OrderAborted"}),
    Step.RELEASE: ({"ReleaseInventory"}, {"PaymentDeclined", "PaymentRefunded"}),
    Step.COMPLETE: (
        {"SagaCompleted", "SagaFailed", "SagaCompensationFailed"},
        {
            "PaymentProcessed",
            "InventoryRejected",
            "InventoryReleased",
            "InventoryReleaseFailed",
            "PaymentRefundFailed",
        },
    ),
}
"""By step: what makes its service carry it out, orchestrated and choreographed."""
ANSWERS: Final[dict[Step, set[str]]] = {
    Step.RESERVE: {"InventoryReserved", "InventoryRejected"},
    Step.PAY: {"PaymentProcessed", "PaymentDeclined"},
    Step.REFUND: {"PaymentRefunded", "PaymentRefundFailed"},
    Step.RELEASE: {"InventoryReleased", "InventoryReleaseFailed"},
    Step.COMPLETE: {"OrderCompleted", "OrderFailed", "OrderCompensationFailed"},
}
"""By step: what its service tells of it, the same in both modes."""


@pytest.mark.parametrize(("fields", "says"), MISTAKES)
def test_a_mistake_in_a_fault_is_named(fields: dict[str, Any], says: str) -> None:
    """A fault that lacks something, or can't be had, says so and what to do."""
    with pytest.raises(ValidationError) as raised:
        FaultSpec.model_validate(fields)
    assert any(says in str(error["msg"]) for error in raised.value.errors())


@pytest.mark.parametrize("step", REQUESTS)
def test_a_step_is_asked_for_by_each_modes_own_records(step: Step) -> None:
    """The request of a step is a command in one mode and another service's event in the other."""
    spec = FaultSpec(fault=Fault.LOSE, step=step)
    left, right = (aim(0, spec, mode) for mode in (ORCHESTRATED, CHOREOGRAPHED))
    assert (set(left.records), set(right.records)) == REQUESTS[step]
    assert left.service == right.service == OWNERS[step]


@pytest.mark.parametrize("step", ANSWERS)
@pytest.mark.parametrize("mode", [ORCHESTRATED, CHOREOGRAPHED], ids=lambda mode: mode.name)
def test_a_step_is_answered_by_the_same_events_in_both_modes(step: Step, mode: Mode) -> None:
    """The answer is what the domain tells, so coordination makes no difference to it."""
    assert (
        aim(0, FaultSpec(fault=Fault.DUPLICATE, step=step, record=Which.ANSWER), mode).records
        == ANSWERS[step]
    )


def test_placing_is_answered_by_what_starts_the_saga() -> None:
    """An order is placed from outside; what tells of it is a command in one mode, an event in the other."""
    spec = FaultSpec(fault=Fault.LOSE, step=Step.PLACE, record=Which.ANSWER)
    assert aim(0, spec, ORCHESTRATED).records == {"SagaStarted"}
    assert aim(0, spec, CHOREOGRAPHED).records == {"OrderCreated"}


def test_every_step_that_can_be_asked_for_has_a_service() -> None:
    """No step of the domain is left out of the tables above."""
    assert set(REQUESTS) | {Step.PLACE} == set(Step) == set(OWNERS)


def test_an_orchestrator_is_hit_where_there_is_one() -> None:
    """It is hit when it handles what it learns of the step; elsewhere another service is."""
    spec = FaultSpec(fault=Fault.CRASH, step=Step.PAY, service="orchestrator", instead="order")
    there, elsewhere = aim(0, spec, ORCHESTRATED), aim(0, spec, CHOREOGRAPHED)
    assert there.service == "orchestrator"
    assert {command.__name__ for command in there.commands} == {"PaymentProcessed", "PaymentDeclined"}
    assert elsewhere.service == "order"
    assert {command.__name__ for command in elsewhere.commands} == {"CompleteOrder"}
    assert not_applicable(spec, ORCHESTRATED) is None
    assert not_applicable(spec, CHOREOGRAPHED) == (
        "there is no orchestrator here: the crash hits the order service instead"
    )
