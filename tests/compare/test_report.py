"""The report on a terminal, in a pipe, in few columns and in many, with an encoding of few letters."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Final

import pytest
from rich.cells import cell_len
from rich.console import Console

from common.settings import Settings
from compare.checks import Verdict, verdict_of
from compare.recording import Nature
from compare.report import WIDE, Report
from compare.result import ResultDocument, ScenarioResult, mode_result, scenario_result, setup
from compare.scenario import Scenario
from compare.signs import SIGNS
from tests.compare.recordings import (
    CHOREOGRAPHED,
    DECLINED,
    ORCHESTRATED,
    OUT_OF_STOCK,
    PAID,
    both,
    recorded,
    scenario,
    with_trace,
)
from tests.compare.screens import screen

WIDTHS: Final = [80, 120, 200]
ONE: Final = scenario(DECLINED)
MANY: Final = scenario({**PAID, "count": 40}, name="exactly-at-the-limit", stock={"laptop": 50})
SEVERAL: Final = scenario({**PAID, "count": 2}, DECLINED, OUT_OF_STOCK, deliveries=2)
ANSI: Final = "\x1b["


def shown(
    result: ScenarioResult,
    *,
    width: int = 120,
    encoding: str = "utf-8",
    order: int | None = None,
    verbose: bool = False,
    terminal: bool = False,
) -> str:
    """A scenario's report as text."""
    with screen(width, encoding, terminal=terminal) as where:
        Report(where.console, verbose=verbose).scenario(result, order)
        return where.text


def document(*results: ScenarioResult) -> ResultDocument:
    """Results as a run has them."""
    verdict = verdict_of(result.verdict for result in results)
    return ResultDocument(setup=setup("embedded", 2, Settings()), verdict=verdict, scenarios=results)


def overview(*results: ScenarioResult, width: int = 80, encoding: str = "utf-8") -> str:
    """The lines after several scenarios, as text."""
    with screen(width, encoding) as where:
        Report(where.console).overview(document(*results))
        return where.text


@cache
def declined() -> ScenarioResult:
    """A declined order."""
    return both(ONE)


@cache
def several() -> ScenarioResult:
    """Four orders of three kinds, every record delivered twice."""
    return both(SEVERAL)


@cache
def broken() -> ScenarioResult:
    """A scenario that expects what does not happen."""
    return both(scenario({**PAID, "expect": "FAILED"}))


@cache
def timed_out() -> ScenarioResult:
    """A scenario that ran out of time before anything had happened."""
    recordings = [
        recorded(ONE, mode).model_copy(update={"unfinished": "after 1 s, nothing", "trace": ()})
        for mode in (ORCHESTRATED, CHOREOGRAPHED)
    ]
    return scenario_result(ONE, recordings)


def line_with(text: str, words: str) -> str:
    """The first line that has these words."""
    return next(line for line in text.splitlines() if words in line)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp437"])
@pytest.mark.parametrize("result", [declined, several, broken, timed_out])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_longer_than_the_output_is_wide(
    width: int, encoding: str, result: Callable[[], ScenarioResult], *, verbose: bool
) -> None:
    """In every width and encoding, everything can be written and nothing sticks out."""
    text = shown(result(), width=width, encoding=encoding, verbose=verbose, order=1)
    assert max(map(cell_len, text.splitlines())) <= width
    assert ANSI not in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_overview_fits(width: int, encoding: str) -> None:
    """The table of all scenarios names each, its verdict, and what both modes had in common."""
    text = overview(declined(), several(), width=width, encoding=encoding)
    assert max(map(cell_len, text.splitlines())) <= width
    assert text.count("made-up") == 2
    assert "broker (embedded)" in text
    assert text.splitlines()[-1] == ("All in all: OK valid" if encoding == "ascii" else "All in all: ✔ valid")


def test_each_number_of_the_overview_stays_with_its_unit() -> None:
    """At eighty columns a mode's figures don't wrap."""
    recordings = [
        with_trace(one, (record.model_copy(update={"at_ms": 1234.0}) for record in one.trace))
        for one in (recorded(MANY, mode) for mode in (ORCHESTRATED, CHOREOGRAPHED))
    ]
    assert re.search(
        "exactly-at-the-limit +280 rec 7 hops 1234 ms +160 rec 4 hops 1234 ms +✔ valid",
        overview(scenario_result(MANY, recordings)),
    )


SIGNED: Final = [
    (Nature.COMMAND, "ProcessPayment"),
    (Nature.EVENT, "InventoryReserved"),
    (Nature.COMPENSATION, "ReleaseInventory"),
    (Nature.COMPENSATION, "InventoryReleased"),
    (Nature.FAILURE, "PaymentDeclined"),
]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("nature", "type_"), SIGNED)
def test_each_type_has_its_sign_beside_it(width: int, nature: Nature, type_: str) -> None:
    """Without colour, the sign alone tells commands, events, compensations and failures apart."""
    sign = SIGNS[nature]
    assert f"{sign.sign} {type_}" in shown(declined(), width=width)
    assert f"{sign.letter} {type_}" in shown(declined(), width=width, encoding="ascii")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_legend_explains_every_sign(encoding: str) -> None:
    """Below the trace stands what each sign means."""
    text = shown(declined(), encoding=encoding)
    for nature, sign in SIGNS.items():
        assert f"{sign.letter if encoding == 'ascii' else sign.sign} {nature}" in text
    assert "times in ms from placing the order" in text


def test_signs_and_letters_are_all_different() -> None:
    """No two natures look the same, with or without the signs."""
    assert len({sign.sign for sign in SIGNS.values()}) == len(SIGNS) == len(Nature)
    assert len({sign.letter for sign in SIGNS.values()}) == len(SIGNS)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("type_", ["ReserveInventory", "ProcessPayment", "SagaFailed"])
def test_what_only_one_mode_does_leaves_a_gap(width: int, type_: str) -> None:
    """Beside a command, or the saga's own end, the choreographed side is empty."""
    text = shown(declined(), width=width)
    column = line_with(text, "choreographed").index("choreographed")
    line = line_with(text, f" {type_}")
    assert line[column:].strip() == ""
    assert line_with(text, "● InventoryReserved")[column:].strip() != ""


def test_details_stand_beside_the_record_where_there_is_room() -> None:
    """A wide output needs no line of its own for topic, place, producer and cause."""
    wide, narrow = (shown(declined(), width=width) for width in (WIDE, WIDE - 1))
    place = re.compile(r"PaymentDeclined +payments\.events \d@0 payment +← InventoryReserved")
    assert place.search(wide)
    assert not place.search(narrow)
    assert len(wide.splitlines()) < len(narrow.splitlines())


def test_changes_of_state_stand_below_the_record_that_led_to_them() -> None:
    """Each record shows what it changed, and the first one also what came of the request itself."""
    text = shown(declined())
    for change in (
        "order is PENDING",
        "saga is COMPENSATING",
        "reservation is RELEASED",
        "payment is DECLINED",
    ):
        assert f"⇒ {change}" in text


def test_colours_only_on_a_terminal() -> None:
    """A terminal gets colours; without them the text is the same."""
    result = declined()
    coloured = shown(result, terminal=True)
    assert ANSI in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == shown(result)


def test_several_orders_are_summed_up() -> None:
    """Of several orders the report shows how many of each kind ended how, and how to see one."""
    text = shown(several())
    assert re.search(r"2 x 1 laptop at 200 +2 COMPLETED +2 COMPLETED", text)
    assert re.search(r"1 x 99 laptop at 1 +1 FAILED \(out_of_stock\) +1 FAILED \(out_of_stock\)", text)
    assert "4 orders; --order N shows the trace of one of them." in text
    assert "OrderCreated" not in text


def test_one_of_several_orders_can_be_traced() -> None:
    """With a number, the trace of that order is shown, with what was delivered again."""
    result = several()
    text = shown(result, order=3)
    assert f"order 3 of 4: {result.modes[0].recording.orders[2].order_id}" in text
    assert "✖ PaymentDeclined (again)" in text
    assert "InventoryRejected" not in text


def test_a_number_beyond_the_orders_is_for_another_scenario() -> None:
    """Of several scenarios, those with fewer orders than the number stay summed up."""
    assert "4 orders; --order N" in shown(several(), order=5)


def test_the_only_order_is_traced_whatever_the_number() -> None:
    """A scenario of one order always shows it."""
    assert "order 1 of 1" in shown(declined(), order=7)


def test_a_single_mode_has_one_column() -> None:
    """Where only one mode was replayed, nothing is aligned with it."""
    text = shown(scenario_result(ONE, [recorded(ONE, CHOREOGRAPHED)]))
    assert "orchestrated" not in text
    assert "PaymentDeclined" in text
    assert "(16 checks)" in text


def test_the_summary_counts_both_modes() -> None:
    """Records, hops and bytes stand side by side."""
    text = shown(declined())
    for label, left, right in [
        ("records", "9", "5"),
        ("commands", "4", "0"),
        ("compensating", "2", "1"),
        ("topics", "2", "3"),
        ("hops to the end", "9", "5"),
        ("outcome", "1 failed", "1 failed"),
    ]:
        assert re.search(rf" {label} +{left} +{right} *$", text, re.MULTILINE), label
    assert re.search(r"time to the end \(median\) +8\.0 ms +4\.0 ms", text)


def test_times_of_several_orders_are_a_median_and_the_longest() -> None:
    """One order has one time; several have the middle one and the longest."""
    assert "at most" in shown(several())
    assert "at most" not in shown(declined())


def test_what_is_broken_is_printed() -> None:
    """An invalid verdict comes with mode, check and fault."""
    result = broken()
    text = " ".join(shown(result).split())
    assert result.verdict is Verdict.INVALID
    assert "✖ orchestrated: orders end as expected" in text.replace("invalid ", "")
    assert "expected FAILED, got COMPLETED" in text
    assert "Verdict: ✖ invalid (32 checks)" in text


def test_a_timeout_says_unknown_and_why() -> None:
    """An unknown verdict has a sign of its own, and an empty trace has no times."""
    text = shown(timed_out())
    assert "Verdict: ? unknown" in text
    assert "after 1 s, nothing" in text
    assert re.search(r"time to the end \(median\) +- +-", text)
    assert "no end" in overview(timed_out())


def test_verbose_adds_bodies_and_every_check() -> None:
    """With --verbose nothing is left out."""
    text = shown(declined(), verbose=True, width=200)
    assert "'customer_id': 'customer'" in text
    assert text.count("✔ valid orchestrated: ") == 16
    assert "customer_id" not in shown(declined())


def test_a_mode_without_an_end_still_has_a_result() -> None:
    """An order that is pending is counted as such."""
    recording = recorded(ONE, CHOREOGRAPHED)
    (order,) = recording.orders
    pending = recording.model_copy(update={"orders": (order.model_copy(update={"status": "PENDING"}),)})
    assert mode_result(ONE, pending).verdict is Verdict.INVALID
    assert "1 pending" in shown(scenario_result(ONE, [pending]))


def odd_scenario() -> Scenario:
    """Names that look like rich's markup and emoji codes."""
    return scenario(
        {"item": "[red]:smile:[/]", "price": 1, "expect": "COMPLETED", "count": 2},
        stock={"[red]:smile:[/]": 2},
        description="[bold]As it is[/bold]",
    )


def test_text_of_a_scenario_is_no_markup() -> None:
    """What looks like markup is shown as it was written."""
    with screen() as where:
        console = Console(file=where.file, width=120, markup=False, emoji=False)
        Report(console).scenario(both(odd_scenario()), None)
        assert "2 x 1 [red]:smile:[/] at 1" in where.text
        assert "[bold]As it is[/bold]" in where.text
