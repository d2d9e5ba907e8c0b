"""Two traces side by side: the same things in one row, and a gap where only one mode does something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import MESSAGES, Step
from compare.alignment import Line, Note, Pair, align, lines_of
from compare.recording import DeadLetterSeen, Kind, OrderEnd, Recording, Requested, Strike, TraceRecord
from compare.trace import nature_of
from tests.compare.recordings import CHOREOGRAPHED, DECLINED, ORCHESTRATED, recorded, scenario


def record(type_: str, offset: int, *, duplicate: bool = False) -> TraceRecord:
    """A record of which only the type, and whether it came again, matter here."""
    message = MESSAGES[type_]
    return TraceRecord(
        order_id="order",
        topic="topic",
        partition=0,
        offset=offset,
        at_ms=offset,
        type=type_,
        kind=Kind.EVENT,
        step=message.STEP,
        nature=nature_of(message),
        producer="service",
        id=f"id-{offset}",
        causation_id="order",
        cause=None,
        hop=offset + 1,
        size=1,
        duplicate=duplicate,
        body={},
    )


@st.composite
def traces(draw: st.DrawFn) -> list[TraceRecord]:
    """Any sequence of records."""
    names = draw(st.lists(st.tuples(st.sampled_from(sorted(MESSAGES)), st.booleans()), max_size=12))
    return [record(name, offset, duplicate=again) for offset, (name, again) in enumerate(names)]


def rows(pairs: list[Pair]) -> list[tuple[str, str]]:
    """The types, side by side; empty where there is a gap."""
    return [(name(pair.left), name(pair.right)) for pair in pairs]


def name(line: Line | None) -> str:
    """The type of a record; of a note, that of what it is about."""
    if isinstance(line, Note):
        return type(line.about).__name__
    return line.type if line else ""


def test_commands_and_the_sagas_end_have_no_counterpart() -> None:
    """What only the orchestrated mode does is a gap on the other side; the rest is paired."""
    declined = scenario(DECLINED)
    left, right = (recorded(declined, mode).trace for mode in (ORCHESTRATED, CHOREOGRAPHED))
    assert rows(align(left, right)) == [
        ("SagaStarted", "OrderCreated"),
        ("ReserveInventory", ""),
        ("InventoryReserved", "InventoryReserved"),
        ("ProcessPayment", ""),
        ("PaymentDeclined", "PaymentDeclined"),
        ("ReleaseInventory", ""),
        ("InventoryReleased", "InventoryReleased"),
        ("SagaFailed", ""),
        ("OrderFailed", "OrderFailed"),
    ]


def test_a_gap_may_be_on_the_left() -> None:
    """What only the second trace has stands alone on the right."""
    left = [record("OrderCreated", 0), record("OrderFailed", 1)]
    right = [record("OrderCreated", 0), record("PaymentRefunded", 1), record("OrderFailed", 2)]
    assert rows(align(left, right))[1] == ("", "PaymentRefunded")


def test_an_original_is_never_paired_with_a_repetition() -> None:
    """A record that came again has its counterpart only in one that came again."""
    left = [record("OrderCreated", 0)]
    right = [record("OrderCreated", 0), record("OrderCreated", 1, duplicate=True)]
    assert rows(align(left, right)) == [("OrderCreated", "OrderCreated"), ("", "OrderCreated")]


def test_different_steps_stand_below_each_other() -> None:
    """Where nothing fits, the left trace's records come first, and no row claims that they match."""
    assert rows(align([record("InventoryRejected", 0)], [record("PaymentDeclined", 0)])) == [
        ("InventoryRejected", ""),
        ("", "PaymentDeclined"),
    ]


def test_nothing_beside_something() -> None:
    """A mode that did nothing leaves gaps, and two that did nothing leave no rows."""
    assert rows(align([], [record("OrderCreated", 0)])) == [("", "OrderCreated")]
    assert align([], []) == []


@given(traces(), traces())
def test_every_record_is_kept_once_and_in_order(left: list[TraceRecord], right: list[TraceRecord]) -> None:
    """Each side, read downwards without its gaps, is the trace that was given; and no row is all gap."""
    pairs = align(left, right)
    assert [pair.left for pair in pairs if pair.left] == left
    assert [pair.right for pair in pairs if pair.right] == right
    assert all(pair.left or pair.right for pair in pairs)


@given(traces(), traces())
def test_what_is_paired_is_the_same_thing(left: list[TraceRecord], right: list[TraceRecord]) -> None:
    """Two records share a row only if they are of one step and, but for the first step, say the same."""
    for pair in align(left, right):
        if isinstance(pair.left, TraceRecord) and isinstance(pair.right, TraceRecord):
            assert pair.step is pair.left.step is pair.right.step
            assert pair.left.type == pair.right.type or pair.step is Step.PLACE
            assert pair.left.duplicate == pair.right.duplicate


@given(traces())
def test_a_trace_beside_itself_has_no_gaps(trace: list[TraceRecord]) -> None:
    """Two modes that do the same are laid side by side record by record."""
    assert align(trace, trace) == [Pair(one, one) for one in trace]


def test_an_empty_pair_is_refused() -> None:
    """A row without any record has no step to tell."""
    with pytest.raises(ValueError, match="at least one line"):
        _ = Pair(None, None).step


def strike(at_ms: float, **changes: object) -> Strike:
    """The Payment service dies, at no record."""
    one = Strike(
        fault=0,
        kind="crash",
        service="payment",
        boundary="committed",
        order_id=None,
        at_ms=at_ms,
        over_ms=None,
    )
    return one.model_copy(update=changes)


def declined(*strikes: Strike, **changes: object) -> tuple[Recording, OrderEnd]:
    """A declined order, choreographed, a record each millisecond; and what befell it."""
    recording = recorded(scenario(DECLINED), CHOREOGRAPHED)
    changed = recording.model_copy(update={"strikes": strikes, **changes})
    return changed, changed.orders[0]


TYPES: list[str] = [
    "OrderCreated",
    "InventoryReserved",
    "PaymentDeclined",
    "InventoryReleased",
    "OrderFailed",
]


def test_a_fault_stands_where_it_struck() -> None:
    """By its time: behind the record that was decided before it."""
    lines = lines_of(*declined(strike(2.5)))
    assert [name(line) for line in lines] == [*TYPES[:3], "Strike", *TYPES[3:]]
    assert lines[3].step is Step.PAY
    assert lines[3].at_ms == 2.5


def test_times_of_notes_count_from_the_order() -> None:
    """As those of its records do, though faults count from the first order."""
    recording, order = declined(strike(102.5))
    lines = lines_of(recording, order.model_copy(update={"placed_ms": 100.0}))
    assert lines[3].at_ms == 2.5


def test_a_fault_of_another_order_is_not_of_this_ones_story() -> None:
    """Unless it has hit a whole service while this one was under way."""
    assert len(lines_of(*declined(strike(2.5, order_id="other", kind="poison")))) == 5
    assert len(lines_of(*declined(strike(2.5, order_id="other")))) == 6
    assert len(lines_of(*declined(strike(99.0, order_id="other")))) == 5
    recording, order = declined(strike(2.5, order_id="other"))
    assert len(lines_of(recording, order.model_copy(update={"placed_ms": None}))) == 5


def dead_letter(record_: TraceRecord, step: Step | None, at_ms: float) -> DeadLetterSeen:
    """A record that was given up."""
    return DeadLetterSeen(
        topic=f"{record_.topic}.dlq",
        partition=0,
        offset=0,
        at_ms=at_ms,
        order_id=record_.order_id,
        id=record_.id,
        type=record_.type,
        step=step,
        service="choreographed/inventory",
        reason="failed",
        error="no",
        tries=1,
    )


def test_a_dead_letter_stands_between_its_original_and_what_was_told_instead() -> None:
    """What is told in its place bears the same time."""
    recording, order = declined()
    letter = dead_letter(recording.trace[2], Step.RELEASE, recording.trace[3].at_ms)
    lines = lines_of(recording.model_copy(update={"dead_letters": (letter,)}), order)
    assert [name(line) for line in lines] == [*TYPES[:3], "DeadLetterSeen", *TYPES[3:]]
    assert lines[3].step is Step.RELEASE


def test_a_dead_letter_of_an_unknown_step_stands_at_the_record_before_it() -> None:
    """And one whose original nobody has seen, by its time."""
    recording, order = declined()
    letter = dead_letter(recording.trace[2], None, 1.5).model_copy(update={"id": "unheard of"})
    lines = lines_of(recording.model_copy(update={"dead_letters": (letter,)}), order)
    assert name(lines[2]) == "DeadLetterSeen"
    assert lines[2].step is Step.RESERVE


def test_what_was_asked_for_has_a_line() -> None:
    """That of the order's own customer or operator, at the step that is named after it."""
    recording, order = declined()
    asked = [
        Requested(order_id=order_id, what="cancel", accepted=True, at_ms=0.5)
        for order_id in (order.order_id, "other")
    ]
    lines = lines_of(recording.model_copy(update={"requested": tuple(asked)}), order)
    assert [name(line) for line in lines] == [TYPES[0], "Requested", *TYPES[1:]]
    assert lines[1].step is Step.CANCEL


def test_the_same_fault_in_both_modes_shares_a_row() -> None:
    """So do dead letters of one step, and the same request; different faults don't."""
    first, second = (Note(Step.PAY, 1.0, strike(1.0, fault=fault)) for fault in (0, 1))
    assert rows(align([first], [first])) == [("Strike", "Strike")]
    assert rows(align([first], [second])) == [("Strike", ""), ("", "Strike")]
    letters: list[list[Line]] = [
        [Note(Step.RELEASE, 1.0, dead_letter(record(type_, 0), Step.RELEASE, 1.0))]
        for type_ in ("ReleaseInventory", "PaymentDeclined")
    ]
    assert rows(align(*letters)) == [("DeadLetterSeen", "DeadLetterSeen")]
    asked = Note(Step.CANCEL, 1.0, Requested(order_id="order", what="cancel", accepted=True, at_ms=1.0))
    assert rows(align([asked], [asked])) == [("Requested", "Requested")]


def test_a_fault_before_anything_else() -> None:
    """An order of which there is no record yet has a first step, too."""
    recording, order = declined(strike(0.0), trace=())
    assert [line.step for line in lines_of(recording, order)] == [Step.PLACE]
