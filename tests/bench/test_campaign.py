"""A measurement that goes wrong is a result, too: with the reason, and without a figure."""

from __future__ import annotations

import pytest

from common.settings import Settings
from compare.bench.campaign import Plan, measure
from compare.bench.document import Run
from compare.bench.spec import LEFT_OUT, UNKNOWN, VALID, Phase
from compare.lab import EMBEDDED

FIRST = Phase(name="closed", concurrency=5, orders=20, seconds=5)
SECOND = Phase(name="idle", concurrency=1, orders=2, seconds=5)


def plan(subject: str, repeats: int = 1, within_s: float | None = None) -> Plan:
    """A small measurement of one subject."""
    return Plan(
        address=EMBEDDED,
        subjects=(subject,),
        phases=(FIRST, SECOND),
        repeats=repeats,
        declined=0.2,
        items=2,
        warm_up=5,
        partitions=2,
        durability="NORMAL",
        processes=False,
        instances=1,
        within_s=within_s,
    )


async def measured(plan: Plan) -> list[Run]:
    """What comes of it."""
    runs: list[Run] = []
    await measure(plan, Settings(database_url=None), lambda *_: None, runs.append)
    return runs


@pytest.mark.live
async def test_phases_come_in_their_order() -> None:
    """Each with its verdict, and with as many orders as were to be placed."""
    runs = await measured(plan("orchestrated"))
    assert [(run.measured.phase.name, run.measured.verdict) for run in runs] == [
        ("closed", VALID),
        ("idle", VALID),
    ]
    assert [run.measured.ended for run in runs] == [20, 2]


@pytest.mark.live
async def test_a_subject_that_cant_start_says_why() -> None:
    """The first phase is unknown, and those after it are left out."""
    runs = await measured(plan("dbos-postgresql"))
    assert [run.measured.verdict for run in runs] == [UNKNOWN, LEFT_OUT]
    assert "dbos" in runs[0].measured.faults[0]


@pytest.mark.live
async def test_no_repeat_is_begun_that_would_end_too_late() -> None:
    """But the first always is: a benchmark that tells nothing isn't quick."""
    runs = await measured(plan("choreographed", repeats=3, within_s=0.001))
    assert {run.repeat for run in runs} == {1}
