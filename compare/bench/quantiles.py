"""Quantiles of how long orders took, in which those that did not end count as longer than all others."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from compare.bench.spec import NOT_ENDED, Quantile, Quantiles


def quantiles(seconds: Sequence[float], unended: int) -> Quantiles | None:
    """The quantiles of so many times, and as many more that were never over; None without any.

    By nearest rank: the least time that so many of all orders did not exceed. No order being above it, there
    is no such quantile: the longest of a hundred isn't the one that a thousandth exceeds.
    """
    total = len(seconds) + unended
    if not total:
        return None
    ordered = sorted(seconds)

    def at(permille: int) -> Quantile:
        rank = ceil(permille * total / 1000)
        if rank == total and total > 1:
            return None
        return ordered[rank - 1] if rank <= len(ordered) else NOT_ENDED

    return Quantiles(orders=total, p50=at(500), p90=at(900), p99=at(990), p999=at(999))
