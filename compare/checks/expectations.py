"""What the scenario itself expects of its orders and of the stock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from common.domain.order import OrderStatus
from common.messages import Reason
from compare.checks.case import Case, Fault
from compare.checks.standing import Standing
from compare.scenario import ExpectedOrder, ExpectedSplit, OrderSpec


def orders_end_as_expected(case: Case) -> Iterator[Fault]:
    """By the databases; that the records say the same is a check of its own."""
    by_spec: dict[int, list[Standing]] = defaultdict(list)
    for order, standing in zip(case.recording.orders, case.databases.standings, strict=True):
        by_spec[order.spec].append(standing)
    for index, spec in enumerate(case.scenario.orders):
        expected = spec.expected(case.recording.mode)
        if isinstance(expected, ExpectedOrder):
            yield from _each(expected, by_spec[index])
        else:
            yield from _split(spec, expected, by_spec[index])


def _each(expected: ExpectedOrder, standings: Sequence[Standing]) -> Iterator[Fault]:
    for one in standings:
        if one.status != expected.status or not _fits(expected.reason, one):
            why = f" for {expected.reason}" if expected.reason else ""
            text = f"{one.name}: expected {expected.status}{why}, got {one.outcome}"
            yield Fault(text, (one.order_id,))


def _split(spec: OrderSpec, expected: ExpectedSplit, standings: Sequence[Standing]) -> Iterator[Fault]:
    counts = Counter(one.status for one in standings)
    split = (counts[OrderStatus.COMPLETED], counts[OrderStatus.FAILED])
    if split != (expected.completed, expected.failed):
        yield Fault(
            f"of {len(standings)} orders for {spec.item}, expected {expected.completed} COMPLETED and "
            f"{expected.failed} FAILED, got {split[0]} and {split[1]}",
            tuple(one.order_id for one in standings),
        )
    for one in standings:
        if one.status == OrderStatus.FAILED and not _fits(expected.reason, one):
            text = f"{one.name}: expected to fail for {expected.reason}, got {one.outcome}"
            yield Fault(text, (one.order_id,))


def _fits(expected: Reason | None, standing: Standing) -> bool:
    return expected is None or standing.reason == expected


def stock_is_as_expected(case: Case) -> Iterator[Fault]:
    """What is free in the end."""
    stock = case.databases.stock
    for item, pieces in case.scenario.expect.stock.items():
        if stock.get(item) != pieces:
            wanting = (one.order_id for one in case.databases.standings if one.spec.item == item)
            yield Fault(f"{item}: expected {pieces} free, got {stock.get(item)}", tuple(wanting))
