"""Whether a subject kept up with the rate that it was offered, or its orders queued up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from compare.bench.document import BenchDocument
from compare.bench.spec import CLOSED, Phase

NEAR: Final = 0.9
"""Of what the closed loop sustained: above that, a queue may grow as long as the load lasts. And of the rate:
if fewer end per second, one has grown. Some fewer do, for the last order takes its time as well."""


class Pressure(NamedTuple):
    """How hard a rate was for a subject."""

    of_sustained: float | None
    """The rate, as a share of what the subject's closed loop sustained; None if that isn't known."""
    saturated: bool


def pressure(document: BenchDocument, phase: Phase, subject: str) -> Pressure | None:
    """How hard it was, by the medians; None for what is no open loop, or has no figures."""
    found = {(one.phase, one.metric): one.value.median for one in document.figures if one.subject == subject}
    ended = found.get((phase.name, "ended"))
    if phase.rate is None or not isinstance(ended, float):
        return None
    sustained = _sustained(found)
    of_sustained = None if sustained is None else phase.rate / sustained
    # One order after another says how long each takes, and nothing of how many may be under way.
    near = of_sustained is not None and of_sustained > NEAR and document.settings.concurrency > 1
    behind = ended < NEAR * phase.rate
    return Pressure(of_sustained, near or behind or found.get((phase.name, "not ended")) != 0)


def _sustained(found: Mapping[tuple[str, str], object]) -> float | None:
    value = found.get((CLOSED, "throughput"))
    return value if isinstance(value, float) else None
