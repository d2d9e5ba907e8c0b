"""The judge: invariants that no mode may break, and the scenario's own expectations.

A verdict has three values, as in Jepsen's and Maelstrom's checkers: a replay that ran out of time is
`unknown`, never a pass, unless something is broken whatever would have come later.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from common.domain.inventory import ReservationStatus
from common.domain.order import OrderStatus
from common.domain.payment import PaymentStatus
from common.messages import (
    InventoryReleased,
    InventoryReserved,
    PaymentProcessed,
    PaymentRefunded,
    Reason,
)
from compare.metrics import ENDS
from compare.recording import Frozen, OrderEnd, Recording, TraceRecord
from compare.scenario import ExpectedOrder, OrderSpec, Scenario

_SHOWN_FAULTS: Final = 5


class Verdict(StrEnum):
    """Whether something holds; also the process's exit code, see `compare.cli`."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class Finding(Frozen):
    """What one check has found."""

    check: str
    verdict: Verdict
    faults: tuple[str, ...] = ()


class _Case(NamedTuple):
    scenario: Scenario
    recording: Recording
    by_order: dict[str, list[TraceRecord]]


class _Check(NamedTuple):
    name: str
    faults: Callable[[_Case], Iterator[str]]
    final: bool
    """Whether what breaks it stays broken; else it can only be judged when all is over."""


def judge(scenario: Scenario, recording: Recording) -> tuple[Finding, ...]:
    """Apply every check to a recording."""
    by_order: dict[str, list[TraceRecord]] = defaultdict(list)
    for record in recording.trace:
        by_order[record.order_id].append(record)
    case = _Case(scenario, recording, by_order)
    return tuple(_finding(check, case) for check in CHECKS)


def verdict_of(findings: Iterable[Finding | Verdict]) -> Verdict:
    """One invalid makes all invalid; else one unknown makes all unknown."""
    verdicts = {one if isinstance(one, Verdict) else one.verdict for one in findings}
    for worst in (Verdict.INVALID, Verdict.UNKNOWN):
        if worst in verdicts:
            return worst
    return Verdict.VALID if verdicts else Verdict.UNKNOWN


def _finding(check: _Check, case: _Case) -> Finding:
    faults = list(check.faults(case))
    unfinished = case.recording.unfinished
    if faults and (check.final or unfinished is None):
        more = [f"and {len(faults) - _SHOWN_FAULTS} more"] if len(faults) > _SHOWN_FAULTS else []
        return Finding(check=check.name, verdict=Verdict.INVALID, faults=tuple(faults[:_SHOWN_FAULTS] + more))
    if unfinished is not None and not check.final:
        return Finding(check=check.name, verdict=Verdict.UNKNOWN, faults=(unfinished,))
    return Finding(check=check.name, verdict=Verdict.VALID)


def _every_order_ends(case: _Case) -> Iterator[str]:
    for order in case.recording.orders:
        if order.status not in {OrderStatus.COMPLETED, OrderStatus.FAILED}:
            yield f"{_name(order)} is {order.status}, though nothing moves any more"


def _stock_is_conserved(case: _Case) -> Iterator[str]:
    held: Counter[str] = Counter()
    for order in case.recording.orders:
        held[_spec(case, order).item] += order.quantity_held
    for item, initial in case.scenario.stock.items():
        available = case.recording.stock.get(item, 0)
        if available + held[item] != initial:
            yield f"{item}: {available} free and {held[item]} held are not the {initial} there were"


def _stock_is_never_negative(case: _Case) -> Iterator[str]:
    """Not only in the end: what is held is followed through Inventory's history, in its own order."""
    free = Counter(case.scenario.stock)
    specs = {order.order_id: _spec(case, order) for order in case.recording.orders}
    for change in case.recording.changes:
        if change.service != "inventory":
            continue
        spec = specs[change.order_id]
        if change.to_status == ReservationStatus.RESERVED:
            free[spec.item] -= spec.quantity
        elif change.from_status == ReservationStatus.RESERVED:
            free[spec.item] += spec.quantity
        if free[spec.item] < 0:
            yield f"{spec.item}: {free[spec.item]} free after order {change.order_id} was {change.to_status}"
    for item, available in case.recording.stock.items():
        if available < 0:
            yield f"{item}: {available} free in the end"


def _charged_at_most_once(case: _Case) -> Iterator[str]:
    charges = Counter(
        change.order_id
        for change in case.recording.changes
        if change.service == "payment" and change.to_status == PaymentStatus.CHARGED
    )
    told = Counter(
        record.order_id
        for record in case.recording.trace
        if record.type == PaymentProcessed.__name__ and not record.duplicate
    )
    for order in case.recording.orders:
        times = max(charges[order.order_id], told[order.order_id])
        if times > 1:
            yield f"{_name(order)} was charged {times} times"


def _completed_means_paid_and_held(case: _Case) -> Iterator[str]:
    for order in case.recording.orders:
        spec = _spec(case, order)
        due = (spec.price_cents * spec.quantity, spec.quantity)
        has = (order.amount_cents, order.quantity_held)
        paid = order.payment == PaymentStatus.CHARGED
        if order.status == OrderStatus.COMPLETED and (not paid or has != due):
            yield (
                f"{_name(order)} is COMPLETED, due {due[0]} cents and {due[1]} pieces; "
                f"payment {order.payment} of {has[0]} cents, {has[1]} held"
            )


def _failed_holds_nothing(case: _Case) -> Iterator[str]:
    for order in case.recording.orders:
        charged = order.payment == PaymentStatus.CHARGED
        if order.status == OrderStatus.FAILED and (order.quantity_held or charged):
            yield f"{_name(order)} is FAILED, but {order.quantity_held} held and payment {order.payment}"


def _charged_means_completed(case: _Case) -> Iterator[str]:
    for order in case.recording.orders:
        if order.payment == PaymentStatus.CHARGED and order.status != OrderStatus.COMPLETED:
            yield f"{_name(order)} is charged, but {order.status}"


def _undone_means_done_before(case: _Case) -> Iterator[str]:
    for undone, done in (
        (InventoryReleased.__name__, InventoryReserved.__name__),
        (PaymentRefunded.__name__, PaymentProcessed.__name__),
    ):
        for order in case.recording.orders:
            types = [record.type for record in case.by_order[order.order_id]]
            if undone in types and done not in types[: types.index(undone)]:
                yield f"{_name(order)}: {undone} without {done} before it"


def _undone_in_reverse(case: _Case) -> Iterator[str]:
    for order in case.recording.orders:
        types = [record.type for record in case.by_order[order.order_id]]
        both = PaymentRefunded.__name__ in types and InventoryReleased.__name__ in types
        if both and types.index(InventoryReleased.__name__) < types.index(PaymentRefunded.__name__):
            yield f"{_name(order)}: goods were released before the payment was refunded"


def _told_as_stored(case: _Case) -> Iterator[str]:
    told = {OrderStatus.COMPLETED: "OrderCompleted", OrderStatus.FAILED: "OrderFailed"}
    for order in case.recording.orders:
        ends = [
            record.type
            for record in case.by_order[order.order_id]
            if record.type in ENDS and not record.duplicate
        ]
        expected = [told[OrderStatus(order.status)]] if order.status in told else []
        if ends != expected:
            yield f"{_name(order)} is {order.status}, but the broker has {ends or 'no end of it'}"


def _saga_agrees(case: _Case) -> Iterator[str]:
    for order in case.recording.orders:
        if order.saga is not None and order.saga != order.status:
            yield f"{_name(order)} is {order.status}, but its saga is {order.saga}"


def _one_partition(case: _Case) -> Iterator[str]:
    for order in case.recording.orders:
        partitions = {record.partition for record in case.by_order[order.order_id]}
        if len(partitions) > 1:
            yield f"{_name(order)} is on partitions {sorted(partitions)}: records could overtake each other"


def _caused(case: _Case) -> Iterator[str]:
    for order in case.recording.orders:
        for record in case.by_order[order.order_id]:
            if record.cause is None and record.causation_id != order.order_id:
                yield f"{_name(order)}: {record.type} comes from {record.causation_id}, which nobody has seen"


def _all_readable(case: _Case) -> Iterator[str]:
    unreadable = case.recording.unreadable_records
    if unreadable:
        yield f"{unreadable} records could not be read by a service"
    if case.recording.stray_records:
        yield f"{case.recording.stray_records} records are of no order of this scenario"


def _orders_as_expected(case: _Case) -> Iterator[str]:
    by_spec: dict[int, list[OrderEnd]] = defaultdict(list)
    for order in case.recording.orders:
        by_spec[order.spec].append(order)
    for index, spec in enumerate(case.scenario.orders):
        yield from _spec_faults(spec, by_spec[index])


def _spec_faults(spec: OrderSpec, orders: Sequence[OrderEnd]) -> Iterator[str]:
    expect = spec.expect
    if isinstance(expect, ExpectedOrder):
        for order in orders:
            if order.status != expect.status or not _reason_fits(expect.reason, order):
                why = f" for {expect.reason}" if expect.reason else ""
                yield f"{_name(order)}: expected {expect.status}{why}, got {_got(order)}"
        return
    counts = Counter(order.status for order in orders)
    split = (counts[OrderStatus.COMPLETED], counts[OrderStatus.FAILED])
    if split != (expect.completed, expect.failed):
        yield (
            f"of {len(orders)} orders for {spec.item}, expected {expect.completed} COMPLETED and "
            f"{expect.failed} FAILED, got {split[0]} and {split[1]}"
        )
    for order in orders:
        if order.status == OrderStatus.FAILED and not _reason_fits(expect.reason, order):
            yield f"{_name(order)}: expected to fail for {expect.reason}, got {_got(order)}"


def _stock_as_expected(case: _Case) -> Iterator[str]:
    for item, pieces in case.scenario.expect.stock.items():
        if case.recording.stock.get(item) != pieces:
            yield f"{item}: expected {pieces} free, got {case.recording.stock.get(item)}"


def _name(order: OrderEnd) -> str:
    return f"order {order.number} ({order.order_id})"


def _spec(case: _Case, order: OrderEnd) -> OrderSpec:
    return case.scenario.orders[order.spec]


def _reason_fits(expected: Reason | None, order: OrderEnd) -> bool:
    return expected is None or order.reason == expected


def _got(order: OrderEnd) -> str:
    return f"{order.status} for {order.reason}" if order.reason else order.status


CHECKS: Final = (
    _Check("every order ends", _every_order_ends, final=False),
    _Check("orders end as expected", _orders_as_expected, final=False),
    _Check("stock is as expected", _stock_as_expected, final=False),
    _Check("stock is conserved", _stock_is_conserved, final=False),
    _Check("stock is never negative", _stock_is_never_negative, final=True),
    _Check("charged at most once", _charged_at_most_once, final=True),
    _Check("charged means completed or refunded", _charged_means_completed, final=False),
    _Check("completed means paid and held", _completed_means_paid_and_held, final=True),
    _Check("failed holds nothing", _failed_holds_nothing, final=True),
    _Check("undone means done before", _undone_means_done_before, final=True),
    _Check("undone in reverse order", _undone_in_reverse, final=True),
    _Check("told as stored", _told_as_stored, final=False),
    _Check("saga and order agree", _saga_agrees, final=False),
    _Check("one order, one partition", _one_partition, final=True),
    _Check("every record has its cause", _caused, final=False),
    _Check("every record is understood", _all_readable, final=True),
)
