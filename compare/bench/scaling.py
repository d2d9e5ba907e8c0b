"""Whether a saga costs the same however many came before it: the samples of a run, by fifths of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from compare.bench.document import Run
from compare.bench.spec import VALID, Sample
from compare.bench.subjects import limit_of

_PARTS: Final = 5


class Step(NamedTuple):
    """A part of a run."""

    subject: str
    phase: str
    last: int
    """Of the orders that ended in it, in the order in which they did."""
    cpu_s: float
    """Per saga."""
    per_second: float
    memory: int
    """Bytes resident at its end."""


def steps(runs: Sequence[Run]) -> Iterator[Step]:
    """The parts of each mode's run that was sampled."""
    for run in runs:
        samples = run.measured.samples
        if limit_of(run.subject) is not None and run.measured.verdict == VALID and len(samples) >= _PARTS:
            yield from _parts(run.subject, run.measured.phase.name, samples)


def _parts(subject: str, phase: str, samples: Sequence[Sample]) -> Iterator[Step]:
    before = Sample(ended=0, seconds=0.0, cpu_s=0.0, memory=0)
    for part in range(1, _PARTS + 1):
        sample = samples[part * len(samples) // _PARTS - 1]
        ended = sample.ended - before.ended
        yield Step(
            subject=subject,
            phase=phase,
            last=sample.ended,
            cpu_s=(sample.cpu_s - before.cpu_s) / ended,
            per_second=ended / (sample.seconds - before.seconds),
            memory=sample.memory,
        )
        before = sample
