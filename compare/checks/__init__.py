"""The judge: invariants that no mode may break, and the scenario's own expectations.

There are two accounts of what happened: the databases', and that of the records which an observer read from
the broker (`databases`, `records`). The invariants are applied to each by itself (`invariants`), and the two
must agree (`integrity`), so that neither can hide what the other shows. What is found wrong comes with the
shortest history that shows it (`witness`).

A verdict has three values, as in Jepsen's and Maelstrom's checkers: a replay that ran out of time is
`unknown`, never a pass, unless something is broken whatever would have come later.
"""

from __future__ import annotations

from typing import Final

from compare.checks import expectations, integrity, invariants
from compare.checks.case import Case, Check, Fault
from compare.checks.invariants import by_both, by_databases, by_records
from compare.checks.verdict import Evidence, Finding, HistoryLine, Verdict, verdict_of
from compare.checks.witness import history_of
from compare.recording import Recording
from compare.scenario import Scenario

__all__ = ["CHECKS", "Evidence", "Finding", "HistoryLine", "Verdict", "judge", "verdict_of"]

_SHOWN_FAULTS: Final = 5


def judge(scenario: Scenario, recording: Recording) -> tuple[Finding, ...]:
    """Apply every check to a recording."""
    case = Case(scenario, recording)
    return tuple(_finding(check, case) for check in CHECKS)


def _finding(check: Check, case: Case) -> Finding:
    unfinished = case.recording.unfinished
    faults = list(check.lasting(case)) if check.lasting else []
    if check.pending and unfinished is None:
        faults += check.pending(case)
    if faults:
        return Finding(
            check=check.name,
            verdict=Verdict.INVALID,
            faults=_shown(faults),
            history=history_of(check, faults[0], case),
        )
    if check.pending and unfinished is not None:
        return Finding(check=check.name, verdict=Verdict.UNKNOWN, faults=(unfinished,))
    return Finding(check=check.name, verdict=Verdict.VALID)


def _shown(faults: list[Fault]) -> tuple[str, ...]:
    more = [f"and {len(faults) - _SHOWN_FAULTS} more"] if len(faults) > _SHOWN_FAULTS else []
    return (*(fault.text for fault in faults[:_SHOWN_FAULTS]), *more)


CHECKS: Final = (
    Check(
        "every order ends",
        lasting=by_both(invariants.ends_once),
        pending=invariants.every_order_ends,
        whole_path=True,
    ),
    Check("orders end as expected", pending=expectations.orders_end_as_expected, whole_path=True),
    Check("stock is as expected", pending=expectations.stock_is_as_expected),
    Check("stock is conserved", pending=invariants.stock_is_conserved),
    Check(
        "stock is never negative",
        lasting=invariants.stock_is_never_negative,
        pending=invariants.stock_is_never_negative_in_time,
    ),
    Check("charged at most once", lasting=by_both(invariants.charged_once)),
    Check(
        "charged means completed or refunded",
        lasting=invariants.money_is_returned,
        pending=by_both(invariants.charged_means_completed),
    ),
    # The observer may not have read all topics equally far, so what it has not read yet proves nothing.
    Check(
        "completed means paid and held",
        lasting=by_databases(invariants.completed_means_paid_and_held),
        pending=by_records(invariants.completed_means_paid_and_held),
    ),
    Check(
        "failed holds nothing",
        lasting=by_databases(invariants.failed_holds_nothing),
        pending=by_records(invariants.failed_holds_nothing),
    ),
    Check(
        "undone means done before",
        lasting=by_databases(invariants.undone_after_done),
        pending=by_records(invariants.undone_after_done),
    ),
    Check("undone in reverse order", lasting=invariants.undone_in_reverse_order),
    Check("records and databases agree", pending=integrity.records_and_databases_agree),
    Check("saga and order agree", pending=integrity.saga_and_order_agree),
    Check("one order, one partition", lasting=integrity.one_partition_per_order),
    Check("every record has its cause", pending=integrity.every_record_has_its_cause),
    Check(
        "everything is accounted for",
        lasting=integrity.everything_is_accounted_for,
        pending=integrity.every_dead_letter_is_there,
    ),
)
