"""Quantiles count what did not end, and tell nothing that there are too few orders for."""

from __future__ import annotations

from compare.bench.quantiles import quantiles
from compare.bench.spec import NOT_ENDED, Quantiles


def test_they_are_by_nearest_rank() -> None:
    """Of a thousand, the 990th is the 99th percentile."""
    found = quantiles([number / 1000 for number in range(1, 1001)], 0)
    assert found == Quantiles(orders=1000, p50=0.5, p90=0.9, p99=0.99, p999=0.999)


def test_what_did_not_end_counts_as_later_than_all_others() -> None:
    """To leave it out would make a system look the better the more orders it loses."""
    found = quantiles([0.1] * 97, 3)
    assert found == Quantiles(orders=100, p50=0.1, p90=0.1, p99=NOT_ENDED, p999=None)


def test_without_an_order_above_it_there_is_no_quantile() -> None:
    """The longest of ten is no 99th percentile."""
    found = quantiles([float(number) for number in range(10)], 0)
    assert found == Quantiles(orders=10, p50=4.0, p90=8.0, p99=None, p999=None)


def test_without_orders_there_is_nothing_to_tell() -> None:
    """A phase in which nothing was declined has no time to compensate."""
    assert quantiles([], 0) is None


def test_if_nothing_ended_that_is_told() -> None:
    """All that is known is that they take longer."""
    found = quantiles([], 4)
    assert found is not None
    assert found.p50 == NOT_ENDED
