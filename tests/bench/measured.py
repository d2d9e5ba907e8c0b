"""Results of measurements, made up: what figures and reports are made of in the tests."""

from __future__ import annotations

from typing import Final

from compare.bench.document import BenchDocument, Machine, Peer, Run, SettingsUsed
from compare.bench.figures import figures, ratios
from compare.bench.quantiles import quantiles
from compare.bench.report import verdict_of_runs
from compare.bench.spec import CLOSED, VALID, Measured, Phase, Verdict

CROWDED: Final = Phase(name=CLOSED, concurrency=10, orders=100, seconds=5)
ALONE: Final = Phase(name=CLOSED, concurrency=1, orders=100, seconds=5)
PACED: Final = Phase(name="100/s", rate=100, orders=100, seconds=1)
MACHINE: Final = Machine(processor="a processor", processors=2, memory=2**33, system="a system", load=0.5)
SETTINGS: Final = SettingsUsed(
    broker="embedded",
    partitions=3,
    fetch_max_wait_ms=2,
    max_poll_records=500,
    database="SQLite",
    durability="FULL",
    processes=False,
    instances=1,
    orders=100,
    concurrency=10,
    seconds=5,
    declined=0.2,
    items=10,
    warm_up=10,
    repeats=3,
)


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
        hops=740,
    )
    return Run(subject=subject, repeat=repeat, measured=measured)


def document(*runs: Run, peers: tuple[Peer, ...] = ()) -> BenchDocument:
    """All that is to be said of these runs."""
    return BenchDocument(
        begun="2026-01-02T03:04:05Z",
        seconds=1.0,
        command="python -m compare bench",
        machine=MACHINE,
        versions={"saga-lab": "9.9"},
        settings=SETTINGS,
        peers=peers,
        verdict=verdict_of_runs(runs).value,
        figures=figures(runs),
        ratios=ratios(runs),
        runs=runs,
    )
