"""What is simulated is what happens: the same orders and faults, simulated and replayed on a real broker.

The same services' core runs in both, so what is compared is all that the simulation puts around it: broker,
time, publishing, dying and starting, and what faults do. Two things depend on real time, and are left out
of the comparison where they can come about. Where a deadline decides how often something is asked for again,
it is that, and which of the times of asking an answer is to. Where a service dies, it is whether what it had
published before is published once more (and, if it is poisoned, is a dead letter once more): a service with
nothing to do takes it out of its outbox, and a simulated one does so along with its next transaction only.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

import pytest

from common.embedded import EmbeddedBroker
from common.messages import Step
from common.probe import Boundary
from common.runner import BrokerLink
from common.settings import Settings
from common.wiring import Mode
from compare.faults import OF_THE_BROKER, Fault, FaultSpec
from compare.lab import MODES
from compare.plan import Plan, plan
from compare.recording import Recording
from compare.replay import replay
from compare.scenario import Ending, ExpectedOrder, ExpectedSplit, OrderSpec, RecoverySpec, Scenario
from compare.scenario_files import built_in_scenarios
from compare.simulation.chance import Chance
from compare.simulation.drive import Calm, drive
from compare.simulation.world import World

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

PARTITIONS: Final = 3
NEEDS_GROUPS: Final = "rebalance-mid-saga"
"""The embedded broker has room for one instance of a service; what comes of it is in test_scripted.py."""
PATIENT: Final = {"step_timeout": Decimal(20), "order_timeout": Decimal(40)}
"""Long enough for a slow machine; where no deadline has to pass, none does."""
BY_DEADLINE: Final = frozenset({Fault.LOSE, Fault.POISON, Fault.DELAY, Fault.REORDER})
"""Faults after which an answer may be missing, or late, until a deadline asks for it again."""
SEEDS: Final = (5, 10, 17, 20, 23, 29, 33, 34)
"""Of orders to which two faults come, and at which all kinds of them strike."""

Told = tuple[object, ...]


def settled(scenario: Scenario) -> Scenario:
    """The scenario, with deadlines that don't pass by chance if it doesn't say itself when they do."""
    if timed(scenario) or scenario.recovery.step_timeout is not None:
        return scenario
    return scenario.model_copy(update={"recovery": scenario.recovery.model_copy(update=PATIENT)})


def timed(scenario: Scenario) -> bool:
    """Whether a deadline may decide how often something is told."""
    own = scenario.recovery.step_timeout
    return any(one.fault in BY_DEADLINE for one in scenario.faults) or (own is not None and own < 1)


def with_crash(scenario: Scenario) -> bool:
    """Whether a service may die."""
    return any(one.fault is Fault.CRASH for one in scenario.faults)


async def replayed(prepared: Plan, mode: Mode, broker: EmbeddedBroker) -> Recording:
    """The recording of a replay on the embedded broker."""
    link = BrokerLink(
        broker.bootstrap,
        partitions=PARTITIONS,
        fetch_max_wait_ms=5,
        prefix=f"{mode.name}.",
        sole_instance=True,
    )
    await broker.create_topics([link.prefix + topic for topic in mode.all_topics], PARTITIONS)
    return await replay(prepared, mode, link, outage=broker)


async def replayed_in_all(prepared: Plan, broker: EmbeddedBroker) -> Mapping[str, Recording]:
    """The same in each mode, at once if that makes no difference: most of it is waiting."""
    if any(spec.fault in OF_THE_BROKER for spec in prepared.scenario.faults):
        return {name: await replayed(prepared, mode, broker) for name, mode in MODES.items()}
    found = await asyncio.gather(*(replayed(prepared, mode, broker) for mode in MODES.values()))
    return dict(zip(MODES, found, strict=True))


def simulated(prepared: Plan, mode: Mode) -> Recording:
    """The recording of the history in which nothing goes wrong but what the scenario says."""
    world = World(mode)
    try:
        return drive(world, prepared, Calm()).recording
    finally:
        world.close()


def assert_same(scenario: Scenario, simulation: Recording, replay_: Recording) -> None:
    """Order by order, both say the same; of orders of which any may win, all together do."""
    assert simulation.unfinished is None
    assert replay_.unfinished is None
    left, right = (dict(stories(scenario, recording)) for recording in (simulation, replay_))
    split = {
        order.order_id
        for order in simulation.orders
        if isinstance(scenario.orders[order.spec].expect, ExpectedSplit)
    }
    for order_id, story in left.items():
        if order_id not in split:
            assert story == right[order_id]
    assert Counter(repr(left[one]) for one in sorted(split)) == Counter(
        repr(right[one]) for one in sorted(split)
    )
    assert simulation.stock == replay_.stock
    assert strikes(simulation) == strikes(replay_)


def stories(scenario: Scenario, recording: Recording) -> Iterator[tuple[str, Sequence[object]]]:
    """By order: what was told and because of what, what changed in each service, and the end."""
    for order in recording.orders:
        changes = {
            service: [
                (one.from_status, one.to_status)
                for one in recording.changes
                if (one.order_id, one.service) == (order.order_id, service)
            ]
            for service in recording.counts
        }
        end = order.model_dump(exclude={"placed_ms", "order_id", "number"})
        letters = [
            (one.type, one.reason, one.service)
            for one in recording.dead_letters
            if one.order_id == order.order_id
        ]
        if with_crash(scenario):
            letters = [*dict.fromkeys(letters)]
        yield order.order_id, [told(scenario, recording, order.order_id), changes, end, sorted(letters)]


def told(scenario: Scenario, recording: Recording, order_id: str) -> list[tuple[Told, int]]:
    """The records of an order, each with its cause and its place behind that, and how often there is each."""
    mine = [one for one in recording.trace if one.order_id == order_id]
    if timed(scenario):
        found = Counter[Told]((one.type, one.producer) for one in mine)
    else:
        found = Counter[Told](
            (one.type, one.producer, one.attempt, one.cause, one.hop, one.poisoned) for one in mine
        )
    if timed(scenario) or with_crash(scenario):
        found = Counter(dict.fromkeys(found, 1))
    return sorted(found.items(), key=repr)


def strikes(recording: Recording) -> list[tuple[object, ...]]:
    """What has struck, in the order in which the scenario has it."""
    found = (
        (one.fault, one.kind, one.service, one.boundary, one.record_type, one.over_ms is not None)
        for one in recording.strikes
    )
    return sorted(found, key=repr)


@pytest.mark.parametrize(
    "scenario",
    [one for one in built_in_scenarios() if one.name != NEEDS_GROUPS],
    ids=lambda scenario: scenario.name,
)
async def test_built_in_scenarios_are_simulated_as_they_are(
    embedded: EmbeddedBroker, scenario: Scenario
) -> None:
    """What is told, what changes, how each order ends and what strikes is the same as on a real broker."""
    prepared = plan(settled(scenario), Settings().rules)
    for mode, recording in (await replayed_in_all(prepared, embedded)).items():
        assert_same(prepared.scenario, simulated(prepared, MODES[mode]), recording)


@pytest.mark.parametrize("seed", SEEDS)
async def test_drawn_faults_are_simulated_as_they_are(embedded: EmbeddedBroker, seed: int) -> None:
    """It is the same for orders and faults that nobody has thought of."""
    prepared = plan(settled(drawn(Chance(seed))), Settings().rules)
    for mode, recording in (await replayed_in_all(prepared, embedded)).items():
        assert_same(prepared.scenario, simulated(prepared, MODES[mode]), recording)


def drawn(chance: Chance) -> Scenario:
    """One or two orders that are out of each other's way, and a fault at each of them."""
    names = ["first", "second"][: 1 + chance.under(2)]
    return Scenario(
        name="drawn",
        description="Drawn at random.",
        stock={name: chance.under(4) for name in names},
        orders=tuple(
            OrderSpec(
                name=name,
                item=name,
                price=chance.pick([Decimal(200), Decimal(600)]),
                expect=ExpectedOrder(status=Ending.COMPLETED),
            )
            for name in names
        ),
        faults=tuple(drawn_fault(chance, name) for name in names),
        recovery=RecoverySpec(retry_tries=2, undo_tries=3),
    )


def drawn_fault(chance: Chance, order: str) -> FaultSpec:
    """A fault that strikes at a step of an order, if it comes to that step."""
    fault = chance.pick([Fault.CRASH, Fault.DUPLICATE, Fault.LOSE, Fault.POISON, Fault.ERROR])
    step = chance.pick([Step.RESERVE, Step.PAY, Step.RELEASE])
    if fault is Fault.CRASH:
        return FaultSpec(fault=fault, step=step, order=order, at=chance.pick(list(Boundary)))
    return FaultSpec(fault=fault, step=step, order=order)
