"""A scenario's faults in the simulated world: the same meaning as in a replay, and the same ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import pytest

from common.settings import Settings
from compare.checks import Verdict, judge, verdict_of
from compare.faults import Fault
from compare.lab import MODES
from compare.recording import Recording
from compare.scenario import Scenario
from compare.scenario_files import built_in_scenarios
from compare.simulation.actions import TIME_PASSES, Action, Verb
from compare.simulation.drive import Calm, History, drive, go_on, simulated_plan
from compare.simulation.scripted import Scripted
from compare.simulation.world import World

Worlds = Mapping[str, World]

NOT_TO_BE_HAD: Final[Mapping[str, str]] = {}
"""Built-in scenarios that have no meaning in a simulated world, and why; there are none."""

BOUNDARIES: Final = ("before", "decided", "committed", "published", "acknowledged")


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    """A world for each mode; one history after the other is let happen in it."""
    made = {name: World(mode) for name, mode in MODES.items()}
    yield made
    for world in made.values():
        world.close()


def with_faults(
    *faults: dict[str, Any], orders: int = 1, expect: object = "COMPLETED", deliveries: int = 1
) -> Scenario:
    """Orders that can be paid, and these faults."""
    return Scenario.model_validate(
        {
            "name": "scripted",
            "description": "A test's.",
            "stock": {"laptop": 10},
            "faults": faults,
            "orders": [{"item": "laptop", "price": 200, "count": orders, "expect": expect}],
            "deliveries": deliveries,
            "timeout": 600,
        }
    )


def simulated(world: World, scenario: Scenario) -> History:
    """The history in which nothing goes wrong but what the scenario says."""
    prepared = simulated_plan(scenario, Settings().rules, any_end=False)
    history = drive(world, prepared, Calm())
    assert not history.faults
    return history


def assert_valid(scenario: Scenario, recording: Recording) -> None:
    """All is as the scenario expects it."""
    findings = judge(scenario, recording)
    assert verdict_of(findings) is Verdict.VALID, [one for one in findings if one.verdict != Verdict.VALID]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in built_in_scenarios() if scenario.name not in NOT_TO_BE_HAD],
    ids=lambda scenario: scenario.name,
)
def test_built_in_scenarios_hold(worlds: Worlds, scenario: Scenario, mode: str) -> None:
    """Each ends as it expects, and all of its faults strike."""
    recording = simulated(worlds[mode], scenario).recording
    assert_valid(scenario, recording)
    assert {strike.fault for strike in recording.strikes} == set(range(len(scenario.faults)))
    assert all(strike.over_ms is not None for strike in recording.strikes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("at", BOUNDARIES)
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "crash"},
        {"fault": "crash", "seconds": 0.3},
        {"fault": "stop", "seconds": 0.3},
        {"fault": "slow", "seconds": 0.1},
        {"fault": "broker_outage", "seconds": 0.3},
        {"fault": "slow_broker", "seconds": 0.1},
        {"fault": "rebalance", "seconds": 0.3},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_what_strikes_at_a_boundary(worlds: Worlds, mode: str, at: str, fault: dict[str, Any]) -> None:
    """At each boundary it strikes once, is over in its time, and every order is completed all the same."""
    scenario = with_faults({**fault, "step": "pay", "at": at}, orders=3)
    recording = simulated(worlds[mode], scenario).recording
    assert_valid(scenario, recording)
    (strike,) = recording.strikes
    assert (strike.fault, strike.kind, strike.service, strike.boundary) == (0, fault["fault"], "payment", at)
    if fault["fault"] in {Fault.SLOW, Fault.SLOW_BROKER}:
        assert strike.over_ms is None
    else:
        assert strike.over_ms is not None
        assert strike.over_ms - strike.at_ms == pytest.approx(1000 * fault.get("seconds", 0), abs=0.1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("record", ["request", "answer"])
@pytest.mark.parametrize(
    ("fault", "more", "fewer"),
    [
        ({"fault": "duplicate", "times": 2}, 2, 0),
        ({"fault": "replay", "seconds": 0.5}, 1, 0),
        ({"fault": "delay", "seconds": 0.5}, 0, 0),
        ({"fault": "reorder"}, 0, 0),
        ({"fault": "lose"}, 0, 1),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else "",
)
def test_what_strikes_on_the_wire(
    worlds: Worlds, mode: str, record: str, fault: dict[str, Any], more: int, fewer: int
) -> None:
    """A record comes more often, later or not at all, and every order is completed all the same."""
    scenario = with_faults({**fault, "step": "pay", "record": record}, orders=2)
    recording = simulated(worlds[mode], scenario).recording
    assert_valid(scenario, recording)
    (strike,) = recording.strikes
    told = [one for one in recording.trace if one.id == strike.record_id and one.attempt == 1]
    assert (strike.kind, strike.record_type) == (fault["fault"], strike.record_type)
    assert len(told) == 1 + more - fewer


@pytest.mark.parametrize("mode", MODES)
def test_a_reordered_record_is_overtaken(worlds: Worlds, mode: str) -> None:
    """The next order's record is decided upon first."""
    scenario = with_faults({"fault": "reorder", "step": "pay"}, orders=2)
    changes = simulated(worlds[mode], scenario).recording.changes
    charged = [one.order_id for one in changes if one.service == "payment"]
    assert charged == sorted(charged, reverse=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"fault": "permanent_error", "step": "pay"}, "dead_letter"),
        ({"fault": "error", "step": "reserve", "times": "always"}, "dead_letter"),
        ({"fault": "poison", "step": "reserve"}, "dead_letter"),
        ({"fault": "lose", "step": "pay", "times": "always"}, "timed_out"),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else value,
)
def test_what_makes_an_order_fail(worlds: Worlds, mode: str, fault: dict[str, Any], reason: str) -> None:
    """It fails for that reason, and holds nothing."""
    scenario = with_faults(fault, expect={"status": "FAILED", "reason": reason})
    recording = simulated(worlds[mode], scenario).recording
    assert_valid(scenario, recording)
    assert recording.stock == {"laptop": 10}


@pytest.mark.parametrize("seconds", [Decimal(30), Decimal(-30)])
def test_a_clock_can_be_wrong(worlds: Worlds, seconds: Decimal) -> None:
    """It is so from the beginning, and what the service decides bears its time."""
    scenario = with_faults({"fault": "clock_skew", "service": "payment", "seconds": seconds})
    recording = simulated(worlds["choreographed"], scenario).recording
    assert_valid(scenario, recording)
    (paid,) = [one for one in recording.trace if one.type == "PaymentProcessed"]
    assert paid.at_ms == pytest.approx(1000 * float(seconds), abs=1)
    assert [(strike.kind, strike.at_ms, strike.over_ms) for strike in recording.strikes] == [
        ("clock_skew", 0, None)
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("deliveries", [2, 3])
def test_every_record_can_come_several_times(worlds: Worlds, mode: str, deliveries: int) -> None:
    """Each effect happens once, and what comes again is dropped."""
    scenario = with_faults(deliveries=deliveries)
    recording = simulated(worlds[mode], scenario).recording
    assert_valid(scenario, recording)
    ids = {one.id for one in recording.trace}
    assert len(recording.trace) == deliveries * len(ids)
    assert recording.duplicates_dropped


def test_what_never_strikes_is_told(worlds: Worlds) -> None:
    """A fault at a step that doesn't come, and one that hits another service than it names."""
    scenario = with_faults(
        {"fault": "crash", "step": "refund"},
        {"fault": "crash", "step": "pay", "service": "orchestrator", "instead": "order"},
    )
    recording = simulated(worlds["choreographed"], scenario).recording
    assert recording.not_applicable == (
        "there is no orchestrator here: the crash hits the order service instead",
        "fault 1 (crash at refund) never struck: no such record came",
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "stop", "step": "pay", "at": "committed", "seconds": 1},
        {"fault": "delay", "step": "pay", "seconds": 1},
        {"fault": "broker_outage", "step": "reserve", "at": "committed", "seconds": 1},
        {"fault": "replay", "step": "reserve", "seconds": 1},
    ],
    ids=lambda fault: fault["fault"],
)
def test_a_history_with_a_script_can_come_back(worlds: Worlds, mode: str, fault: dict[str, Any]) -> None:
    """From each of its moments it goes on as it did, to the last byte, whatever has happened since."""
    world, scenario = worlds[mode], with_faults(fault, orders=2)
    straight = simulated(world, scenario)
    world.begin(straight.plan, Scripted(straight.plan, world.mode))
    calm, moments, done = Calm(), [(world.snapshot(), world.fingerprint())], list[Action]()
    while (action := calm.step(world)) is not None:
        done.append(action)
        moments.append((world.snapshot(), world.fingerprint()))
    for number, (moment, print_) in enumerate(moments):
        world.put_back(moment)
        assert world.fingerprint() == print_
        again = go_on(world, Calm(), done[:number])
        assert again.digest() == straight.digest()
        assert again.recording == straight.recording


@pytest.mark.parametrize("mode", MODES)
def test_a_rebalance_hands_the_partitions_over_and_back(worlds: Worlds, mode: str) -> None:
    """What was in flight is finished first; then the group has a new generation, and once more at the end."""
    world, scenario = worlds[mode], with_faults({"fault": "rebalance", "step": "pay", "seconds": 1}, orders=3)
    simulated(world, scenario)
    assert world.now_is.generations["payment"] == world.now_is.generations["inventory"] + 2


def test_time_passes_to_what_is_in_the_script(worlds: Worlds) -> None:
    """A service that is dead for a while starts when that is over, and not before."""
    history = simulated(worlds["choreographed"], with_faults({"fault": "crash", "step": "pay", "seconds": 5}))
    start = history.actions.index(Action("payment", Verb.STARTS))
    assert TIME_PASSES in history.actions[:start]
    assert history.recording.strikes[0].over_ms == pytest.approx(5000, abs=1)
