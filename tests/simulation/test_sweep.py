from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from common.domain.decision import Rules
from compare.checks import Verdict
from compare.cli import EXIT_CODES
from compare.console import PlainConsole
from compare.lab import MODES
from compare.signs import Pen
from compare.simulation.actions import Mishap
from compare.simulation.drive import Anomaly, Schedule, drive, simulated_plan
from compare.simulation.protections import Protection
from compare.simulation.sagas import SAGAS
from compare.simulation.sweep import START, WAKE, Bounds, Outcome, Spot, Swept, sweep
from compare.simulation.sweep_command import Part, sweep_parts
from compare.simulation.sweep_report import matrix, print_sweep, sweep_document, verdict_of_sweep
from compare.simulation.world import World

ONE_CRASH = Bounds(crashes=1, repeats=0)
NONE: frozenset[Protection] = frozenset()

_ROOT = Path(__file__).parents[2]
_PRINT = """
from compare.simulation.sweep_command import Part, sweep_parts
from compare.simulation.sweep import Bounds
from compare.simulation.protections import Protection
from compare.simulation.sweep_report import sweep_document

def main():
    bounds, without = Bounds(crashes=1, repeats=0), frozenset({Protection.OUTBOX})
    parts = [Part(mode, "happy", bounds, without) for mode in ("orchestrated", "choreographed")]
    document = sweep_document(bounds, without, sweep_parts(parts, WORKERS))
    parts = [part.model_copy(update={"seconds": 0.0}) for part in document.parts]
    print(document.model_copy(update={"parts": tuple(parts)}).model_dump_json())

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("saga", ["happy", "declined"])
def test_a_small_saga_is_exhausted_and_converges(mode: str, saga: str) -> None:
    """All histories with a crash anywhere, or none, end well, and none is left out."""
    swept = sweep(MODES[mode], SAGAS[saga], ONE_CRASH)
    assert (swept.exhausted, swept.converges) == (True, True)
    assert swept.outcomes == {Outcome.CONVERGED: swept.ends}
    assert swept.histories > swept.states > swept.ends or mode == "choreographed"


@pytest.mark.parametrize("mode", MODES)
def test_repeats_converge(mode: str) -> None:
    """Any record that comes once more changes nothing."""
    swept = sweep(MODES[mode], SAGAS["happy"], Bounds(crashes=0, repeats=1))
    assert (swept.exhausted, swept.converges) == (True, True)


def test_every_boundary_of_every_step_is_struck() -> None:
    """Of all that a service does, nothing goes by without a crash at each boundary."""
    swept = sweep(MODES["orchestrated"], SAGAS["declined"], ONE_CRASH)
    struck = {at for at in Mishap if at not in {Mishap.FAILS, Mishap.FAILS_FOR_GOOD}}
    for step in ("place", "reserve", "pay", "release", "complete", WAKE):
        assert {spot.at for spot in swept.cells if spot.step == step} == struck
    assert all(cell.outcomes == {Outcome.CONVERGED: cell.crashes} for cell in swept.cells.values())


def test_a_second_crash_strikes_a_service_that_starts() -> None:
    """Who publishes what an earlier life has left may die of it, and all of it comes out in the end."""
    swept = sweep(MODES["choreographed"], SAGAS["declined"], Bounds(crashes=2, repeats=0))
    assert (swept.exhausted, swept.converges) == (True, True)
    assert {spot.at for spot in swept.cells if spot.step == START} == {
        Mishap.DIES_COMMITTED,
        Mishap.DIES_PUBLISHING,
        Mishap.DIES_PUBLISHED,
        Mishap.DIES_ACKNOWLEDGED,
    }


def test_dying_before_and_dying_decided_count_alike() -> None:
    """Both undo all, so both cells say the same."""
    cells = sweep(MODES["choreographed"], SAGAS["happy"], ONE_CRASH).cells
    assert cells[Spot("pay", Mishap.DIES_BEFORE)] == cells[Spot("pay", Mishap.DIES_DECIDED)]


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_outbox_is_found_and_its_example_is_real(mode: str) -> None:
    """Without an outbox, the example that is found goes wrong in the plain simulated world, too."""
    without = frozenset({Protection.OUTBOX, Protection.DEADLINES})
    swept = sweep(MODES[mode], SAGAS["happy"], ONE_CRASH, without)
    assert Anomaly.STUCK in swept.examples
    assert any(cell.outcomes[Outcome.STUCK] for cell in swept.cells.values())
    example = swept.examples[Anomaly.STUCK]
    world = World(MODES[mode], without)
    history = drive(world, simulated_plan(SAGAS["happy"].scenario, Rules()), Schedule(example))
    world.close()
    assert Anomaly.STUCK in history.anomalies
    assert history.actions == example


def test_the_first_is_enough_if_that_is_wanted() -> None:
    """With `first_only`, there is an example, and no claim that all was looked at."""
    swept = sweep(
        MODES["choreographed"], SAGAS["happy"], ONE_CRASH, frozenset({Protection.OUTBOX}), first_only=True
    )
    assert swept.examples
    assert not swept.exhausted


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(crashes=1, repeats=0, most_states=50),
        Bounds(crashes=1, repeats=0, most_steps=5),
        Bounds(crashes=1, repeats=0, most_seconds=0.0),
    ],
    ids=["states", "steps", "seconds"],
)
def test_a_bound_is_told(bounds: Bounds) -> None:
    """Whatever ends a sweep early, it says that it is not exhausted, and the verdict is unknown."""
    swept = sweep(MODES["choreographed"], SAGAS["happy"], bounds)
    assert not swept.exhausted
    assert verdict_of_sweep([swept]) is Verdict.UNKNOWN
    assert EXIT_CODES[verdict_of_sweep([swept])] == 2


def test_a_defect_outweighs_a_bound() -> None:
    """What was found is wrong, however much was left out."""
    without = frozenset({Protection.OUTBOX})
    swept = sweep(MODES["choreographed"], SAGAS["happy"], ONE_CRASH, without, first_only=True)
    assert verdict_of_sweep([swept]) is Verdict.INVALID


def test_hash_seeds_and_workers_change_nothing() -> None:
    """The whole document is the same but for the seconds."""
    found = {
        subprocess.run(
            [sys.executable, "-c", _PRINT.replace("WORKERS", "1")],
            cwd=_ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1
    parts = [Part(mode, "happy", ONE_CRASH, frozenset({Protection.OUTBOX})) for mode in MODES]
    spread = sweep_document(ONE_CRASH, frozenset({Protection.OUTBOX}), sweep_parts(parts, 2))
    here = json.loads(found.pop())["parts"]
    assert [{**part.model_dump(mode="json"), "seconds": 0.0} for part in spread.parts] == here


def test_progress_is_told() -> None:
    """Whoever watches hears the number of states in the end."""
    heard: list[tuple[str, int]] = []
    [swept] = sweep_parts(
        [Part("choreographed", "happy", ONE_CRASH, NONE)],
        1,
        lambda part, states: heard.append((part, states)),
    )
    assert heard[-1] == ("happy, choreographed", swept.states)


def test_the_matrix_has_a_row_for_each_step_and_boundary() -> None:
    """By step and boundary, and by mode, it says how many crashes can come to which end."""
    swept = [sweep(MODES[mode], SAGAS["happy"], ONE_CRASH) for mode in MODES]
    text = _printed(swept)
    cells = [part.cells[Spot("pay", Mishap.DIES_COMMITTED)] for part in swept]
    row = next(line for line in text.splitlines() if line.startswith("  pay"))
    assert row.split() == [
        "pay",
        "dies",
        "before",
        *" ".join(f"{one.crashes} / 0 / 0 / 0" for one in cells).split(),
    ]
    assert "orchestrated" in text
    assert "choreographed" in text


def test_the_matrix_shows_what_goes_wrong() -> None:
    """An order that gets stuck is in the second place of its cell."""
    without = frozenset({Protection.OUTBOX, Protection.DEADLINES})
    swept = sweep(MODES["choreographed"], SAGAS["happy"], ONE_CRASH, without)
    stuck = swept.cells[Spot("pay", Mishap.DIES_COMMITTED)].outcomes[Outcome.STUCK]
    assert stuck
    assert f"/ {stuck} /" in _printed([swept])


@pytest.mark.parametrize(
    ("bounds", "stopped_by"),
    [
        (replace(ONE_CRASH, most_steps=5), "--most-steps"),
        (replace(ONE_CRASH, most_states=10), "--most-states"),
        (replace(ONE_CRASH, most_seconds=0.0), "--seconds"),
    ],
    ids=str,
)
def test_a_bound_that_was_reached_is_named(bounds: Bounds, stopped_by: str) -> None:
    """Whoever wants all of it knows what to raise."""
    swept = sweep(MODES["choreographed"], SAGAS["happy"], bounds)
    assert (swept.stopped_by, swept.exhausted) == (stopped_by, False)
    assert f"not exhausted: {stopped_by}" in _reported([swept], bounds)


def test_a_sweep_says_what_it_has_looked_at() -> None:
    """What may have gone wrong in each history, and where else to look for what it can't find."""
    bounds, locks = Bounds(crashes=1, repeats=1), frozenset({Protection.ROW_LOCKS})
    swept = replace(sweep(MODES["choreographed"], SAGAS["happy"], ONE_CRASH), saga="timed-out")
    assert "at most: 1 x crash, 1 x repeat, and a loss in timed-out." in _reported([swept], bounds)
    assert "See `ablate`" not in _reported([swept], bounds)
    assert "without row-locks." in _reported([swept], bounds, locks)
    assert "See `ablate`" in _reported([swept], bounds, locks)


def test_a_sweep_leaves_the_interpreter_as_it_was() -> None:
    """It needs deep recursion, and what comes after it does not."""
    before = sys.getrecursionlimit()
    sweep(MODES["choreographed"], SAGAS["happy"], Bounds(crashes=0, repeats=0, most_steps=before))
    assert sys.getrecursionlimit() == before


def test_no_number_is_cut_off() -> None:
    """Where a terminal is too narrow for a table, its numbers are whole all the same."""
    swept = replace(sweep(MODES["choreographed"], SAGAS["happy"], ONE_CRASH), histories=12_345_678_901)
    assert _reported([swept], ONE_CRASH, width=60).count("12,345,678,901") == 2


def _reported(
    swept: list[Swept], bounds: Bounds, without: frozenset[Protection] = NONE, width: int = 200
) -> str:
    console = PlainConsole()
    console.file = output = StringIO()
    console.width = width
    print_sweep(console, sweep_document(bounds, without, swept), swept)
    return output.getvalue()


def _printed(swept: list[Swept]) -> str:
    console = PlainConsole()
    console.file = StringIO()
    console.width = 120
    console.print(matrix(Pen(Console(file=StringIO())), swept))
    return console.file.getvalue()
