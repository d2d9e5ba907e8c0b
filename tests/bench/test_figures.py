"""Figures are those of the runs: medians, paired shares of the limit, and none where a run has failed."""

from __future__ import annotations

from typing import Final

from compare.bench.document import Figure, Run
from compare.bench.figures import faults, figures, ratios
from compare.bench.relay import relay_of
from compare.bench.spec import INVALID, LEFT_OUT, NOT_ENDED
from tests.bench.measured import ALONE, PACED, run

RELAY: Final = relay_of("orchestrated")


def figure(runs: list[Run], metric: str, subject: str = "orchestrated") -> Figure | None:
    """One figure, if there is one."""
    return next((one for one in figures(runs) if (one.subject, one.metric) == (subject, metric)), None)


def test_a_figure_is_the_median_of_its_runs() -> None:
    """100 orders in 1, 2 and 4 seconds are 100, 50 and 25 a second."""
    found = figure(
        [run(repeat=1, seconds=2), run(repeat=2, seconds=1), run(repeat=3, seconds=4)], "throughput"
    )
    assert found is not None
    assert (found.value.median, found.value.low, found.value.high, found.value.repeats) == (50, 25, 100, 3)
    assert found.value.confidence == 0.75


def test_a_share_is_that_of_the_same_repeat() -> None:
    """A machine that is slower for a while is so for both: what is paired, it leaves alone."""
    runs = [run(repeat=one, seconds=2 * one) for one in (1, 2, 3)]
    runs += [run(RELAY, repeat=one, seconds=one) for one in (1, 2, 3)]
    found = figure(runs, "throughput")
    assert found is not None
    assert found.share_of_limit is not None
    assert (found.share_of_limit.median, found.share_of_limit.low, found.share_of_limit.high) == (
        0.5,
        0.5,
        0.5,
    )


def test_costs_are_by_saga() -> None:
    """What a hundred sagas cost, each cost a hundredth of."""
    found = {one.metric: one.value.median for one in figures([run()])}
    assert found["records"] == 7.4
    assert found["hops"] == 7.4
    assert found["bytes"] == 4300
    assert found["commits"] == 0.08
    assert found["cpu"] == 0.001
    assert found["broker cpu"] == 0.0001


def test_a_closed_loop_of_one_has_its_pace() -> None:
    """It is a closed loop, however few orders are under way."""
    found = figure([run(phase=ALONE, seconds=4)], "throughput")
    assert found is not None
    assert found.value.median == 25


def test_modes_are_compared_repeat_by_repeat() -> None:
    """Where the machine is slower for a while, the ratio isn't."""
    runs = [run(repeat=one, seconds=2 * one) for one in (1, 2, 3)]
    runs += [run("choreographed", repeat=one, seconds=one) for one in (1, 2, 3)]
    found = {one.metric: one for one in ratios(runs)}
    assert (found["throughput"].subject, found["throughput"].base) == ("choreographed", "orchestrated")
    value = found["throughput"].value
    assert (value.median, value.low, value.high, value.repeats) == (2, 2, 2, 3)


def test_what_ended_of_a_rate_is_compared_with_nothing() -> None:
    """Of two that keep up it is the same, and none that did not end is no number to divide by."""
    runs = [run(phase=PACED), run("choreographed", phase=PACED), run(RELAY, phase=PACED)]
    assert {one.metric for one in ratios(runs)} == {
        "cpu", "latency p50", "latency p90", "latency p99", "compensated p50"
    }  # fmt: skip
    for metric in ("ended", "not ended"):
        found = figure(runs, metric)
        assert found is not None
        assert found.share_of_limit is None


def test_a_bad_mode_is_compared_with_none() -> None:
    """Nor with one that was not measured."""
    assert ratios([run(), run("choreographed", verdict=INVALID)]) == ()
    assert ratios([run("choreographed")]) == ()


def test_one_bad_run_leaves_no_figure() -> None:
    """The median of the rest would be that of the runs that were lucky."""
    runs = [run(repeat=1), run(repeat=2, verdict=INVALID), run(repeat=3)]
    assert figures(runs) == ()
    assert list(faults(runs)) == [("orchestrated", "closed", "repeat 2: an order is charged twice")]


def test_a_bad_relay_leaves_no_share() -> None:
    """But the mode's own figure stands."""
    found = figure([run(), run(RELAY, verdict=INVALID)], "throughput")
    assert found is not None
    assert found.share_of_limit is None


def test_what_was_left_out_has_no_figure_and_is_no_fault() -> None:
    """A rate that was not offered says nothing bad about anybody."""
    runs = [run(verdict=LEFT_OUT)]
    assert figures(runs) == ()
    assert list(faults(runs)) == []


def test_orders_that_did_not_end_are_in_the_quantiles() -> None:
    """With a tenth of them missing, the 99th percentile is none that ended."""
    runs = [run(phase=PACED, unended=10), run(RELAY, phase=PACED)]
    p50, p99, missing = (figure(runs, metric) for metric in ("latency p50", "latency p99", "not ended"))
    assert p50 is not None
    assert p99 is not None
    assert missing is not None
    assert p50.value.median == 0.49
    assert p99.value.median == NOT_ENDED
    assert p99.share_of_limit is None
    assert missing.value.median == 0.1
