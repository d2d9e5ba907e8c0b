"""Both modes do the same to the same orders, on either broker, and differ in coordination only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy import create_engine, inspect

import choreographed
import orchestrated
from common.broker import partition_of
from common.domain.payment import PaymentStatus
from common.embedded import EmbeddedBroker
from common.runner import BrokerLink
from common.settings import Settings
from common.store.postgresql import server_url
from common.wiring import DEAD_LETTERS, Mode
from compare.checks import Verdict
from compare.lab import EMBEDDED, MODES, Lab, open_broker
from compare.plan import Plan, plan
from compare.recording import Kind, Recording
from compare.replay import replay
from compare.result import ScenarioResult
from compare.scenario import ExpectedSplit, Scenario
from compare.scenario_files import built_in_scenarios, find_scenario
from tests.brokers import Embedded, consuming, read
from tests.kafka_server.server import KafkaServer
from tests.postgres_server.server import PostgresServer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

OWN_TOPIC: Final = {"order": "orders.events", "inventory": "inventory.events", "payment": "payments.events"}
ON_KAFKA: Final = [
    "happy-path",
    "payment-declined",
    "duplicate-delivery",
    "last-item-race",
    "lost-reply",
    "crash-after-commit-before-publish",
    "orchestrator-crash-with-replies-waiting",
    "poison-record",
    "cancel-in-flight",
    "rebalance-mid-saga",
]
NEEDS_GROUPS: Final = "rebalance-mid-saga"
Told = list[tuple[str, str, int, int]]


async def replayed(address: str, scenario: Scenario, told: Told | None = None) -> ScenarioResult:
    """The scenario in both modes on the broker at this address."""
    settings = Settings()
    progress: Told = [] if told is None else told
    async with open_broker(address, settings) as broker:
        lab = Lab(broker, settings, MODES, lambda *so_far: progress.append(so_far))
        return await lab.replay(scenario)


def assert_parity(scenario: Scenario, result: ScenarioResult) -> None:
    """Both modes are valid, and every order ended in both alike; in a race, as many did.

    What is held and charged in the end counts, and not by which tombstones that came about.
    """
    assert [mode.verdict for mode in result.modes] == [Verdict.VALID, Verdict.VALID], result.modes
    left, right = (mode.recording for mode in result.modes)
    assert ends(scenario, left) == ends(scenario, right)
    assert left.stock == right.stock


def ends(scenario: Scenario, recording: Recording) -> Counter[tuple[object, ...]]:
    """How each order ended, under its number; orders of which any may win are counted together."""
    return Counter(
        (
            None if isinstance(scenario.orders[order.spec].expect, ExpectedSplit) else order.number,
            order.spec,
            order.status,
            order.reason,
            order.quantity_held,
            order.amount_cents if order.payment == PaymentStatus.CHARGED else 0,
        )
        for order in recording.orders
    )


def assert_coordination(result: ScenarioResult) -> None:
    """What the observer saw of each mode is what makes it that mode."""
    left, right = (
        [record for record in mode.recording.trace if not record.topic.endswith(DEAD_LETTERS)]
        for mode in result.modes
    )
    assert {record.topic for record in left} == {"saga.commands", "saga.events"}
    for record in left:
        assert record.topic == ("saga.commands" if record.kind is Kind.COMMAND else "saga.events")
    assert {record.producer for record in left if record.kind is Kind.COMMAND} == {"order", "orchestrator"}
    assert all(record.kind is Kind.EVENT for record in right)
    assert all(record.topic == OWN_TOPIC[record.producer] for record in right)


def assert_order_by_order(recordings: Iterable[Recording]) -> None:
    """All records of an order are on the partition that its id leads to, which is the same in both modes."""
    for recording in recordings:
        for record in recording.trace:
            assert record.partition == partition_of(record.order_id.encode(), Settings().topic_partitions)


@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in built_in_scenarios() if scenario.name != NEEDS_GROUPS],
    ids=lambda scenario: scenario.name,
)
async def test_both_modes_end_alike(scenario: Scenario) -> None:
    """On the embedded broker: same statuses, reasons, reservations, payments and stock."""
    told: Told = []
    result = await replayed(EMBEDDED, scenario, told)
    assert_parity(scenario, result)
    assert_coordination(result)
    assert_order_by_order(mode.recording for mode in result.modes)
    assert {mode for _, mode, _, _ in told} == MODES.keys()
    assert all(ended <= total for _, _, ended, total in told)


@pytest.mark.kafka
@pytest.mark.timeout(120, func_only=True)
@pytest.mark.parametrize("name", ON_KAFKA)
async def test_both_modes_end_alike_on_kafka(kafka: KafkaServer, name: str) -> None:
    """On Apache Kafka it is the same, and the topics of the replays are gone afterwards."""
    scenario = find_scenario(name)
    result = await replayed(kafka.bootstrap, scenario)
    assert_parity(scenario, result)
    assert_coordination(result)
    assert_order_by_order(mode.recording for mode in result.modes)
    assert not [topic for topic in await topics_on(kafka.bootstrap) if topic.startswith("saga-lab")]


@pytest.mark.postgres
@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in built_in_scenarios() if scenario.faults and scenario.name != NEEDS_GROUPS],
    ids=lambda scenario: scenario.name,
)
async def test_faults_end_alike_on_postgresql(
    scenario: Scenario, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every service's data on PostgreSQL it is the same, and nothing is left there afterwards."""
    monkeypatch.setenv("DATABASE_URL", postgres.url)
    assert_parity(scenario, await replayed(EMBEDDED, scenario))
    engine = create_engine(server_url(postgres.url))
    assert not [name for name in inspect(engine).get_schema_names() if "order" in name]
    engine.dispose()


async def topics_on(bootstrap: str) -> list[str]:
    """All topics of a broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        return list(await admin.list_topics())
    finally:
        await admin.close()


async def record_keys(broker: Embedded, topics: list[str], partitions: int) -> list[bytes]:
    """The keys of all records on the topics, each checked against the order id in its headers."""
    async with consuming(broker, *topics, partitions=range(partitions)) as consumer:
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(consumer.assignment())
        records = await read(consumer, sum(ends.values()))
    assert [dict(record.headers)["ce_subject"] for record in records] == [record.key for record in records]
    return [record.key for record in records]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
async def test_every_record_is_keyed_by_its_order(embedded: EmbeddedBroker, mode: Mode) -> None:
    """On the broker itself: the key of every record is the id of the order that it is about."""
    prepared = plan(find_scenario("duplicate-delivery"), Settings().rules)
    link = BrokerLink(embedded.bootstrap, partitions=3, fetch_max_wait_ms=2, prefix="keys.")
    topics = [link.prefix + topic for topic in mode.all_topics]
    await embedded.create_topics(topics, link.partitions)
    recording = await replay(prepared, mode, link)
    keys = await record_keys(Embedded(embedded), topics, link.partitions)
    orders = {order.command.order_id.encode() for order in prepared.orders}
    assert set(keys) == orders | {prepared.warm_up.order_id.encode()}
    assert sum(key in orders for key in keys) == len(recording.trace)


def test_the_same_orders_are_placed_in_both_modes() -> None:
    """Every order of a plan has an id of its own, and the order that warms up is none of them."""
    prepared: Plan = plan(find_scenario("mixed-batch"), Settings().rules)
    ids = [order.command.order_id for order in prepared.orders]
    assert len(set(ids)) == len(ids) == 48
    assert [order.number for order in prepared.orders] == list(range(1, 49))
    assert prepared.warm_up.order_id not in ids


def test_only_the_orchestrated_mode_has_an_orchestrator() -> None:
    """The other services are the same in both."""
    left, right = (
        {wiring.name for wiring in mode.services} for mode in (orchestrated.MODE, choreographed.MODE)
    )
    assert left - right == {"orchestrator"}
    assert right <= left


async def test_a_scenario_that_a_broker_cannot_have_is_told_from_one_that_it_can() -> None:
    """A rebalance needs groups, which the embedded broker lacks; an outage needs a broker of our own."""
    settings = Settings()
    rebalance, outage = find_scenario(NEEDS_GROUPS), find_scenario("broker-outage-mid-compensation")
    async with open_broker(EMBEDDED, settings) as broker:
        lab = Lab(broker, settings, MODES, lambda *_: None)
        assert "room for one instance" in (lab.why_not(rebalance) or "")
        assert lab.why_not(outage) is None
    async with open_broker("127.0.0.1:1", settings) as broker:
        lab = Lab(broker, settings, MODES, lambda *_: None)
        assert lab.why_not(rebalance) is None
        assert "only the embedded broker" in (lab.why_not(outage) or "")
