"""Small mistakes, planted into the services, are found in drawn histories, and shrunk to what shows them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final, NamedTuple

import pytest

from common.domain.decision import Rules
from common.wiring import Mode
from compare.checks import CHECKS, Finding, Verdict
from compare.lab import MODES
from compare.simulation.chance import Chance, Whim, draw_scenario, seed_of
from compare.simulation.drive import Anomaly, History, drive, simulated_plan
from compare.simulation.protections import Protection
from compare.simulation.shrink import Shrunk, shrink
from compare.simulation.world import World
from tests.simulation.defects import DEFECTS, Defect

SEED: Final = 1
SAMPLED: Final = 8
"""One case of so many is always run; `--thorough` runs all."""
MOST_RUNS: Final = 1_000
MOST_STEPS: Final = 400
"""None of the drawn histories that end is as long as that."""

NOT_APPLIED: Final = frozenset({"orders end as expected", "stock is as expected"})
"""Checks of what a scenario expects; what is drawn expects nothing."""

Seen = tuple[Defect, str]
CASES: Final[list[Seen]] = [(defect, mode) for defect in DEFECTS for mode in defect.modes]


class Found(NamedTuple):
    """The first history that goes wrong, and the smallest that does so, too."""

    run: int
    history: History
    smallest: Shrunk

    @property
    def anomalies(self) -> frozenset[Anomaly]:
        return self.history.anomalies | self.smallest.history.anomalies

    @property
    def violated(self) -> set[str]:
        """The checks that it doesn't pass."""
        findings: tuple[Finding, ...] = (*self.history.findings, *self.smallest.history.findings)
        return {one.check for one in findings if one.verdict is Verdict.INVALID}


@contextmanager
def quiet_world(mode: Mode, *without: Protection) -> Iterator[World]:
    """A world whose services don't complain of what is done to them."""
    logging.disable(logging.CRITICAL)
    world = World(mode, without)
    try:
        yield world
    finally:
        world.close()
        logging.disable(logging.NOTSET)


def first_wrong(world: World, most: int = MOST_RUNS) -> tuple[int, History] | None:
    """The first of the drawn histories that goes wrong, and its number; none if all go well."""
    for run in range(most):
        chance = Chance(seed_of(SEED, run))
        plan = simulated_plan(draw_scenario(chance, f"planted-{run}"), Rules())
        history = drive(world, plan, Whim(chance), most_steps=MOST_STEPS)
        if history.anomalies:
            return run, history
    return None


@cache
def found_with(defect: Defect, mode: str) -> Found | None:
    """What comes of a defect in a mode; each is looked for once."""
    with pytest.MonkeyPatch.context() as patch, quiet_world(defect.planted(patch, MODES[mode])) as world:
        wrong = first_wrong(world)
        return Found(*wrong, shrink(world, wrong[1])) if wrong else None


@cache
def found_without(protection: Protection, mode: str) -> Found | None:
    """What comes of taking a protection away."""
    with quiet_world(MODES[mode], protection) as world:
        wrong = first_wrong(world)
        return Found(*wrong, shrink(world, wrong[1])) if wrong else None


@pytest.mark.parametrize(
    ("defect", "mode"),
    [
        pytest.param(
            defect, mode, id=f"{mode}-{defect.name}", marks=[pytest.mark.thorough] if index % SAMPLED else []
        )
        for index, (defect, mode) in enumerate(CASES)
    ],
)
def test_a_planted_defect_is_found_and_shrunk(defect: Defect, mode: str) -> None:
    """It is found within a thousand histories, by the harm that it does, and shrunk to a few actions."""
    found = found_with(defect, mode)
    assert found is not None, "none of the histories goes wrong"
    history, schedule = found.smallest
    assert history.anomalies & defect.anomalies, (history.anomalies, history.faults)
    assert len(history.scenario.orders) <= defect.orders, history.scenario
    assert len(schedule) <= defect.actions, [*map(str, schedule)]


@pytest.mark.parametrize("mode", MODES)
def test_without_a_defect_nothing_is_found(mode: str) -> None:
    """The same histories go well where nothing is planted."""
    with quiet_world(MODES[mode]) as world:
        assert first_wrong(world, 40) is None


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_every_check_finds_something() -> None:
    """Each check that is applied to a drawn history is what finds some defect."""
    found = [found_with(*case) for case in CASES]
    found += [found_without(Protection.KEY_ORDERING, "choreographed")]
    violated = {check for one in found if one is not None for check in one.violated}
    assert {check.name for check in CHECKS} - NOT_APPLIED - NEVER_VIOLATED.keys() == violated


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_every_anomaly_is_found() -> None:
    """Each kind of harm is what some defect does."""
    found = [found_with(*case) for case in CASES]
    anomalies = {anomaly for one in found if one is not None for anomaly in one.anomalies}
    assert set(Anomaly) - anomalies == NEVER_DONE.keys()


NEVER_VIOLATED: Final = {
    "charged at most once": "a payment is one row, charged under one id: it takes two defects at once",
}
"""Checks that no defect here breaks, and why."""
NEVER_DONE: Final = {
    Anomaly.DOUBLE_CHARGE: "a payment is one row, charged under one id: it takes two defects at once",
}
"""Harm that no defect here does, and why."""
