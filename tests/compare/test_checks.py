"""The checker can fail: for every check there is a recording that breaks it, and the check says so.

The databases may lie, or the records; what each of them shows by itself is judged, and so is the difference.
"""

from __future__ import annotations

import re
from typing import Final

import pytest

from common.wiring import Mode
from compare.checks import CHECKS, Finding, Verdict, judge, verdict_of
from compare.recording import StateChange
from tests.compare.planting import (
    PAID_ORDER,
    Case,
    base,
    charged_twice,
    expecting,
    order_with,
    recording_with,
)
from tests.compare.recordings import CHOREOGRAPHED, DECLINED, ORCHESTRATED, PAID, recorded, scenario
from tests.compare.violations import VIOLATIONS, Violation

TIMED_OUT: Final = "after 30 s, 1 of 2 orders had ended"
ALL: Final = [
    pytest.param(name, violation, id=f"{name}-{number}")
    for name, violations in VIOLATIONS.items()
    for number, violation in enumerate(violations, start=1)
]


def verdicts(case: Case) -> dict[str, Verdict]:
    """By check: what it says."""
    return {finding.check: finding.verdict for finding in judge(*case)}


def overall(case: Case) -> Verdict:
    """What the judge says in all."""
    return verdict_of(judge(*case))


def finding(case: Case, check: str) -> Finding:
    """What one check has found."""
    return next(one for one in judge(*case) if one.check == check)


def test_every_check_has_a_violation() -> None:
    """No check is trusted that was never seen to fail."""
    assert VIOLATIONS.keys() == {check.name for check in CHECKS}


@pytest.mark.parametrize("mode", [ORCHESTRATED, CHOREOGRAPHED], ids=lambda mode: mode.name)
def test_a_right_recording_is_valid(mode: Mode) -> None:
    """Nothing is found where nothing is wrong."""
    assert set(verdicts(base(mode)).values()) == {Verdict.VALID}
    assert not any(finding.faults for finding in judge(*base(mode)))


@pytest.mark.parametrize(("check", "violation"), ALL)
def test_a_violation_is_found_by_its_check(check: str, violation: Violation) -> None:
    """The check that is broken says what is wrong, and no other check cries with it."""
    case = violation.breaks(base(violation.mode))
    invalid = {name for name, verdict in verdicts(case).items() if verdict is Verdict.INVALID}
    assert invalid == {check} | violation.entails
    assert re.search(violation.says, "\n".join(finding(case, check).faults))
    assert overall(case) is Verdict.INVALID


@pytest.mark.parametrize(("check", "violation"), ALL)
def test_a_violation_before_a_timeout(check: str, violation: Violation) -> None:
    """What can't be mended is invalid though time ran out; what might yet have come right is never valid."""
    case = recording_with(violation.breaks(base(violation.mode)), unfinished=TIMED_OUT)
    found = verdicts(case)[check]
    if violation.lasts:
        assert found is Verdict.INVALID
    else:
        assert found is Verdict.UNKNOWN
    assert overall(case) is not Verdict.VALID


@pytest.mark.parametrize(("check", "violation"), ALL)
def test_a_violation_comes_with_its_shortest_history(check: str, violation: Violation) -> None:
    """Every finding shows what it is made of, and nothing else."""
    case = violation.breaks(base(violation.mode))
    history = [line.what for line in finding(case, check).history]
    assert history
    if violation.shows:
        assert len(history) == len(violation.shows), history
        assert all(words in what for words, what in zip(violation.shows, history, strict=True)), history


def test_an_unfinished_recording_is_never_valid() -> None:
    """A timeout is unknown and says why, even if all there is looks right."""
    case = recording_with(base(CHOREOGRAPHED), unfinished=TIMED_OUT)
    assert overall(case) is Verdict.UNKNOWN
    assert finding(case, "every order ends").faults == (TIMED_OUT,)


def test_an_unfinished_recording_with_a_double_charge_is_invalid() -> None:
    """No time that is left could make a double charge right."""
    assert (
        overall(recording_with(charged_twice(base(CHOREOGRAPHED)), unfinished=TIMED_OUT)) is Verdict.INVALID
    )


def test_a_repeated_delivery_is_no_second_charge() -> None:
    """The same record twice tells of one charge and of one end."""
    twice = scenario(PAID, deliveries=2)
    case = Case(twice, recorded(twice, CHOREOGRAPHED))
    assert [one.duplicate for one in case.recording.trace].count(True) == 4
    assert overall(case) is Verdict.VALID


def test_an_order_that_was_never_placed_has_not_ended() -> None:
    """An order without a row is told apart from one that waits."""
    case = order_with(base(CHOREOGRAPHED), PAID_ORDER, status="(never placed)")
    assert "(never placed)" in finding(case, "every order ends").faults[0]
    unheard_of = recording_with(case, trace=(), changes=())
    assert [line.what for line in finding(unheard_of, "every order ends").history] == [
        "RESERVED, 1 held",
        "CHARGED, 20000 cents",
    ]


def test_an_order_that_waits_for_its_refund_is_not_over() -> None:
    """A charge of an order that is neither completed nor refunded is found."""
    case = order_with(base(CHOREOGRAPHED), PAID_ORDER, status="PENDING")
    assert finding(case, "charged means completed or refunded").verdict is Verdict.INVALID


def test_a_failure_for_any_reason_may_be_expected() -> None:
    """An expectation without a reason takes any; the text says so where the status is wrong."""
    any_reason = {**PAID, "expect": "FAILED"}
    case = expecting(base(CHOREOGRAPHED), any_reason, {**DECLINED, "expect": "FAILED"})
    (fault,) = finding(case, "orders end as expected").faults
    assert "expected FAILED, got COMPLETED" in fault


def test_many_faults_are_cut_short() -> None:
    """After five faults a number says how many more there are."""
    many = scenario({**PAID, "count": 8}, expect={"stock": {"laptop": 2}})
    case = Case(many, recorded(many, CHOREOGRAPHED))
    assert overall(case) is Verdict.VALID
    faults = finding(expecting(case, {**DECLINED, "count": 8}), "orders end as expected").faults
    assert len(faults) == 6
    assert faults[-1] == "and 3 more"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), Verdict.UNKNOWN),
        ((Verdict.VALID,), Verdict.VALID),
        ((Verdict.VALID, Verdict.VALID), Verdict.VALID),
        ((Verdict.VALID, Verdict.UNKNOWN), Verdict.UNKNOWN),
        ((Verdict.UNKNOWN, Verdict.VALID), Verdict.UNKNOWN),
        ((Verdict.VALID, Verdict.INVALID), Verdict.INVALID),
        ((Verdict.UNKNOWN, Verdict.INVALID), Verdict.INVALID),
        ((Verdict.INVALID, Verdict.UNKNOWN, Verdict.VALID), Verdict.INVALID),
    ],
)
def test_the_worst_verdict_counts(given: tuple[Verdict, ...], expected: Verdict) -> None:
    """One invalid makes all invalid, else one unknown all unknown; nothing at all proves nothing."""
    assert verdict_of(given) is expected
    assert verdict_of(Finding(check="any", verdict=verdict) for verdict in given) is expected


def test_changes_of_other_services_are_no_charges() -> None:
    """Only the Payment service's own history counts as a charge."""
    case = base(CHOREOGRAPHED)
    strange = StateChange(
        order_id=case.orders[0].order_id,
        service="order",
        at_ms=1,
        cause_id="any",
        from_status="PENDING",
        to_status="CHARGED",
    )
    changed = recording_with(case, changes=(*case.recording.changes, strange, strange))
    assert finding(changed, "charged at most once").verdict is Verdict.VALID
