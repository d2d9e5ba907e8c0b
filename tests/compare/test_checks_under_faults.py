"""What is right though something went wrong: the checks know a fault's traces from a service's mistakes."""

from __future__ import annotations

from typing import Final

import pytest

from common.messages import CancelOrder, ReleaseInventory, RetryCompensation
from common.wiring import Mode
from compare.checks import Verdict, judge, verdict_of
from compare.recording import Recording
from compare.scenario import Scenario
from tests.compare.faulty import Wire, recorded_under, refusing
from tests.compare.planting import (
    PAID_ORDER,
    and_then,
    base,
    recording_with,
    refunded_too_late_in_history,
)
from tests.compare.recordings import CHOREOGRAPHED, DECLINED, ORCHESTRATED, PAID, scenario

MODES: Final = pytest.mark.parametrize("mode", [ORCHESTRATED, CHOREOGRAPHED], ids=lambda mode: mode.name)
REQUEST: Final = {"orchestrated": "ReserveInventory", "choreographed": "OrderCreated"}
"""By mode: what asks for a reservation."""
ALWAYS: Final = 1000


def failing(reason: str, **more: object) -> Scenario:
    """One order that could be paid, and is expected to fail all the same."""
    return scenario({**PAID, "expect": {"status": "FAILED", "reason": reason}, **more})


def stuck(**more: object) -> Scenario:
    """One order whose undo is expected to fail for good."""
    return scenario(
        {**DECLINED, "expect": {"status": "COMPENSATION_FAILED", "reason": "payment_declined"}, **more}
    )


def invalid(scenario_: Scenario, recording: Recording) -> list[str]:
    """The checks that fail."""
    return [one.check for one in judge(scenario_, recording) if one.verdict is not Verdict.VALID]


def types(recording: Recording) -> set[str]:
    """The types of all records."""
    return {record.type for record in recording.trace}


@MODES
def test_a_lost_answer_that_is_told_again(mode: Mode) -> None:
    """The payment is asked for again, and its stored outcome comes under its old id: one charge."""
    wire = Wire("lose", "PaymentProcessed")
    recording = recorded_under(scenario(PAID), mode, wire=wire)
    assert recording.lost == {}
    assert max(record.attempt for record in recording.trace) == 2
    assert invalid(scenario(PAID), recording) == []


@MODES
def test_an_answer_that_never_comes(mode: Mode) -> None:
    """Nobody has seen the charge, and its refund is right all the same: a fault took its record away."""
    wire = Wire("lose", "PaymentProcessed", ALWAYS)
    recording = recorded_under(failing("timed_out"), mode, wire=wire)
    assert "PaymentProcessed" not in types(recording)
    assert "PaymentRefunded" in types(recording)
    assert invalid(failing("timed_out"), recording) == []
    without = recording.model_copy(update={"strikes": ()})
    assert invalid(failing("timed_out"), without) == ["undone means done before"]


@MODES
def test_a_record_that_a_fault_has_broken(mode: Mode) -> None:
    """The dead letter, and the record that can't be read, are the fault's doing; without it they are not."""
    wire = Wire("poison", REQUEST[mode.name])
    recording = recorded_under(failing("dead_letter"), mode, wire=wire)
    assert [(letter.type, letter.reason) for letter in recording.dead_letters] == [
        (REQUEST[mode.name], "unreadable")
    ]
    assert [record.type for record in recording.trace if record.poisoned] == [REQUEST[mode.name]]
    assert invalid(failing("dead_letter"), recording) == []
    without = recording.model_copy(update={"strikes": ()})
    assert invalid(failing("dead_letter"), without) == ["everything is accounted for"]


@MODES
@pytest.mark.parametrize("type_", ["InventoryReserved", "PaymentProcessed", "PaymentDeclined"])
def test_a_broken_answer(mode: Mode, type_: str) -> None:
    """Of an answer that nobody can read, the headers say what has happened."""
    wire = Wire("poison", type_)
    one = scenario({**(DECLINED if type_ == "PaymentDeclined" else PAID), "expect": {"completed": 1}})
    recording = recorded_under(one, mode, wire=wire)
    assert [record.type for record in recording.trace if record.poisoned] == [type_]
    assert set(invalid(one, recording)) <= {"orders end as expected"}


@MODES
def test_an_undo_that_fails_for_good(mode: Mode) -> None:
    """The order is COMPENSATION_FAILED and holds its goods, as was expected; FAILED it must not be."""
    recording = recorded_under(stuck(), mode, probe=refusing(ReleaseInventory, "inventory", ALWAYS))
    (order,) = recording.orders
    assert (order.status, order.quantity_held) == ("COMPENSATION_FAILED", 1)
    assert invalid(stuck(), recording) == []
    assert invalid(scenario(DECLINED), recording) == ["every order ends", "orders end as expected"]


@MODES
def test_an_undo_that_an_operator_has_tried_again(mode: Mode) -> None:
    """COMPENSATION_FAILED first, and FAILED in the end, is one history in both accounts."""
    refuse = refusing(ReleaseInventory, "inventory")
    recording = recorded_under(scenario(DECLINED), mode, probe=refuse, later=[RetryCompensation])
    assert {"OrderCompensationFailed", "OrderFailed"} <= types(recording)
    assert invalid(scenario(DECLINED), recording) == []


@MODES
def test_a_cancel_of_an_order_that_is_over(mode: Mode) -> None:
    """It changes nothing."""
    recording = recorded_under(scenario(PAID), mode, later=[CancelOrder])
    assert invalid(scenario(PAID), recording) == []


def test_a_charge_that_a_cancel_is_told_of() -> None:
    """A cancel that comes too late is answered with the charge there was: that is no second one."""
    case = and_then(base(CHOREOGRAPHED), PAID_ORDER, "PaymentProcessed", amount_cents=200_00)
    *before, last = case.recording.trace
    told = recording_with(case, trace=(*before, last.model_copy(update={"cause": "OrderCancelRequested"})))
    assert verdict_of(judge(*case)) is Verdict.INVALID
    assert verdict_of(judge(*told)) is Verdict.VALID


def test_an_interrupted_service_may_give_a_record_up_twice() -> None:
    """Two that are counted and one that is there are right if a crash came in between."""
    refuse = refusing(ReleaseInventory, "inventory", ALWAYS)
    recording = recorded_under(stuck(), CHOREOGRAPHED, probe=refuse)
    counts = {**recording.counts, "inventory": {"dead_letter": len(recording.dead_letters) + 1}}
    twice = recording.model_copy(update={"counts": counts})
    assert invalid(stuck(), twice) == ["everything is accounted for"]
    crash = recording.strikes[0].model_copy(update={"kind": "crash"})
    assert invalid(stuck(), twice.model_copy(update={"strikes": (*recording.strikes, crash)})) == []


def test_what_was_lost_is_part_of_the_history() -> None:
    """The charge that nobody has seen is what a refund of another amount contradicts."""
    one = failing("timed_out")
    recording = recorded_under(one, CHOREOGRAPHED, wire=Wire("lose", "PaymentProcessed", ALWAYS))
    trace = tuple(
        record.model_copy(update={"body": {**record.body, "amount_cents": 500}})
        if record.type == "PaymentRefunded"
        else record
        for record in recording.trace
    )
    found = judge(one, recording.model_copy(update={"trace": trace}))
    history = next(one.history for one in found if one.check == "charged means completed or refunded")
    assert [(line.evidence, line.where.partition(":")[0]) for line in history] == [
        ("lost", "payment"),
        ("record", "payment"),
    ]
    assert history[0].what == "PaymentProcessed gets lost"


def test_a_wrong_clock_makes_times_worthless() -> None:
    """What the databases' times seem to say of two services is no evidence then."""
    late = refunded_too_late_in_history(base(CHOREOGRAPHED))
    check = "undone in reverse order"
    assert check in invalid(late.scenario, late.recording)
    skew = {"fault": "clock_skew", "service": "payment", "seconds": 5}
    assert check not in invalid(scenario(PAID, DECLINED, faults=[skew]), late.recording)
