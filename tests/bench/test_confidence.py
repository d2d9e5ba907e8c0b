"""Intervals of medians, against the tables of the textbooks."""

from __future__ import annotations

from math import inf

import pytest

from compare.bench.confidence import WANTED, Estimate, estimate


@pytest.mark.parametrize(
    ("total", "rank", "confidence"),
    [(6, 1, 0.96875), (8, 1, 0.9921875), (9, 2, 0.9609375), (12, 3, 0.9614257812), (20, 6, 0.9586105347)],
)
def test_ranks_and_confidence_are_those_of_the_sign_test(total: int, rank: int, confidence: float) -> None:
    """Le Boudec's table for the median: the interval goes from the `rank`th to the `rank`th from above."""
    found = estimate([float(number) for number in range(1, total + 1)])
    assert (found.low, found.high) == (rank, total + 1 - rank)
    assert found.confidence == pytest.approx(confidence)
    assert found.confidence >= WANTED


def test_with_few_repeats_it_is_less_sure_and_says_so() -> None:
    """Three values can't do better than three quarters."""
    assert estimate([3.0, 1.0, 2.0]) == Estimate(2.0, 1.0, 3.0, 0.75)


def test_a_single_value_has_no_interval() -> None:
    """One run of ten proves nothing about its spread."""
    assert estimate([5.0]) == Estimate(5.0, None, None, 0.0)


def test_what_was_not_over_sorts_last() -> None:
    """If half of the repeats have no end, the median has none either."""
    assert estimate([1.0, inf, inf]).median == inf
    assert estimate([1.0, 2.0, inf]).median == 2.0
