"""Medians over repeats, and how sure they are: without any assumption about how measurements are distributed.

A confidence interval of a median has two of the measurements as its ends. How likely it holds the true median
follows from the binomial distribution alone: Conover, "Practical Nonparametric Statistics" (1999), section
3.2; Le Boudec, "Performance Evaluation of Computer and Communication Systems" (2010), section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median
from typing import Final, NamedTuple

WANTED: Final = 0.95
"""The confidence that is aimed at; it takes six repeats."""


class Estimate(NamedTuple):
    """A median, and an interval that holds the true one with a probability of `confidence`, or a bit more."""

    median: float
    low: float | None
    """None where a single measurement tells nothing of the spread."""
    high: float | None
    confidence: float


def estimate(values: Sequence[float]) -> Estimate:
    """The median of at least one value; the narrowest interval that is sure enough, or the widest."""
    ordered = sorted(values)
    total = len(ordered)
    if total == 1:
        return Estimate(ordered[0], None, None, 0.0)
    rank = max(
        (one for one in range(1, (total + 1) // 2 + 1) if _confidence(one, total) >= WANTED), default=1
    )
    return Estimate(median(ordered), ordered[rank - 1], ordered[total - rank], _confidence(rank, total))


def _confidence(rank: int, total: int) -> float:
    """That the true median is between the value of this rank and that of the same rank from above."""
    outside: float = sum(comb(total, below) for below in range(rank)) / 2**total
    return max(0.0, 1 - 2 * outside)
