"""What the report shows of faults: where they struck, what they cost, and what is wrong because of them."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

import pytest
from rich.cells import cell_len

from common.messages import ReleaseInventory, RetryCompensation
from compare.lab import MODES
from compare.recording import Requested, Strike
from compare.report import Report
from compare.result import ScenarioResult, scenario_result
from compare.scenario import Scenario
from tests.compare.faulty import recorded_under, refusing
from tests.compare.planting import PAID_ORDER, base, charged_twice, recording_with
from tests.compare.recordings import CHOREOGRAPHED, DECLINED, PAID, both, scenario
from tests.compare.screens import screen

ENCODINGS: Final = pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
WIDTHS: Final = pytest.mark.parametrize("width", [80, 120, 200])
ONE: Final = scenario(DECLINED)


def shown(result: ScenarioResult, *, width: int = 120, encoding: str = "utf-8", verbose: bool = False) -> str:
    """A scenario's report as text."""
    with screen(width, encoding) as where:
        Report(where.console, verbose=verbose).scenario(result, 1)
        return where.text


def strike(at_ms: float, **changes: object) -> Strike:
    """The Payment service dies for a while."""
    one = Strike(
        fault=0,
        kind="crash",
        service="payment",
        boundary="committed",
        order_id=None,
        at_ms=at_ms,
        over_ms=at_ms + 95,
    )
    return one.model_copy(update=changes)


def with_facts(result: ScenarioResult, **facts: Any) -> ScenarioResult:  # noqa: ANN401 - facts are of many types
    """The result, with other facts in both recordings."""
    recordings = [mode.recording.model_copy(update=facts) for mode in result.modes]
    return scenario_result(ONE, recordings)


@cache
def declined() -> ScenarioResult:
    """A declined order, and no fault."""
    return both(ONE)


@cache
def retried() -> ScenarioResult:
    """An undo that fails for good, and that an operator has tried again."""
    undo = refusing(ReleaseInventory, "inventory")
    recordings = [recorded_under(ONE, mode, probe=undo, later=[RetryCompensation]) for mode in MODES.values()]
    asked = Requested(
        order_id=recordings[0].orders[0].order_id, what="retry_compensation", accepted=True, at_ms=1.0
    )
    return scenario_result(ONE, [one.model_copy(update={"requested": (asked,)}) for one in recordings])


def line_with(text: str, words: str) -> str:
    """The first line that has these words."""
    return next(line for line in text.splitlines() if words in line)


def summary(text: str) -> list[str]:
    """The labels of the figures."""
    lines = text[text.index(" summary") :].splitlines()[2:]
    return [re.split(r" {2,}", line.strip())[0] for line in lines if line.startswith(" ") and line.strip()]


@WIDTHS
@ENCODINGS
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_longer_than_the_output_is_wide(width: int, encoding: str, *, verbose: bool) -> None:
    """In every width and encoding, faults, dead letters and requests can be written."""
    recording = recording_with(charged_twice(base(CHOREOGRAPHED))).recording
    for result in (retried(), scenario_result(base(CHOREOGRAPHED).scenario, [recording])):
        text = shown(result, width=width, encoding=encoding, verbose=verbose)
        assert max(map(cell_len, text.splitlines())) <= width


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "⚡"), ("ascii", "!")])
def test_a_fault_has_a_line_in_its_modes_column(encoding: str, sign: str) -> None:
    """It says what struck whom, and where, and when it was over; the other column is empty there."""
    left, right = (mode.recording for mode in declined().modes)
    struck = right.model_copy(update={"strikes": (strike(1.5),)})
    text = shown(scenario_result(ONE, [left, struck]), encoding=encoding)
    line = line_with(text, f"1.5 {sign} crash payment at committed")
    column = line_with(text, "choreographed").index("choreographed")
    assert line[:column].strip(" |") in {"", "reserve"}
    assert "over at 96.5" in text
    assert f"{sign} fault" in text


def test_a_fault_in_both_modes_has_one_row() -> None:
    """Where both had it at the same point, they share the line."""
    text = shown(with_facts(declined(), strikes=(strike(0.5),)))
    assert line_with(text, "crash payment").count("crash payment at committed") == 2


def test_a_fault_that_is_over_at_once_says_no_more() -> None:
    """What struck a record is called by that; no boundary is named where there is none to choose."""
    gone = strike(0.5, kind="lose", boundary=None, record_type="OrderCreated", over_ms=0.5)
    error = strike(0.7, kind="permanent_error", boundary="decided", over_ms=0.7)
    text = shown(with_facts(declined(), strikes=(gone, error)))
    assert "⚡ lose OrderCreated " in text
    assert "⚡ permanent error payment " in text
    assert "over at" not in text


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "☠"), ("ascii", "#")])
def test_a_dead_letter_has_a_line_in_the_trace(encoding: str, sign: str) -> None:
    """With its topic and who gave it up; both modes' are in one row, at the step that was given up."""
    text = shown(retried(), encoding=encoding)
    line = line_with(text, f"{sign} ReleaseInventory")
    assert f"{sign} PaymentDeclined" in line
    assert re.search(r"saga\.commands\.dlq \d@0 inventory[ |]+payments\.events\.dlq \d@0 inventory", text)
    assert f"{sign} dead letter" in text


def test_the_error_of_a_dead_letter_is_for_who_wants_all() -> None:
    """Only --verbose has it, for it may be long."""
    assert "PermanentError: no" not in shown(retried())
    assert "PermanentError: no" in shown(retried(), verbose=True)


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "◆"), ("ascii", "+")])
def test_what_was_asked_for_has_a_line(encoding: str, sign: str) -> None:
    """An operator's wish, or a customer's, and whether it came in time."""
    assert f"{sign} retry of the compensation, accepted" in shown(retried(), encoding=encoding)
    order_id = declined().modes[0].recording.orders[0].order_id
    late = Requested(order_id=order_id, what="cancel", accepted=False, at_ms=99.0)
    text = shown(with_facts(declined(), requested=(late,)), encoding=encoding)
    assert f"{sign} cancel, refused" in text
    assert f"{sign} request" in text


def test_what_was_told_again_says_so() -> None:
    """An attempt above the first stands beside the cause."""
    assert re.search(r"← OrderAborted, attempt 2", shown(retried()))
    assert re.search(r"^ +attempt 2", shown(scenario_result(ONE, [told_again()])), re.MULTILINE)


def told_again() -> Any:  # noqa: ANN401 - a recording
    """A recording whose first record is told twice."""
    recording = declined().modes[1].recording
    first = recording.trace[0].model_copy(update={"attempt": 2, "duplicate": True})
    return recording.model_copy(update={"trace": (recording.trace[0], first, *recording.trace[1:])})


def test_a_record_that_cannot_be_read_is_marked() -> None:
    """It has a place in the trace, as it has in the story."""
    recording = declined().modes[1].recording
    first = recording.trace[0].model_copy(update={"poisoned": True, "body": {}})
    broken = recording.model_copy(update={"trace": (first, *recording.trace[1:])})
    assert "● OrderCreated (poisoned)" in shown(scenario_result(ONE, [broken]))


ALWAYS: Final = [
    "outcome", "records", "commands", "events", "compensating", "delivered again",
    "topics", "hops to the end", "bytes", "time to the end (median)", "time to compensated",
]  # fmt: skip


def test_without_faults_there_are_no_rows_about_them() -> None:
    """The summary is as short as what happened."""
    assert summary(shown(declined())) == ALWAYS
    assert summary(shown(both(scenario(PAID, deliveries=2)))) == ALWAYS


def test_with_faults_there_are_rows_for_what_there_was() -> None:
    """What is nothing in both modes is left out; what struck, and how long it took to recover, is shown."""
    text = shown(retried())
    assert summary(text) == [
        *ALWAYS, "faults that struck", "time to recover", "asked again", "dead letters",
    ]  # fmt: skip
    assert re.search(r"faults that struck +1 permanent error +1 permanent error", text)


def test_a_row_shows_nothing_where_only_the_other_mode_has_it() -> None:
    """A dash stands for none."""
    left, right = (mode.recording for mode in declined().modes)
    counts = {"payment": {"retried": 3, "overdue": 2, "timed_out": 1}}
    text = shown(scenario_result(ONE, [left, right.model_copy(update={"counts": counts})]))
    assert re.search(r"retries +- +3", text)
    assert re.search(r"deadlines passed +- +3 \(1 for the last time\)", text)


def test_a_compensation_that_failed_is_an_outcome_of_its_own() -> None:
    """It is not among the failed."""
    recording = declined().modes[1].recording
    orders = (recording.orders[0].model_copy(update={"status": "COMPENSATION_FAILED"}),)
    text = shown(scenario_result(ONE, [recording.model_copy(update={"orders": orders})]))
    assert re.search(r"outcome +1 compensation failed", text)


def test_a_fault_without_a_counterpart_is_explained() -> None:
    """Below the summary stands what was done instead."""
    left, right = (mode.recording for mode in declined().modes)
    note = "there is no orchestrator here: the crash hits the order service instead"
    text = shown(scenario_result(ONE, [left, right.model_copy(update={"not_applicable": (note,)})]))
    assert text.index(f"choreographed: {note}") > text.index(" summary")


def test_a_finding_comes_with_its_history() -> None:
    """What was told and stored, with times and places, below what is wrong."""
    case = charged_twice(base(CHOREOGRAPHED))
    text = shown(scenario_result(case.scenario, [case.recording]), width=160)
    where = text.index("charged at most once")
    history = text[where:].splitlines()[2:4]
    assert all("changed NONE to CHARGED  payment" in line for line in history)


def test_a_history_of_several_orders_names_them() -> None:
    """An order by its number; and what is of no order, by neither."""
    case = base(CHOREOGRAPHED)
    orders = tuple(order.model_copy(update={"quantity_held": 1}) for order in case.orders)
    wrong = recording_with(case, orders=orders)
    text = shown(scenario_result(case.scenario, [wrong.recording]), width=160)
    assert "stored RESERVED, 1 held  order 1, inventory" in text
    assert "stored RELEASED, 1 held  order 2, inventory" in text
    assert "stored laptop: 9 free  inventory" in text


def test_a_long_history_is_cut_short() -> None:
    """On a screen; the JSON document has all of it."""
    many: Scenario = scenario({**PAID, "count": 40}, stock={"laptop": 40})
    recording = both(many).modes[1].recording
    short = recording.model_copy(update={"stock": {"laptop": 1}})
    result = scenario_result(many, [short])
    text = shown(result)
    (history,) = (one.history for one in result.modes[0].findings if one.check == "stock is conserved")
    assert len(history) == 41
    assert "(16 earlier ones are left out here)" in text


def test_the_history_is_in_the_document() -> None:
    """As data: what it is taken from, of which order, when, where and what."""
    case = charged_twice(base(CHOREOGRAPHED))
    (mode,) = scenario_result(case.scenario, [case.recording]).modes
    line = next(one for one in mode.findings if one.check == "charged at most once").history[0]
    assert line.model_dump() == {
        "evidence": "change",
        "order_id": case.orders[PAID_ORDER].order_id,
        "at_ms": 0.0,
        "where": "payment",
        "what": "NONE to CHARGED",
    }
