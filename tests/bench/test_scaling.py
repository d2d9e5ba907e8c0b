"""What a saga costs early and late in a run is told from samples on the way."""

from __future__ import annotations

from compare.bench.relay import relay_of
from compare.bench.scaling import steps
from compare.bench.spec import INVALID, Sample
from tests.bench.measured import run


def samples() -> tuple[Sample, ...]:
    """Ten, of which the later half costs twice as much."""
    found, cpu_s = [], 0.0
    for number in range(1, 11):
        cpu_s += 1.0 if number <= 5 else 2.0
        found.append(Sample(ended=10 * number, seconds=float(number), cpu_s=cpu_s, memory=number))
    return tuple(found)


def test_costs_that_grow_are_seen() -> None:
    """Each fifth of the run has its own cost per saga, pace and memory."""
    one = run()
    sampled = one.model_copy(update={"measured": one.measured.model_copy(update={"samples": samples()})})
    found = list(steps([sampled]))
    assert [step.cpu_s for step in found] == [0.1, 0.1, 0.15, 0.2, 0.2]
    assert [step.per_second for step in found] == [10.0] * 5
    assert [(step.last, step.memory) for step in found] == [(20, 2), (40, 4), (60, 6), (80, 8), (100, 10)]


def test_only_sound_runs_of_modes_are_told() -> None:
    """A run that has failed has no figure, and the relay is there to be compared with."""
    for one in (run(verdict=INVALID), run(relay_of("orchestrated"))):
        sampled = one.model_copy(update={"measured": one.measured.model_copy(update={"samples": samples()})})
        assert not list(steps([sampled]))
    assert not list(steps([run()]))
