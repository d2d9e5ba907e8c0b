"""What has been simulated can be kept as a scenario file, simulated once more, and replayed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from common.domain.decision import Rules
from common.embedded import EmbeddedBroker
from common.messages import Reason
from common.runner import BrokerLink
from common.settings import Settings
from compare.checks import Verdict, judge, verdict_of
from compare.lab import MODES
from compare.plan import plan
from compare.replay import replay
from compare.scenario import Ending, ExpectedOrder, ExpectedPerMode, Scenario
from compare.scenario_files import find_scenario
from compare.simulation.actions import parse_action
from compare.simulation.chance import Chance, Whim, draw_scenario, seed_of
from compare.simulation.drive import Calm, History, Schedule, drive, simulated_plan
from compare.simulation.export import as_scenario, write_scenario
from compare.simulation.world import World

Worlds = Mapping[str, World]

ORCHESTRATED: Final = "orchestrated"
CHOREOGRAPHED: Final = "choreographed"


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    """A world for each mode; one history after the other is let happen in it."""
    made = {name: World(mode) for name, mode in MODES.items()}
    yield made
    for world in made.values():
        world.close()


def orders_of(*prices: int, **more: Any) -> Scenario:  # noqa: ANN401 - as in a file
    """Some orders, with enough for all."""
    orders = [{"item": "laptop", "price": price, "expect": "COMPLETED"} for price in prices]
    return Scenario.model_validate(
        {"name": "some", "description": "A test's.", "stock": {"laptop": 9}, "orders": orders, "timeout": 60}
        | more
    )


def history_of(world: World, scenario: Scenario, *schedule: str) -> History:
    """What comes of this schedule."""
    return drive(
        world, simulated_plan(scenario, Rules()), Schedule([parse_action(text) for text in schedule])
    )


def faults_of(world: World, *schedule: str, prices: Sequence[int] = (200,)) -> list[dict[str, Any]]:
    """The faults that this schedule is exported as, without what is the same for all."""
    history = history_of(world, orders_of(*prices), *schedule)
    assert set(schedule) <= {str(action) for action in history.actions}, "the schedule is to happen as it is"
    exported = as_scenario(history, "exported", "A test's.")
    return [spec.model_dump(mode="json", exclude_defaults=True) for spec in exported.faults]


OF_BOTH: Final[list[tuple[str, str, dict[str, Any]]]] = [
    (
        "payment takes ProcessPayment(1), dies committed",
        "payment takes InventoryReserved(1), dies committed",
        {"fault": "crash", "step": "pay", "at": "committed"},
    ),
    (
        "inventory takes ReserveInventory(1), dies before",
        "inventory takes OrderCreated(1), dies before",
        {"fault": "crash", "step": "reserve"},
    ),
    (
        "inventory takes ReserveInventory(1), fails",
        "inventory takes OrderCreated(1), fails",
        {"fault": "error", "step": "reserve"},
    ),
    (
        "payment takes ProcessPayment(1), fails for good",
        "payment takes InventoryReserved(1), fails for good",
        {"fault": "permanent_error", "step": "pay"},
    ),
    (
        "payment takes ProcessPayment(1), stalls",
        "payment takes InventoryReserved(1), stalls",
        {"fault": "stop", "step": "pay", "at": "committed", "seconds": "0.5"},
    ),
    (
        "broker loses ProcessPayment(1)",
        "broker loses OrderCreated(1)",
        {"fault": "lose"},
    ),
    (
        "broker spoils ReserveInventory(1)",
        "broker spoils OrderCreated(1)",
        {"fault": "poison"},
    ),
    (
        "broker loses InventoryReserved(1)",
        "broker loses InventoryReserved(1)",
        {"fault": "lose", "step": "reserve", "record": "answer"},
    ),
    (
        "broker repeats InventoryReserved(1)",
        "broker repeats InventoryReserved(1)",
        {"fault": "duplicate", "step": "reserve", "record": "answer"},
    ),
    (
        "order takes SagaCompleted(1), dies published",
        "order takes PaymentProcessed(1), dies published",
        {"fault": "crash", "step": "complete", "at": "published"},
    ),
]


@pytest.mark.parametrize(("orchestrated", "choreographed", "fault"), OF_BOTH)
def test_a_mishap_becomes_a_fault(
    worlds: Worlds, orchestrated: str, choreographed: str, fault: dict[str, Any]
) -> None:
    """It is named by its step, and by its order, whatever the mode's messages are."""
    for mode, action in ((ORCHESTRATED, orchestrated), (CHOREOGRAPHED, choreographed)):
        (found,) = faults_of(worlds[mode], action)
        assert found["order"] == "order 1"
        assert found | fault == found


def test_an_orchestrator_is_hit_by_what_it_learns(worlds: Worlds) -> None:
    """In the other mode, who learns of the same step is hit instead."""
    assert faults_of(worlds[ORCHESTRATED], "orchestrator takes PaymentProcessed(1), dies decided") == [
        {
            "fault": "crash",
            "step": "pay",
            "service": "orchestrator",
            "instead": "order",
            "at": "decided",
            "order": "order 1",
        }
    ]


def test_what_happens_again_and_again_is_one_fault(worlds: Worlds) -> None:
    """A service that dies twice at the same record does so two times."""
    once = "payment takes InventoryReserved(1), dies before"
    (found,) = faults_of(worlds[CHOREOGRAPHED], once, once)
    assert found == {"fault": "crash", "step": "pay", "order": "order 1", "times": 2}


def test_what_is_taken_together_fails_together(worlds: Worlds) -> None:
    """An error in a batch is an error of each of its records."""
    text = "inventory takes OrderCreated(1) + OrderCreated(2), fails"
    found = faults_of(
        worlds[CHOREOGRAPHED], "customer places 1", "customer places 2", text, prices=(200, 200)
    )
    assert [(one["fault"], one["order"]) for one in found] == [("error", "order 1"), ("error", "order 2")]


def test_each_order_has_its_own(worlds: Worlds) -> None:
    """What happens to the second of several orders alike is the second's."""
    alike = orders_of(200).model_copy(
        update={"orders": (orders_of(200).orders[0].model_copy(update={"count": 2, "name": "twin"}),)}
    )
    history = history_of(worlds[CHOREOGRAPHED], alike, "payment takes InventoryReserved(2), dies before")
    exported = as_scenario(history, "exported", "A test's.")
    assert [order.name for order in exported.orders] == ["order 1", "order 2"]
    assert [fault.order for fault in exported.faults] == ["order 2"]


def test_what_others_wait_for_stays_together(worlds: Worlds) -> None:
    """Orders alike keep their name if another comes after the last of them."""
    scenario = orders_of(
        orders=[
            {"name": "first", "item": "laptop", "price": 200, "count": 2, "expect": "COMPLETED"},
            {"item": "laptop", "price": 200, "after": "first", "expect": "COMPLETED"},
        ]
    )
    history = history_of(worlds[CHOREOGRAPHED], scenario, "payment takes InventoryReserved(2), dies before")
    exported = as_scenario(history, "exported", "A test's.")
    assert [(order.name, order.count, order.after) for order in exported.orders] == [
        ("first", 2, None),
        ("order 3", 1, "first"),
    ]
    assert [fault.order for fault in exported.faults] == ["first"]


def test_what_has_no_words_is_left_to_the_schedule(worlds: Worlds) -> None:
    """To die half-way through publishing is no fault of a scenario file."""
    text = "inventory takes OrderCreated(1), dies publishing"
    history = history_of(worlds[CHOREOGRAPHED], orders_of(200), text)
    exported = as_scenario(history, "exported", "A test's.")
    assert exported.faults == ()
    assert text in (exported.schedule or ())


def test_orders_are_expected_to_end_as_they_did(worlds: Worlds) -> None:
    """Each mode for itself, if another mode's history is given that ended otherwise."""
    text = "broker spoils InventoryReserved(1)"
    histories = [history_of(world, orders_of(200, 600), text) for world in worlds.values()]
    for history in histories:
        (first, second) = as_scenario(history, "exported", "A test's.").orders
        ended = history.recording.orders[0]
        reason = Reason(ended.reason) if ended.reason else None
        assert first.expect == ExpectedOrder(status=Ending(ended.status), reason=reason)
        assert second.expect == ExpectedOrder(status=Ending.FAILED, reason=Reason.PAYMENT_DECLINED)
    ends = {tuple((one.status, one.reason) for one in history.recording.orders) for history in histories}
    (first, _) = as_scenario(histories[0], "exported", "A test's.", histories[1:]).orders
    assert isinstance(first.expect, ExpectedPerMode) == (len(ends) == 2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("run", range(12))
def test_a_file_brings_the_same_history_back(worlds: Worlds, tmp_path: Path, mode: str, run: int) -> None:
    """Written, loaded and followed, a drawn history is the same to the last byte."""
    chance = Chance(seed_of(3, run))
    scenario = draw_scenario(chance, "drawn")
    history = drive(worlds[mode], simulated_plan(scenario, Rules()), Whim(chance))
    exported = as_scenario(history, "Drawn: no. 3!", "Drawn.")
    file = tmp_path / "drawn.yaml"
    write_scenario(exported, file)
    loaded = find_scenario(str(file))
    assert loaded == exported
    assert loaded.name == "drawn-no.-3"
    again = history_of(worlds[mode], loaded, *(loaded.schedule or ()))
    assert again.actions == history.actions
    assert again.digest() == history.digest()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("index", range(len(OF_BOTH)))
def test_the_faults_lead_to_the_same_end(worlds: Worlds, mode: str, index: int) -> None:
    """Simulated with its faults instead of its schedule, each order ends as the file expects it."""
    world, (orchestrated, choreographed, _) = worlds[mode], OF_BOTH[index]
    action = orchestrated if mode == ORCHESTRATED else choreographed
    exported = as_scenario(history_of(world, orders_of(200, 600), action), "exported", "A test's.")
    unscheduled = exported.model_copy(update={"schedule": None})
    prepared = simulated_plan(unscheduled, Rules(), any_end=False)
    recording = drive(world, prepared, Calm()).recording
    assert [strike.fault for strike in recording.strikes] == [0]
    assert verdict_of(judge(exported, recording)) is Verdict.VALID


@pytest.mark.live
async def test_a_file_can_be_replayed(worlds: Worlds, tmp_path: Path, embedded: EmbeddedBroker) -> None:
    """On a real broker the faults strike, and all orders end as they did in the simulation."""
    history = history_of(
        worlds[CHOREOGRAPHED],
        orders_of(200, 600),
        "payment takes InventoryReserved(1), dies committed",
        "broker repeats InventoryReserved(1)",
        "inventory takes PaymentDeclined(2), dies published",
    )
    file = tmp_path / "exported.yaml"
    write_scenario(as_scenario(history, "exported", "A test's."), file)
    prepared, mode = plan(find_scenario(str(file)), Settings().rules), MODES[CHOREOGRAPHED]
    link = BrokerLink(
        embedded.bootstrap, partitions=2, fetch_max_wait_ms=5, prefix="kept.", sole_instance=True
    )
    await embedded.create_topics([link.prefix + topic for topic in mode.all_topics], link.partitions)
    recording = await replay(prepared, mode, link, outage=embedded)
    assert {strike.fault for strike in recording.strikes} == {0, 1, 2}
    assert verdict_of(judge(prepared.scenario, recording)) is Verdict.VALID
