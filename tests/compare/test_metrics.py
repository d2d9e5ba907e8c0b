"""What a recording costs is counted from it alone."""

from __future__ import annotations

from typing import Final

import pytest

from common.wiring import Mode
from compare.metrics import Durations, measure
from compare.recording import Recording
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
