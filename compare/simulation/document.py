"""What a simulation has to say, for machines."""

from __future__ import annotations

import platform
from typing import Final, Literal

from pydantic import Field

from common import __version__
from compare.checks import Verdict
from compare.recording import Frozen
from compare.simulation.campaign import Draw, Tally

SCHEMA_VERSION: Final = 1


class Ended(Frozen):
    """How many orders ended in one way."""

    mode: str
    status: str
    reason: str | None
    orders: int


class Wrong(Frozen):
    """A history that went wrong."""

    run: int = Field(description="from 0; with the seed, it is all that is needed to see it again")
    mode: str
    anomalies: tuple[str, ...]


class SimulationDocument(Frozen):
    """All of it."""

    schema_version: Literal[1] = SCHEMA_VERSION
    lab_version: str
    python: str
    seed: int
    modes: tuple[str, ...]
    scenario: str | None = Field(description="whose orders it was; none if they were drawn")
    without: tuple[str, ...] = Field(description="the protections that were taken away")
    payment_limit_cents: int
    workers: int
    histories: int
    actions: int
    end_states: int = Field(description="distinct situations in which they ended, times left out")
    mishaps: dict[str, int]
    ends: tuple[Ended, ...]
    seconds: float
    histories_per_minute: float
    digest: str = Field(description="of every step of each; the same for the same seed, everywhere")
    verdict: Verdict
    wrong: tuple[Wrong, ...]


def simulation_document(draw: Draw, tally: Tally, seconds: float, workers: int) -> SimulationDocument:
    """Put it together."""
    return SimulationDocument(
        lab_version=__version__,
        python=platform.python_version(),
        seed=draw.seed,
        modes=draw.modes,
        scenario=draw.scenario.name if draw.scenario else None,
        without=draw.without,
        payment_limit_cents=draw.rules.payment_limit_cents,
        workers=workers,
        histories=tally.histories,
        actions=tally.actions,
        end_states=len(tally.states),
        mishaps=dict(sorted(tally.mishaps.items())),
        ends=tuple(
            Ended(mode=mode, status=status, reason=reason or None, orders=orders)
            for (mode, status, reason), orders in sorted(tally.ends.items())
        ),
        seconds=round(seconds, 3),
        histories_per_minute=round(tally.histories * 60 / seconds, 1),
        digest=tally.digest,
        verdict=Verdict.INVALID if tally.failures else Verdict.VALID,
        wrong=tuple(Wrong(run=one.run, mode=one.mode, anomalies=one.anomalies) for one in tally.failures),
    )
