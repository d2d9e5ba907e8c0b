"""What a replay cost, counted from the recording alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from pydantic import Field

from common.domain.order import OrderStatus
from common.messages import OrderCompleted, OrderFailed
from compare.recording import Frozen, Kind, Nature, Recording, TraceRecord

ENDS = frozenset({OrderCompleted.__name__, OrderFailed.__name__})
"""The events that tell the end of an order, the same in both modes."""


class Durations(Frozen):
    """Milliseconds over the orders that there are: the middle one and the longest."""

    orders: int
    median_ms: float
    longest_ms: float


class Metrics(Frozen):
    """The measured costs of one mode."""

    completed: int
    failed: int
    pending: int
    records: int = Field(description="on all topics, repeated deliveries included")
    commands: int
    events: int
    compensations: int = Field(description="records, commands and events, that are about undoing a step")
    failures: int = Field(description="events that tell a failure")
    repeated: int = Field(description="records that were delivered before")
    topics: int = Field(description="topics that records were on")
    hops: int = Field(
        description="records on the longest causal path from the first record of an order to its end"
    )
    size: int = Field(description="bytes of keys, values and headers")
    to_end: Durations | None = Field(description="from placing an order to deciding its end")
    to_compensated: Durations | None = Field(description="from placing an order to the last undo of a step")


def measure(recording: Recording) -> Metrics:
    """Count a recording."""
    trace = recording.trace
    statuses = [order.status for order in recording.orders]
    by_order: dict[str, list[TraceRecord]] = defaultdict(list)
    for record in trace:
        by_order[record.order_id].append(record)
    completed, failed = statuses.count(OrderStatus.COMPLETED), statuses.count(OrderStatus.FAILED)
    return Metrics(
        completed=completed,
        failed=failed,
        pending=len(statuses) - completed - failed,
        records=len(trace),
        commands=sum(record.kind is Kind.COMMAND for record in trace),
        events=sum(record.kind is Kind.EVENT for record in trace),
        compensations=sum(record.nature is Nature.COMPENSATION for record in trace),
        failures=sum(record.nature is Nature.FAILURE for record in trace),
        repeated=sum(record.duplicate for record in trace),
        topics=len({record.topic for record in trace}),
        hops=max((record.hop for record in trace if record.type in ENDS), default=0),
        size=sum(record.size for record in trace),
        to_end=_durations(_latest(by_order, lambda record: record.type in ENDS)),
        to_compensated=_durations(_latest(by_order, _is_undone)),
    )


def _is_undone(record: TraceRecord) -> bool:
    return record.nature is Nature.COMPENSATION and record.kind is Kind.EVENT


def _latest(orders: Mapping[str, Sequence[TraceRecord]], fits: Callable[[TraceRecord], bool]) -> list[float]:
    """For each order that has records that fit: the time of the last of them."""
    times = ([record.at_ms for record in trace if fits(record)] for trace in orders.values())
    return [max(order) for order in times if order]


def _durations(times: Sequence[float]) -> Durations | None:
    if not times:
        return None
    return Durations(orders=len(times), median_ms=round(median(times), 3), longest_ms=max(times))
