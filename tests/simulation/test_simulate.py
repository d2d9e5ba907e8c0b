"""`compare simulate`: histories from a seed, the same everywhere, and the smallest that goes wrong."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from compare.cli import main
from compare.scenario_files import find_scenario
from compare.simulation.campaign import CHUNK, Draw, history_of, simulate, world_of
from compare.simulation.drive import Anomaly
from compare.simulation.protections import Protection
from compare.simulation.shrink import shrink
from tests.simulation.worlds import BOTH, happen, orders

MODES = tuple(BOTH)
SMALL = ("--seed", "1", "--runs", "5", "--workers", "1")


def test_drawn_histories_are_sound() -> None:
    """Whatever is drawn, the services bring it to an end that the invariants allow."""
    tally = simulate(Draw(3, MODES), 100, workers=1)
    assert not tally.failures
    assert tally.histories == 200
    statuses = {status for _, status, _ in tally.ends}
    assert statuses == {"COMPLETED", "FAILED", "COMPENSATION_FAILED"}
    assert len(tally.mishaps) >= 13, "every kind of mishap comes up"


def test_the_number_of_workers_changes_nothing() -> None:
    """Two processes draw what one draws, in the same order."""
    draw = Draw(2, MODES)
    one, two = (simulate(draw, 2 * CHUNK, workers) for workers in (1, 2))
    assert (one.digest, one.ends, one.mishaps, one.states) == (two.digest, two.ends, two.mishaps, two.states)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_seed_is_the_same_history_in_any_process(hash_seed: str) -> None:
    """Nothing depends on the order of a set, which is another in each process."""
    found = json.loads(_simulated(*SMALL, "--json", "-", hash_seed=hash_seed))
    assert found["digest"] == simulate(Draw(1, MODES), 5, workers=1).digest


def test_a_digest_is_that_of_these_histories() -> None:
    """It is the same in every version of Python, on every machine; another digest is another history."""
    assert simulate(Draw(7, MODES), 10, workers=1).digest == _KNOWN_DIGEST


def _simulated(*arguments: str, hash_seed: str = "0") -> str:
    command = [sys.executable, "-m", "compare", "simulate", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.mark.parametrize("mode", MODES)
def test_a_history_shrinks_to_what_makes_it_wrong(mode: str) -> None:
    """Of several orders and many mishaps, those are left without which nothing goes wrong."""
    draw = Draw(5, (mode,), without=(Protection.OUTBOX,))
    tally = simulate(draw, 400, workers=1)
    found = history_of(draw, tally.failures[0].run, mode)
    small, schedule = shrink(world_of(mode, draw.without), found)
    assert not small.anomalies.isdisjoint(found.anomalies)
    assert len(small.recording.orders) <= 2
    assert sum(action.kind is not None for action in schedule) == 1
    again = shrink(world_of(mode, draw.without), found)
    assert again.schedule == schedule


def test_what_is_wrong_with_an_order_alone_shrinks_to_nothing_else() -> None:
    """What goes wrong in its turn needs no schedule at all."""
    without = (Protection.TOMBSTONES,)
    found = happen("choreographed", orders(100, 501, cancel=True), without=without)
    assert Anomaly.UNPAID in found.anomalies
    small, schedule = shrink(
        world_of("choreographed", without), replace(found, anomalies=frozenset({Anomaly.UNPAID}))
    )
    assert schedule == ()
    assert len(small.recording.orders) == 1


def test_the_smallest_history_is_shown_and_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file is a scenario, which goes wrong in the same way, and is sound with the protection in place."""
    file = tmp_path / "found.yaml"
    arguments = ["simulate", "--seed", "5", "--mode", "orchestrated", "--without", "tombstones"]
    assert main([*arguments, "--runs", "400", "--workers", "1", "--out", str(file)]) == 1
    shown = capsys.readouterr().out
    assert "The smallest such history, orchestrated" in shown
    assert "failed holds nothing" in shown
    scenario = find_scenario(str(file))
    assert len(scenario.orders) == 1
    assert scenario.schedule is not None
    assert len(scenario.schedule) <= 4
    assert main(["simulate", "--scenario", str(file), "--without", "tombstones"]) == 1
    assert main(["simulate", "--scenario", str(file)]) == 0


def test_what_needs_no_schedule_has_an_empty_one(tmp_path: Path) -> None:
    """What goes wrong in its turn is written so that it is followed, not drawn anew."""
    file, without = tmp_path / "mine.yaml", ["--without", "deadlines"]
    file.write_text(
        "description: Lost, and never asked for again.\nstock: {laptop: 1}\n"
        "orders: [{item: laptop, price: 100, expect: COMPLETED}]\n"
        "faults: [{fault: lose, step: pay, record: answer}]\n"
    )
    again = tmp_path / "again.yaml"
    found = ["simulate", "--scenario", str(file), "--seed", "1", "--runs", "40", "--workers", "1", *without]
    assert main([*found, "--out", str(again)]) == 1
    scenario = find_scenario(str(again))
    assert (scenario.schedule, scenario.own_faults) == ((), 1)
    assert main(["simulate", "--scenario", str(again), *without]) == 1
    assert main(["simulate", "--scenario", str(again)]) == 0


def test_a_fault_of_orders_alike_is_kept(tmp_path: Path) -> None:
    """They stay together, under the name that it aims at."""
    file, again = tmp_path / "mine.yaml", tmp_path / "again.yaml"
    file.write_text(
        "description: One of two is lost.\nstock: {laptop: 5}\n"
        "orders:\n- {name: two, count: 2, item: laptop, price: 100, expect: COMPLETED}\n"
        "faults: [{fault: lose, step: pay, record: answer, order: two}]\n"
    )
    found = ["--seed", "1", "--runs", "20", "--workers", "1", "--out", str(again)]
    assert main(["simulate", "--scenario", str(file), "--without", "deadlines", *found]) == 1
    scenario = find_scenario(str(again))
    assert (scenario.own_faults, scenario.orders[0].name, scenario.orders[0].count) == (1, "two", 2)
    assert main(["simulate", "--scenario", str(again), "--without", "deadlines"]) == 1


def test_what_in_a_schedule_never_came_about_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A schedule of one mode says little in the other; whoever looks at both is told."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "description: A crash of one mode.\nstock: {laptop: 1}\n"
        "orders: [{item: laptop, price: 100, expect: COMPLETED}]\n"
        "schedule: ['payment takes InventoryReserved(1), dies committed']\n"
    )
    assert main(["simulate", "--scenario", str(file)]) == 0
    shown = capsys.readouterr().out
    line = "  payment takes InventoryReserved(1), dies committed\n"
    assert f"In the schedule, but could not come about, orchestrated:\n{line}" in shown
    assert "could not come about, choreographed" not in shown
    assert main(["simulate", "--scenario", str(file), "--runs", "3"]) == 64
    assert "the scenario's schedule is one history; leave it out" in capsys.readouterr().err


def test_one_history_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    """With the seed, the number of a run is enough to see it again, side by side and step by step."""
    assert main(["simulate", "--seed", "3", "--only", "5"]) == 0
    shown = capsys.readouterr().out
    assert "What happened, orchestrated:" in shown
    assert "What happened, choreographed:" in shown
    assert "customer places 1" in shown


def test_the_orders_can_be_a_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    """A built-in scenario's orders go through as many histories as are wanted."""
    assert main(["simulate", *SMALL, "--scenario", "out-of-stock"]) == 0
    assert "orders of out-of-stock" in capsys.readouterr().out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", ["duplicate-delivery", "lost-reply", "participant-crash", "undo-fails-then-succeeds"]
)
def test_the_faults_of_a_scenario_strike_beside_what_is_drawn(name: str, mode: str) -> None:
    """In every history they do, and the services bring each to an end that the invariants allow."""
    draw = Draw(5, (mode,), find_scenario(name))
    histories = [history_of(draw, run, mode) for run in range(20)]
    assert not any(history.anomalies for history in histories)
    assert len({history.digest() for history in histories}) > 1
    own = [{strike.kind for strike in one.recording.strikes if strike.fault == 0} for one in histories]
    assert sum(map(bool, own)) > len(own) / 2, "mishaps may keep an order from coming so far"


def test_the_faults_of_a_scenario_are_in_its_headline(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever simulates a scenario is told whether its faults are among what happens."""
    assert main(["simulate", *SMALL, "--scenario", "lost-reply"]) == 0
    assert "orders and faults of lost-reply" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "without", "kept"),
    [
        ("undo-fails-then-succeeds", Protection.OUTBOX, 0),
        ("crash-after-commit-before-publish", Protection.OUTBOX, 1),
    ],
)
def test_a_scenarios_own_faults_are_kept_if_they_are_needed(
    tmp_path: Path, name: str, without: Protection, kept: int
) -> None:
    """What is written goes wrong again with them, and is sound with the protection in place."""
    file, again = tmp_path / "found.yaml", ["--mode", "orchestrated", "--without", without]
    found = ["--seed", "1", "--runs", "60", "--workers", "1", "--out", str(file)]
    assert main(["simulate", "--scenario", name, *found, *again]) == 1
    scenario = find_scenario(str(file))
    assert scenario.own_faults == kept
    assert main(["simulate", "--scenario", str(file), *again]) == 1
    assert main(["simulate", "--scenario", str(file)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "0"], "'0' is no number from 1"),
        (["--seed", "-1"], "'-1' is no number"),
        (["--without", "luck"], "'luck' is no protection; there are inbox, outbox, tombstones"),
        (["--out", "found.txt"], "--out found.txt: the name of a scenario file ends in .yaml or .yml"),
        (["--out", "a.yaml", "--json", "./a.yaml"], "--out and --json are both a.yaml"),
        (["--only", "1"], "--runs has no use here, for --only shows one history; leave it out"),
        (["--scenario", "nowhere"], "No scenario is named"),
        (["--json", "/nowhere/at/all.json"], "can't be written: No such file"),
    ],
)
def test_bad_arguments_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip is named, and nothing is simulated."""
    try:
        code = main(["simulate", "--runs", "1", *arguments])
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else -1
    assert code == 64
    assert message in capsys.readouterr().err


_KNOWN_DIGEST = "a2963ca2042c4fe4899b7653901217bd"
