"""What a replay cost, counted from the recording alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from pydantic import Field

from common.domain.order import OrderStatus
from common.messages import OrderCompensationFailed, OrderCompleted, OrderFailed
from compare.faults import AT_A_BOUNDARY, Fault
from compare.recording import Frozen, Kind, Nature, OrderEnd, Recording, Strike, TraceRecord

ENDS = frozenset({OrderCompleted.__name__, OrderFailed.__name__, OrderCompensationFailed.__name__})
"""The events that tell the end of an order, the same in both modes; on the last, another may follow."""


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
    compensation_failed: int
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
    struck: dict[str, int] = Field(description="by kind of fault: how often one struck")
    retries: int = Field(description="messages that could not be processed, and were to be tried again")
    duplicates_removed: int = Field(description="records that the services' inboxes dropped")
    dead_letters: int = Field(description="records that were given up, as the broker has them")
    asked_again: int = Field(description="records that were told again, because an answer was missing")
    overdue: int = Field(description="deadlines that passed with tries left")
    timed_out: int = Field(description="deadlines that passed for the last time")
    late: int = Field(description="messages that were overtaken by something else, as was to be expected")
    unexpected: int = Field(description="messages that were ignored, though nothing tells why they came")
    to_recover_ms: float | None = Field(
        description="from the first fault until all was well again; none without one, or if it never was"
    )


def measure(recording: Recording) -> Metrics:
    """Count a recording."""
    trace = recording.trace
    statuses = [order.status for order in recording.orders]
    by_order: dict[str, list[TraceRecord]] = defaultdict(list)
    for record in trace:
        by_order[record.order_id].append(record)
    completed, failed = statuses.count(OrderStatus.COMPLETED), statuses.count(OrderStatus.FAILED)
    stuck = statuses.count(OrderStatus.COMPENSATION_FAILED)
    # By clocks that differ, no time can be told.
    skewed = any(strike.kind == Fault.CLOCK_SKEW for strike in recording.strikes)
    tellings = Counter((record.id, record.attempt) for record in trace)
    return Metrics(
        completed=completed,
        failed=failed,
        pending=len(statuses) - completed - failed - stuck,
        compensation_failed=stuck,
        records=len(trace),
        commands=sum(record.kind is Kind.COMMAND for record in trace),
        events=sum(record.kind is Kind.EVENT for record in trace),
        compensations=sum(record.nature is Nature.COMPENSATION for record in trace),
        failures=sum(record.nature is Nature.FAILURE for record in trace),
        repeated=len(trace) - len(tellings),
        topics=len({record.topic for record in trace}),
        hops=max((record.hop for record in trace if record.type in ENDS), default=0),
        size=sum(record.size for record in trace),
        to_end=None if skewed else _durations(_latest(by_order, lambda record: record.type in ENDS)),
        to_compensated=None if skewed else _durations(_latest(by_order, _is_undone)),
        struck=dict(Counter(strike.kind for strike in recording.strikes)),
        retries=recording.total("retried"),
        duplicates_removed=recording.duplicates_dropped,
        dead_letters=len(recording.dead_letters),
        asked_again=sum(attempt > 1 for _, attempt in tellings),
        overdue=recording.total("overdue"),
        timed_out=recording.total("timed_out"),
        late=recording.total("late"),
        unexpected=recording.total("ignored"),
        to_recover_ms=_to_recover_ms(recording, by_order),
    )


def _to_recover_ms(recording: Recording, by_order: Mapping[str, Sequence[TraceRecord]]) -> float | None:
    """Milliseconds from the first strike of a fault until all was well again.

    That is when the last of the affected orders has ended and the last strike is over, whichever is later.
    Affected is the order at whose record a fault strikes; by one that hits a whole service, or the broker,
    also every order under way at that moment. An order ends when its end is decided: its last, if an operator
    has had a failed compensation tried again. It is none if no fault struck, or an affected order has not
    ended. A clock that is wrong from beginning to end is nothing to recover from.
    """
    strikes = [strike for strike in recording.strikes if strike.kind != Fault.CLOCK_SKEW]
    if not strikes:
        return None
    ends = {order.order_id: ended_ms(order, by_order.get(order.order_id, ())) for order in recording.orders}
    affected = {
        order.order_id
        for order in recording.orders
        for strike in strikes
        if affects(strike, order, ends[order.order_id])
    }
    moments = [ends[order_id] for order_id in affected]
    moments += [strike.at_ms if strike.over_ms is None else strike.over_ms for strike in strikes]
    known = [moment for moment in moments if moment is not None]
    first = min(strike.at_ms for strike in strikes)
    return round(max(known) - first, 3) if len(known) == len(moments) else None


def ended_ms(order: OrderEnd, trace: Sequence[TraceRecord]) -> float | None:
    """When the last end of an order was first told, from the first order's placing; None if none was."""
    ends = [record.at_ms for record in trace if record.type in ENDS and not record.duplicate]
    return (order.placed_ms or 0.0) + max(ends) if ends else None


def affects(strike: Strike, order: OrderEnd, ended: float | None) -> bool:
    """Whether a fault struck at the order's record, or at a whole service or the broker in its time."""
    if strike.order_id == order.order_id:
        return True
    placed = order.placed_ms is not None and order.placed_ms <= strike.at_ms
    under_way = placed and (ended is None or strike.at_ms <= ended)
    return under_way and (strike.order_id is None or strike.kind in AT_A_BOUNDARY)


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
