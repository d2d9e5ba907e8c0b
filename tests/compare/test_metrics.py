"""What a recording costs is counted from it alone."""

from __future__ import annotations

from typing import Final

import pytest

from common.messages import ReleaseInventory
from common.wiring import Mode
from compare.metrics import Durations, measure
from compare.recording import Recording, Strike
from tests.compare.faulty import Wire, recorded_under, refusing
from tests.compare.recordings import (
    CHOREOGRAPHED,
    DECLINED,
    ORCHESTRATED,
    OUT_OF_STOCK,
    PAID,
    recorded,
    scenario,
    with_trace,
)

COUNTED: Final = ("records", "commands", "events", "compensations", "failures", "topics", "hops")


def declined() -> Recording:
    """One declined order, choreographed: five records, a millisecond apart."""
    return recorded(scenario(DECLINED), CHOREOGRAPHED)


def test_a_declined_order_choreographed() -> None:
    """OrderCreated, InventoryReserved, PaymentDeclined, InventoryReleased, OrderFailed."""
    metrics = measure(declined())
    assert [getattr(metrics, name) for name in COUNTED] == [5, 0, 5, 1, 2, 3, 5]
    assert (metrics.completed, metrics.failed, metrics.pending) == (0, 1, 0)


def test_a_declined_order_orchestrated() -> None:
    """The same, with four commands and the saga's own end between the events."""
    metrics = measure(recorded(scenario(DECLINED), ORCHESTRATED))
    assert [getattr(metrics, name) for name in COUNTED] == [9, 4, 5, 2, 3, 2, 9]


def test_an_order_without_compensation() -> None:
    """What was never undone has no time at which it was."""
    metrics = measure(recorded(scenario(OUT_OF_STOCK), CHOREOGRAPHED))
    assert metrics.compensations == 0
    assert metrics.to_compensated is None
    assert metrics.to_end == Durations(orders=1, median_ms=2.0, longest_ms=2.0)


def test_repeated_deliveries_are_counted() -> None:
    """Every record twice: twice the records and the bytes, half of them repeated, as many hops as before."""
    once = measure(recorded(scenario(PAID), CHOREOGRAPHED))
    recording = recorded(scenario(PAID, deliveries=2), CHOREOGRAPHED)
    twice = measure(recording)
    assert (once.repeated, twice.repeated) == (0, once.records)
    assert (twice.records, twice.size) == (2 * once.records, 2 * once.size)
    assert twice.hops == once.hops
    assert recording.duplicates_dropped > 0


def test_bytes_are_those_of_all_records() -> None:
    """The size is the sum over the trace."""
    recording = declined()
    assert measure(recording).size == sum(record.size for record in recording.trace)


def test_the_end_is_decided_by_the_order_service() -> None:
    """The time to the end is that of OrderFailed, the time to compensated that of InventoryReleased."""
    metrics = measure(declined())
    assert metrics.to_end == Durations(orders=1, median_ms=4.0, longest_ms=4.0)
    assert metrics.to_compensated == Durations(orders=1, median_ms=3.0, longest_ms=3.0)


def test_a_command_to_undo_is_no_undo_yet() -> None:
    """In the orchestrated mode the time to compensated is the answer's, not the command's."""
    recording = recorded(scenario(DECLINED), ORCHESTRATED)
    released = next(record for record in recording.trace if record.type == "InventoryReleased")
    to_compensated = measure(recording).to_compensated
    assert to_compensated is not None
    assert to_compensated.longest_ms == released.at_ms


def test_the_median_and_the_longest_of_several_orders() -> None:
    """Paid orders end after three milliseconds here, a declined one after four."""
    recording = recorded(scenario({**PAID, "count": 2}, DECLINED), CHOREOGRAPHED)
    assert measure(recording).to_end == Durations(orders=3, median_ms=3.0, longest_ms=4.0)


def test_an_order_that_has_not_ended_is_pending() -> None:
    """What is neither completed nor failed is pending, and has no time to its end."""
    recording = declined()
    (order,) = recording.orders
    pending = recording.model_copy(update={"orders": (order.model_copy(update={"status": "PENDING"}),)})
    metrics = measure(with_trace(pending, recording.trace[:-1]))
    assert (metrics.completed, metrics.failed, metrics.pending) == (0, 0, 1)
    assert metrics.to_end is None
    assert metrics.hops == 0


@pytest.mark.parametrize("mode", [ORCHESTRATED, CHOREOGRAPHED], ids=lambda mode: mode.name)
def test_every_record_is_a_command_or_an_event(mode: Mode) -> None:
    """Commands and events add up to the records, in both modes."""
    metrics = measure(recorded(scenario(PAID, DECLINED, OUT_OF_STOCK), mode))
    assert metrics.commands + metrics.events == metrics.records


def struck(recording: Recording, at_ms: float, over_ms: float | None = None, **changes: object) -> Recording:
    """The recording, with a fault that struck the Payment service, at no record."""
    strike = Strike(
        fault=0,
        kind="stop",
        service="payment",
        boundary=None,
        order_id=None,
        at_ms=at_ms,
        over_ms=over_ms,
    ).model_copy(update=changes)
    return recording.model_copy(update={"strikes": (*recording.strikes, strike)})


def test_nothing_is_counted_of_faults_where_none_struck() -> None:
    """Without faults there is nothing to recover from, to try again or to give up."""
    metrics = measure(declined())
    assert metrics.struck == {}
    assert metrics.to_recover_ms is None
    counts = ("retries", "dead_letters", "asked_again", "overdue", "timed_out", "late", "unexpected")
    assert [getattr(metrics, name) for name in counts] == [0] * len(counts)


@pytest.mark.parametrize("mode", [ORCHESTRATED, CHOREOGRAPHED], ids=lambda mode: mode.name)
def test_what_is_asked_again_is_not_delivered_again(mode: Mode) -> None:
    """A lost answer is asked for once more: a deadline passed, and the chain is told a second time."""
    metrics = measure(recorded_under(scenario(PAID), mode, wire=Wire("lose", "PaymentProcessed")))
    assert metrics.struck == {"lose": 1}
    assert (metrics.overdue, metrics.timed_out) == (1, 0)
    assert metrics.asked_again > 0
    assert metrics.repeated == 0


def test_a_compensation_that_failed_is_counted_by_itself() -> None:
    """It is no failed order and no pending one; its end is when it was told."""
    refuse = refusing(ReleaseInventory, "inventory", 1000)
    metrics = measure(recorded_under(scenario(DECLINED), CHOREOGRAPHED, probe=refuse))
    assert (metrics.completed, metrics.failed, metrics.pending, metrics.compensation_failed) == (0, 0, 0, 1)
    assert metrics.dead_letters > 0
    assert metrics.to_end is not None


def test_counts_are_those_of_all_services() -> None:
    """Whoever has tried again, and whoever was late, it counts once."""
    counts = {"order": {"retried": 2, "late": 1}, "payment": {"retried": 3, "ignored": 4, "duplicate": 5}}
    metrics = measure(declined().model_copy(update={"counts": counts}))
    assert (metrics.retries, metrics.late, metrics.unexpected, metrics.duplicates_removed) == (5, 1, 4, 5)


def test_recovered_when_the_affected_order_has_ended() -> None:
    """The order ends after four milliseconds, two after the fault that struck at its record."""
    recording = declined()
    (order,) = recording.orders
    assert measure(struck(recording, 2.0, 3.0, order_id=order.order_id)).to_recover_ms == 2.0


def test_recovered_when_the_fault_is_over() -> None:
    """A service that stood still for longer than its orders took is not well before it moves again."""
    assert measure(struck(declined(), 2.0, 50.0)).to_recover_ms == 48.0


def test_the_first_of_several_faults_counts() -> None:
    """And the end of the last."""
    recording = struck(struck(declined(), 1.0, 1.0), 3.0, 10.0)
    assert measure(recording).to_recover_ms == 9.0


def test_an_order_that_was_over_is_not_affected() -> None:
    """A service that is hit after an order's end has recovered when the fault is over."""
    assert measure(struck(declined(), 100.0, 130.0)).to_recover_ms == 30.0


def test_an_order_of_another_record_is_not_affected() -> None:
    """What strikes at one order's record leaves the others alone; what hits its service doesn't."""
    recording = recorded(scenario(PAID, DECLINED), CHOREOGRAPHED)
    first = recording.orders[0].order_id
    poisoned = struck(recording, 1.0, 1.0, order_id=first, kind="poison")
    assert measure(poisoned).to_recover_ms == 2.0
    crashed = struck(recording, 1.0, 1.0, order_id=first, kind="crash")
    assert measure(crashed).to_recover_ms == 3.0


def test_not_recovered_if_an_affected_order_never_ended() -> None:
    """There is no time for what has not happened."""
    recording = declined()
    unfinished = with_trace(recording, recording.trace[:-1])
    assert measure(struck(unfinished, 2.0, 3.0)).to_recover_ms is None


def test_a_wrong_clock_is_nothing_to_recover_from() -> None:
    """It is so from beginning to end."""
    assert measure(struck(declined(), 0.0, kind="clock_skew")).to_recover_ms is None
