"""Results of measurements, made up: what figures and reports are made of in the tests."""

from __future__ import annotations

from typing import Final

from compare.bench.document import Run
from compare.bench.quantiles import quantiles
from compare.bench.spec import CLOSED, VALID, Measured, Phase, Verdict

CROWDED: Final = Phase(name=CLOSED, concurrency=10, orders=100, seconds=5)
PACED: Final = Phase(name="100/s", rate=100, orders=100, seconds=1)


def run(
    subject: str = "orchestrated",
    repeat: int = 1,
    *,
    phase: Phase = CROWDED,
    seconds: float = 1.0,
    verdict: Verdict = VALID,
    unended: int = 0,
) -> Run:
    """A hundred orders, of which the last may not have ended."""
    ended = 100 - unended
    measured = Measured(
        phase=phase,
        verdict=verdict,
        faults=() if verdict == VALID else ("an order is charged twice",),
        placed=100,
        ended=ended,
        declined=20,
        unended=unended,
        seconds=seconds,
        latency=quantiles([seconds * number / 100 for number in range(ended)], unended),
        compensated=quantiles([seconds] * 20, 0),
        lag_s=0.001,
        cpu_s=0.1,
        broker_cpu_s=0.01,
        memory=2**26,
        records=740,
        bytes=430_000,
        commits=8,
    )
    return Run(subject=subject, repeat=repeat, measured=measured)
