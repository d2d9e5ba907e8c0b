"""Two traces side by side: the same things in one row, and a gap where only one mode does something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import MESSAGES, Step
from compare.alignment import Pair, align
from compare.recording import Kind, TraceRecord
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
    return [(pair.left.type if pair.left else "", pair.right.type if pair.right else "") for pair in pairs]


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
        if pair.left and pair.right:
            assert pair.step is pair.left.step is pair.right.step
            assert pair.left.type == pair.right.type or pair.step is Step.PLACE
            assert pair.left.duplicate == pair.right.duplicate


@given(traces())
def test_a_trace_beside_itself_has_no_gaps(trace: list[TraceRecord]) -> None:
    """Two modes that do the same are laid side by side record by record."""
    assert align(trace, trace) == [Pair(one, one) for one in trace]


def test_an_empty_pair_is_refused() -> None:
    """A row without any record has no step to tell."""
    with pytest.raises(ValueError, match="at least one record"):
        _ = Pair(None, None).step
