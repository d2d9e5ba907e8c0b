"""The checker can fail: for every check there is a recording that breaks it, and the check says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import pytest

from common.wiring import Mode
from compare.checks import CHECKS, Finding, Verdict, judge, verdict_of
from compare.recording import OrderEnd, Recording, StateChange, TraceRecord
from compare.scenario import Scenario
from tests.compare.recordings import (
    CHOREOGRAPHED,
    DECLINED,
    ORCHESTRATED,
    PAID,
    recorded,
    scenario,
    with_trace,
)

BASE: Final = scenario(PAID, DECLINED)
PAID_ORDER, DECLINED_ORDER = 0, 1
TIMED_OUT: Final = "after 30 s, 1 of 2 orders had ended"


class Case(NamedTuple):
    """What the judge is given."""

    scenario: Scenario
    recording: Recording

    @property
    def orders(self) -> tuple[OrderEnd, ...]:
        return self.recording.orders


class Violation(NamedTuple):
    """How to break one check, what it says then, and which checks can't but break with it."""

    breaks: Callable[[Case], Case]
    says: str
    entails: frozenset[str] = frozenset()
    mode: Mode = CHOREOGRAPHED


@cache
def base(mode: Mode) -> Case:
    """One order that is paid and one that is declined: everything in it is right."""
    return Case(BASE, recorded(BASE, mode))


def record_of(case: Case, order: int, type_: str) -> TraceRecord:
    """The record of this type in the trace of an order."""
    order_id = case.orders[order].order_id
    return next(one for one in case.recording.trace if (one.order_id, one.type) == (order_id, type_))


def order_with(case: Case, order: int, **changes: object) -> Case:
    """The case, with an order that ended otherwise."""
    orders = list(case.orders)
    orders[order] = orders[order].model_copy(update=changes)
    return case._replace(recording=case.recording.model_copy(update={"orders": tuple(orders)}))


def recording_with(case: Case, **changes: object) -> Case:
    """The case, with other facts in its recording."""
    return case._replace(recording=case.recording.model_copy(update=changes))


def record_with(case: Case, order: int, type_: str, **changes: object) -> Case:
    """The case, with a record of an order changed."""
    found = record_of(case, order, type_)
    trace = (one.model_copy(update=changes) if one is found else one for one in case.recording.trace)
    return case._replace(recording=with_trace(case.recording, trace))


def without(case: Case, order: int, type_: str) -> Case:
    """The case, with a record of an order missing."""
    found = record_of(case, order, type_)
    trace = (one for one in case.recording.trace if one is not found)
    return case._replace(recording=with_trace(case.recording, trace))


def and_then(case: Case, order: int, *types: str) -> Case:
    """The case, with further records at the end of an order, as if they had been told."""
    last = record_of(case, order, "OrderFailed" if order == DECLINED_ORDER else "OrderCompleted")
    more = (last.model_copy(update={"type": type_, "id": f"{last.id}-{type_}"}) for type_ in types)
    return case._replace(recording=with_trace(case.recording, (*case.recording.trace, *more)))


def expecting(case: Case, *orders: dict[str, Any], **fields: object) -> Case:
    """The case, judged by another scenario."""
    return case._replace(scenario=scenario(*orders, **fields))


def never_ends(case: Case) -> Case:
    """The declined order stays PENDING, and nothing is told of its end."""
    return order_with(without(case, DECLINED_ORDER, "OrderFailed"), DECLINED_ORDER, status="PENDING")


def charged_twice(case: Case) -> Case:
    """The databases say that the paid order was charged a second time."""
    charge = next(one for one in case.recording.changes if one.to_status == "CHARGED")
    return recording_with(case, changes=(*case.recording.changes, charge))


def oversold_for_a_while(case: Case) -> Case:
    """Pieces that nobody has are reserved again and again, and all given back before the end."""
    history = case.recording.changes
    taken = next(one for one in history if one.to_status == "RESERVED")
    given_back = taken.model_copy(update={"from_status": "RESERVED", "to_status": "RELEASED"})
    return recording_with(case, changes=(*history, *[taken] * 10, *[given_back] * 10))


def refunded_too_late(case: Case) -> Case:
    """The goods are released first, the payment is refunded after them."""
    return and_then(case, DECLINED_ORDER, "PaymentProcessed", "PaymentRefunded")


VIOLATIONS: Final = {
    "every order ends": [
        Violation(never_ends, r"order 2 \(.*\) is PENDING", entails=frozenset({"orders end as expected"})),
    ],
    "orders end as expected": [
        Violation(
            lambda case: expecting(case, {**PAID, "expect": DECLINED["expect"]}, DECLINED),
            r"order 1 \(.*\): expected FAILED for payment_declined, got COMPLETED",
        ),
        Violation(
            lambda case: expecting(
                case, PAID, {**DECLINED, "expect": {"status": "FAILED", "reason": "out_of_stock"}}
            ),
            r"order 2 \(.*\): expected FAILED for out_of_stock, got FAILED for payment_declined",
        ),
        Violation(
            lambda case: expecting(case, {**PAID, "expect": {"failed": 1}}, DECLINED),
            "of 1 orders for laptop, expected 0 COMPLETED and 1 FAILED, got 1 and 0",
        ),
        Violation(
            lambda case: expecting(
                case, PAID, {**DECLINED, "expect": {"failed": 1, "reason": "out_of_stock"}}
            ),
            r"order 2 \(.*\): expected to fail for out_of_stock, got FAILED for payment_declined",
        ),
    ],
    "stock is as expected": [
        Violation(
            lambda case: expecting(case, PAID, DECLINED, expect={"stock": {"laptop": 10}}),
            "laptop: expected 10 free, got 9",
        ),
    ],
    "stock is conserved": [
        Violation(
            lambda case: recording_with(case, stock={"laptop": 8}),
            "laptop: 8 free and 1 held are not the 10",
        ),
        Violation(lambda case: recording_with(case, stock={}), "laptop: 0 free and 1 held are not the 10"),
    ],
    "stock is never negative": [
        Violation(lambda case: recording_with(case, stock={"laptop": 9, "phone": -1}), "phone: -1 free"),
        Violation(oversold_for_a_while, "laptop: -1 free after order .* was RESERVED"),
    ],
    "charged at most once": [
        Violation(charged_twice, r"order 1 \(.*\) was charged 2 times"),
        Violation(
            lambda case: and_then(case, PAID_ORDER, "PaymentProcessed"), r"order 1 \(.*\) was charged 2 times"
        ),
    ],
    "charged means completed or refunded": [
        Violation(
            lambda case: order_with(case, DECLINED_ORDER, payment="CHARGED"),
            r"order 2 \(.*\) is charged, but FAILED",
            entails=frozenset({"failed holds nothing"}),
        ),
    ],
    "completed means paid and held": [
        Violation(
            lambda case: order_with(case, PAID_ORDER, amount_cents=199_99),
            r"order 1 \(.*\) is COMPLETED, due 20000 cents .* of 19999 cents",
        ),
        Violation(
            lambda case: order_with(case, PAID_ORDER, payment="REFUNDED"), r"order 1 .* payment REFUNDED"
        ),
        Violation(
            lambda case: recording_with(order_with(case, PAID_ORDER, quantity_held=0), stock={"laptop": 10}),
            r"order 1 .* 0 held",
        ),
    ],
    "failed holds nothing": [
        Violation(
            lambda case: recording_with(
                order_with(case, DECLINED_ORDER, quantity_held=1), stock={"laptop": 8}
            ),
            r"order 2 \(.*\) is FAILED, but 1 held",
        ),
    ],
    "undone means done before": [
        Violation(
            lambda case: without(case, DECLINED_ORDER, "InventoryReserved"),
            r"order 2 \(.*\): InventoryReleased without InventoryReserved before it",
        ),
        Violation(
            lambda case: and_then(without(case, DECLINED_ORDER, "InventoryReleased"), 1, "PaymentRefunded"),
            r"order 2 \(.*\): PaymentRefunded without PaymentProcessed before it",
        ),
    ],
    "undone in reverse order": [
        Violation(refunded_too_late, r"order 2 \(.*\): goods were released before the payment was refunded"),
    ],
    "told as stored": [
        Violation(
            lambda case: without(case, DECLINED_ORDER, "OrderFailed"),
            r"order 2 \(.*\) is FAILED, but the broker has no end of it",
        ),
        Violation(
            lambda case: and_then(case, PAID_ORDER, "OrderFailed"),
            r"order 1 \(.*\) is COMPLETED, but the broker has \['OrderCompleted', 'OrderFailed'\]",
        ),
    ],
    "saga and order agree": [
        Violation(
            lambda case: order_with(case, DECLINED_ORDER, saga="COMPENSATING"),
            r"order 2 \(.*\) is FAILED, but its saga is COMPENSATING",
            mode=ORCHESTRATED,
        ),
    ],
    "one order, one partition": [
        Violation(
            lambda case: record_with(case, PAID_ORDER, "OrderCompleted", partition=7),
            r"order 1 \(.*\) is on partitions \[\d, 7\]",
        ),
    ],
    "every record has its cause": [
        Violation(
            lambda case: record_with(case, PAID_ORDER, "PaymentProcessed", cause=None, causation_id="who?"),
            r"order 1 \(.*\): PaymentProcessed comes from who\?",
        ),
    ],
    "every record is understood": [
        Violation(lambda case: recording_with(case, unreadable_records=3), "3 records could not be read"),
        Violation(lambda case: recording_with(case, stray_records=2), "2 records are of no order"),
    ],
}
ALL: Final = [
    pytest.param(name, violation, id=f"{name}-{number}")
    for name, violations in VIOLATIONS.items()
    for number, violation in enumerate(violations, start=1)
]
FINAL: Final = {check.name for check in CHECKS if check.final}


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
    """What can't be mended is invalid though time ran out; what might yet have come right is unknown."""
    case = recording_with(violation.breaks(base(violation.mode)), unfinished=TIMED_OUT)
    assert verdicts(case)[check] is (Verdict.INVALID if check in FINAL else Verdict.UNKNOWN)
    final = FINAL & ({check} | violation.entails)
    assert overall(case) is (Verdict.INVALID if final else Verdict.UNKNOWN)


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
