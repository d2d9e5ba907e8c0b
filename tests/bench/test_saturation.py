"""Whether a subject keeps up with a rate is told from what it ended, and from what its closed loop did."""

from __future__ import annotations

import pytest

from compare.bench.saturation import Pressure, pressure
from tests.bench.measured import ALONE, CROWDED, PACED, document, run


@pytest.mark.parametrize(
    ("closed_s", "paced_s", "unended", "expected"),
    [
        (0.5, 1.0, 0, Pressure(0.5, saturated=False)),
        (1.0, 1.0, 0, Pressure(1.0, saturated=True)),
        (0.5, 1.1, 0, Pressure(0.5, saturated=False)),
        (0.5, 1.2, 0, Pressure(0.5, saturated=True)),
        (0.5, 1.0, 1, Pressure(0.5, saturated=True)),
    ],
)
def test_a_rate_that_is_near_the_limit_or_not_kept_up_with(
    closed_s: float, paced_s: float, unended: int, expected: Pressure
) -> None:
    """A hundred orders per second, by how long the orders of both loops took."""
    found = document(run(seconds=closed_s), run(phase=PACED, seconds=paced_s, unended=unended))
    assert pressure(found, PACED, "orchestrated") == expected


def test_without_a_closed_loop_what_ended_decides() -> None:
    """Nothing is known of what it would sustain."""
    found = document(run(phase=PACED, seconds=2))
    assert pressure(found, PACED, "orchestrated") == Pressure(None, saturated=True)


def test_a_closed_loop_of_one_is_no_limit() -> None:
    """Several may be under way at a rate that is beyond it, and none of them waits."""
    found = document(run(phase=ALONE, seconds=4), run(phase=PACED))
    alone = found.settings.model_copy(update={"concurrency": 1})
    found = found.model_copy(update={"settings": alone})
    assert pressure(found, PACED, "orchestrated") == Pressure(4.0, saturated=False)


def test_what_has_no_rate_is_under_no_pressure() -> None:
    """Nor is a subject without figures."""
    found = document(run())
    assert pressure(found, CROWDED, "orchestrated") is None
    assert pressure(found, PACED, "orchestrated") is None
