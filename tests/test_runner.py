"""The asyncio shell, over the embedded broker: what is committed goes out, whatever happens between."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NoReturn

import pytest
from aiokafka.errors import KafkaError
from sqlalchemy import event

import choreographed
import orchestrated
from common.core import Core
from common.domain.order import OrderStatus
from common.embedded import EmbeddedBroker
from common.envelope import Outgoing
from common.errors import BrokerError, LabError
from common.messages import PlaceOrder
from common.publisher import KafkaPublisher
from common.runner import Runner
from common.subscription import OverrunError
from common.wiring import Mode
from tests.brokers import Embedded, consuming, read, send
from tests.pump import NOW, open_core, order_id, place_order
from tests.running import NOWHERE, PARTITIONS, ended, new_runner, running, running_mode, until

ORDER = choreographed.MODE.service("order")
INVENTORY = choreographed.MODE.service("inventory")


@pytest.fixture
async def broker(embedded: EmbeddedBroker) -> Embedded:
    """An embedded broker with the topics of the choreographed mode."""
    await embedded.create_topics(choreographed.MODE.all_topics, PARTITIONS)
    return Embedded(embedded)


@asynccontextmanager
async def started(runner: Runner) -> AsyncIterator[asyncio.Task[None]]:
    """A runner that need not become ready."""
    task = runner.start()
    try:
        yield task
    finally:
        await runner.stop()


def _order(number: int, _: object) -> PlaceOrder:
    return place_order(number)


async def nothing_left(runner: Runner) -> None:
    """Wait until the broker has acknowledged all that the service had to tell."""

    async def empty() -> bool:
        return (await runner.readiness()).backlog == 0

    await until(empty)


def impatient(core: Core) -> Core:
    """Make a core's database give up on a lock after 20 ms, in place of 10 s."""

    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA busy_timeout = 20")

    event.listen(core.database.engine, "connect", prepare)
    core.database.engine.dispose()
    return core


@pytest.mark.parametrize("mode", [orchestrated.MODE, choreographed.MODE], ids=lambda mode: mode.name)
@pytest.mark.parametrize("sole", [True, False], ids=["alone", "in a group"])
async def test_orders_end(mode: Mode, sole: bool, embedded: EmbeddedBroker, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter of the test
    """Services consume, decide and publish until every order has ended, and nothing is left to publish."""
    async with running_mode(mode, tmp_path, Embedded(embedded), sole_instance=sole) as runners:
        await runners["order"].submit(lambda _: place_order(1))
        await runners["order"].submit(lambda _: place_order(2, price=600_00))

        assert (await ended(runners["order"], order_id(1))).status is OrderStatus.COMPLETED
        assert (await ended(runners["order"], order_id(2))).status is OrderStatus.FAILED
        for runner in runners.values():
            await nothing_left(runner)
            assert (await runner.readiness()).ready


async def test_commits(broker: Embedded, tmp_path: Path) -> None:
    """What was consumed once is not consumed again by the next run."""
    await send(broker, "orders.events", [b"none of ours"] * 3)
    for expected in (3, 0):
        async with running(INVENTORY, tmp_path, broker, sole_instance=True) as runner:
            await send(broker, "orders.events", [b"the last"], partition=1)

            async def consumed(runner: Runner = runner, count: int = expected + 1) -> bool:
                return runner.core.counts["dead_letter"] >= count

            await until(consumed)
            assert runner.core.counts["dead_letter"] == expected + 1


async def test_resumes_after_a_crash(broker: Embedded, tmp_path: Path) -> None:
    """What a crashed run has committed but not published is published by the next."""
    core = open_core(ORDER, tmp_path)
    with core.database.write() as transaction:
        core.submit(transaction, place_order(1), partition=2, now=NOW)
    core.database.close()

    async with running(ORDER, tmp_path, broker) as runner:
        async with consuming(broker, "orders.events", partitions=[2]) as consumer:
            (record,) = await read(consumer, 1)
        assert record.key == order_id(1).encode()
        await nothing_left(runner)


async def test_publishes_once(broker: Embedded, tmp_path: Path) -> None:
    """What is submitted while connecting is not taken for left by an earlier run as well."""
    runner = new_runner(open_core(ORDER, tmp_path), broker.bootstrap)
    async with started(runner):
        for number in range(20):
            await runner.submit(partial(_order, number))
        await runner.ready()
        await nothing_left(runner)
    async with consuming(broker, "orders.events", partitions=range(PARTITIONS)) as consumer:
        records = await read(consumer, 20)
    assert sorted(record.key for record in records) == [order_id(number).encode() for number in range(20)]


async def test_waits_for_the_broker(broker: Embedded, tmp_path: Path) -> None:
    """Before there is a broker, orders are taken and kept; once it is there, they go out."""
    await broker.down()
    runner = new_runner(open_core(ORDER, tmp_path), broker.bootstrap)
    async with started(runner):
        await runner.submit(lambda _: place_order(1))
        readiness = await runner.readiness()
        assert (readiness.ready, readiness.backlog) == (False, 1)
        await broker.up()
        await runner.ready()
        await nothing_left(runner)


@pytest.mark.timeout(120)
async def test_rides_out_an_outage(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    """When the broker goes and comes back, orders end that were placed before, meanwhile and after."""
    mode, broker = orchestrated.MODE, Embedded(embedded)
    async with running_mode(mode, tmp_path, broker, sole_instance=True) as runners:
        orders = runners["order"]
        await orders.submit(lambda _: place_order(1))
        await broker.down()
        await orders.submit(lambda _: place_order(2))

        async def not_ready() -> bool:
            return not (await orders.readiness()).ready

        await until(not_ready)
        await broker.up()
        await orders.submit(lambda _: place_order(3))
        for number in (1, 2, 3):
            assert (await ended(orders, order_id(number))).status is OrderStatus.COMPLETED
        assert (await orders.readiness()).ready


async def test_waits_for_the_database(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    """While another process holds the database, batches wait; afterwards they are processed."""
    mode = choreographed.MODE
    async with running_mode(mode, tmp_path, Embedded(embedded)) as runners:
        inventory, orders = runners["inventory"], runners["order"]
        other = open_core(mode.service("inventory"), tmp_path)
        impatient(inventory.core)
        with other.database.write():
            await orders.submit(lambda _: place_order(1))

            async def in_trouble() -> bool:
                return "database is locked" in str((await inventory.readiness()).database)

            await until(in_trouble)
        other.database.close()
        assert (await ended(orders, order_id(1))).status is OrderStatus.COMPLETED


@pytest.mark.timeout(120)
async def test_overrun_is_an_error(broker: Embedded, tmp_path: Path) -> None:
    """Records that the broker has dropped before they were consumed end the service with an error."""
    await send(broker, "orders.events", [b"first"])
    async with running(INVENTORY, tmp_path, broker, sole_instance=True) as runner:

        async def consumed() -> bool:
            return bool(runner.consumed)

        await until(consumed)
    # A partition keeps 5 MiB.
    await send(broker, "orders.events", [b"x" * 50_000] * 120)
    runner = new_runner(open_core(INVENTORY, tmp_path), broker.bootstrap, sole_instance=True)
    async with started(runner) as task:
        with pytest.raises(OverrunError, match="choreographed/inventory fell behind"):
            await asyncio.wait_for(asyncio.shield(task), 20)


async def test_wrong_partitions_are_an_error(broker: Embedded, tmp_path: Path) -> None:
    """Topics with another partition count end the service, since waiting would not mend them."""
    runner = new_runner(open_core(INVENTORY, tmp_path), broker.bootstrap)
    object.__setattr__(runner.link, "partitions", PARTITIONS + 1)
    async with started(runner):
        with pytest.raises(BrokerError, match=f"exists with {PARTITIONS} partitions, not {PARTITIONS + 1}"):
            await runner.ready()


async def test_a_cancelled_submission_goes_out(broker: Embedded, tmp_path: Path) -> None:
    """Whoever submits may go away: what is committed is published all the same."""
    async with running(ORDER, tmp_path, broker) as runner:
        loop = asyncio.get_running_loop()
        made = asyncio.Event()

        def work(_: object) -> PlaceOrder:
            loop.call_soon_threadsafe(made.set)
            return place_order(1)

        submission = asyncio.create_task(runner.submit(work))
        await made.wait()
        submission.cancel()
        async with consuming(broker, "orders.events", partitions=range(PARTITIONS)) as consumer:
            (record,) = await read(consumer, 1)
        assert record.key == order_id(1).encode()


async def test_progress(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    """Whoever waits for progress is woken by a batch, and otherwise when the time is up."""
    async with running_mode(choreographed.MODE, tmp_path, Embedded(embedded)) as runners:
        before = monotonic()
        await runners["order"].progress(0.05)
        assert monotonic() - before >= 0.05
        waiting = asyncio.create_task(runners["inventory"].progress(60))
        await runners["order"].submit(lambda _: place_order(1))
        await asyncio.wait_for(waiting, 20)


@pytest.mark.parametrize("bootstrap", ["the broker", NOWHERE])
async def test_stops_quickly(bootstrap: str, broker: Embedded, tmp_path: Path) -> None:
    """Stopping takes well under a second, whether the broker is there or was never reached."""
    where = bootstrap if bootstrap == NOWHERE else broker.bootstrap
    runner = new_runner(open_core(ORDER, tmp_path), where)
    runner.start()
    if where != NOWHERE:
        await runner.ready()
    before = monotonic()
    await runner.stop()
    assert monotonic() - before < 1


async def test_stops_quickly_in_an_outage(broker: Embedded, tmp_path: Path) -> None:
    """A broker that is gone holds stopping up for two seconds or so, and what is not published stays."""
    async with running(ORDER, tmp_path, broker) as runner:
        await broker.down()
        await runner.submit(lambda _: place_order(1))
        before = monotonic()
        await runner.stop()
        assert monotonic() - before < 3
    core = open_core(ORDER, tmp_path)
    assert core.backlog() == 1
    core.database.close()


async def test_not_started(tmp_path: Path) -> None:
    """Waiting for a runner that nobody has started is an error, and stopping it is none."""
    runner = new_runner(open_core(ORDER, tmp_path), NOWHERE)
    with pytest.raises(LabError, match="not started"):
        await runner.ready()
    await runner.stop()


async def test_publisher_reports_what_is_not_acknowledged(broker: Embedded) -> None:
    """A publisher that isn't connected says so; one that is started twice connects once."""
    publisher = KafkaPublisher(broker.bootstrap)
    record = Outgoing("id", "orders.events", 0, b"key", b"value", ())
    with pytest.raises(BrokerError, match="not started"):
        await publisher.publish([record])
    await publisher.start()
    await publisher.start()
    await publisher.publish([record])
    await publisher.stop()
    await publisher.stop()
    with pytest.raises(BrokerError, match="can't publish to"):
        await KafkaPublisher(NOWHERE).start()


async def test_a_producer_that_has_died_is_replaced(broker: Embedded) -> None:
    """A producer whose sender has crashed fails for ever; the next try takes a fresh one."""
    publisher = KafkaPublisher(broker.bootstrap)
    record = Outgoing("id", "orders.events", 0, b"key", b"value", ())
    await publisher.start()
    try:
        assert publisher._producer is not None
        publisher._producer._message_accumulator._exception = KafkaError("the sender has crashed")
        with pytest.raises(BrokerError, match="the sender has crashed"):
            await publisher.publish([record])
        await publisher.publish([record])
    finally:
        await publisher.stop()


async def test_a_consumer_that_has_died_is_replaced(broker: Embedded, tmp_path: Path) -> None:
    """A consumer whose inner tasks have crashed fails for ever; the next poll takes a fresh one."""
    async with running(ORDER, tmp_path, broker, sole_instance=True) as runner:
        dying = runner._subscription._consumer
        assert dying is not None
        coordinator = dying._coordinator
        coordinator._coordination_task.cancel()
        await asyncio.wait({coordinator._coordination_task})
        coordinator._coordination_task = asyncio.create_task(crash())
        await asyncio.wait({coordinator._coordination_task})

        async def replaced() -> bool:
            return runner._subscription._consumer not in {dying, None} and (await runner.readiness()).ready

        await until(replaced)


async def crash() -> NoReturn:
    """End as aiokafka's tasks do when something unexpected happens."""
    raise KafkaError("unexpected")
