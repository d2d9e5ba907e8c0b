"""The asyncio shell, over the embedded broker: what is committed goes out, whatever happens between."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as DatabaseTimeout

import choreographed
import common.runner
import orchestrated
from common.broker import partition_of
from common.core import Core
from common.crowd import Crowd
from common.domain.decision import Decision
from common.domain.order import OrderStatus
from common.embedded import EmbeddedBroker
from common.envelope import Outgoing
from common.errors import BrokerError, LabError, OverloadedError
from common.messages import CancelOrder, PlaceOrder
from common.publisher import KafkaPublisher
from common.runner import BrokerLink, Runner
from common.store.journal import counts
from common.subscription import OverrunError
from common.wiring import Mode
from tests.brokers import Embedded, consuming, read, send
from tests.pump import NOW, open_core, order_id, pages, place_order
from tests.running import (
    NOWHERE,
    PARTITIONS,
    asking,
    ended,
    new_runner,
    running,
    running_mode,
    stored_order,
    until,
)

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
        await runners["order"].submit(asking(place_order(1)))
        await runners["order"].submit(asking(place_order(2, price=600_00)))

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
        core.submit(transaction, [(place_order(1), 2)], NOW)
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
            await runner.submit(asking(place_order(number)))
        await runner.ready()
        await nothing_left(runner)
    async with consuming(broker, "orders.events", partitions=range(PARTITIONS)) as consumer:
        records = await read(consumer, 20)
    assert sorted(record.key for record in records) == [order_id(number).encode() for number in range(20)]


async def test_publishes_a_long_outbox(broker: Embedded, tmp_path: Path) -> None:
    """What is left in the outbox goes out in pages, all of it once, and each partition in its order."""
    core = open_core(ORDER, tmp_path)
    for number in range(50):
        with core.database.write() as transaction:
            core.submit(transaction, [(place_order(number), number % PARTITIONS)], datetime.now(UTC))
    core.database.close()

    async with running(ORDER, tmp_path, broker) as runner:
        await nothing_left(runner)
    async with consuming(broker, "orders.events", partitions=range(PARTITIONS)) as consumer:
        records = await read(consumer, 50)
        places = [TopicPartition("orders.events", partition) for partition in range(PARTITIONS)]
        assert sum((await consumer.end_offsets(places)).values()) == 50
    for partition in range(PARTITIONS):
        keys = [record.key for record in records if record.partition == partition]
        assert keys == [order_id(number).encode() for number in range(partition, 50, PARTITIONS)]


async def test_waits_for_the_broker(broker: Embedded, tmp_path: Path) -> None:
    """Before there is a broker, orders are taken and kept; once it is there, they go out."""
    await broker.down()
    runner = new_runner(open_core(ORDER, tmp_path), broker.bootstrap)
    async with started(runner):
        await runner.submit(asking(place_order(1)))
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
        await orders.submit(asking(place_order(1)))
        await broker.down()
        await orders.submit(asking(place_order(2)))

        async def not_ready() -> bool:
            return not (await orders.readiness()).ready

        await until(not_ready)
        await broker.up()
        await orders.submit(asking(place_order(3)))
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
            await orders.submit(asking(place_order(1)))

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

        def work(_: object) -> Sequence[PlaceOrder]:
            loop.call_soon_threadsafe(made.set)
            return (place_order(1),)

        submission = asyncio.create_task(runner.submit(work))
        await made.wait()
        submission.cancel()
        async with consuming(broker, "orders.events", partitions=range(PARTITIONS)) as consumer:
            (record,) = await read(consumer, 1)
        assert record.key == order_id(1).encode()


@pytest.fixture
async def taking(tmp_path: Path) -> AsyncIterator[Runner]:
    """An Order service that takes requests, and does nothing else."""
    runner = new_runner(open_core(ORDER, tmp_path), NOWHERE)
    yield runner
    await runner.stop()


def count_commits(core: Core) -> list[object]:
    """One entry for each transaction that writes, once it is committed."""
    commits: list[object] = []

    def committed(transaction: Connection) -> None:
        if not transaction.get_execution_options().get("read_only"):
            commits.append(transaction)

    event.listen(core.database.engine, "commit", committed)
    return commits


def taken(core: Core, numbers: Iterable[int]) -> list[int]:
    """Which of these orders are stored."""
    return [number for number in numbers if stored_order(core, order_id(number)) is not None]


class Held:
    """A request that is being taken until it is released; `number` is the order that it asks for."""

    def __init__(self, runner: Runner, number: int = 0) -> None:
        self._begun = asyncio.Event()
        self._release = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._number = number
        self.request = asyncio.create_task(runner.submit(self._work))

    async def begun(self) -> None:
        """Wait until it is being taken."""
        await self._begun.wait()

    def release(self) -> None:
        """Let it be taken."""
        self._release.set()

    def _work(self, _: Connection) -> Sequence[PlaceOrder]:
        self._loop.call_soon_threadsafe(self._begun.set)
        assert self._release.wait(20)
        return (place_order(self._number),)


LATER_S = 60.0
"""A crowd until then is one for the whole of a test."""


async def turns(count: int) -> None:
    """Let the others take so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


def fail(_: Connection) -> NoReturn:
    """A request that can't be taken."""
    raise LookupError("no such thing")


@pytest.mark.parametrize("own_thread", [True, False])
async def test_requests_that_come_at_once_share_a_transaction(own_thread: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter of the test
    """A commit costs as much for twenty requests as for one; each is taken, with all that it asks for."""
    core = open_core(ORDER, tmp_path)
    link = BrokerLink(NOWHERE, PARTITIONS)
    runner = Runner(core, link, KafkaPublisher(NOWHERE), own_thread=own_thread)
    commits = count_commits(core)
    several = asking(place_order(20), place_order(21))
    requests = [*(asking(place_order(number)) for number in range(20)), several, asking()]
    await asyncio.gather(*map(runner.submit, requests))
    assert len(commits) == 1
    assert taken(core, range(30)) == list(range(22))
    assert core.backlog() == 22
    told = [record for page in pages(core, range(PARTITIONS)) for record in page]
    assert all(record.key and record.partition == partition_of(record.key, PARTITIONS) for record in told)
    await runner.stop()


async def test_requests_that_come_meanwhile_share_the_next_transaction(taking: Runner) -> None:
    """While one is being taken, the others gather; they needn't wait for each other after that."""
    commits = count_commits(taking.core)
    held = Held(taking)
    await held.begun()
    requests = [asyncio.create_task(taking.submit(asking(place_order(number)))) for number in range(1, 10)]
    held.release()
    await asyncio.gather(held.request, *requests)
    assert len(commits) == 2
    assert taken(taking.core, range(10)) == list(range(10))


@pytest.mark.parametrize(("orders", "transactions"), [(1, 2), (2, 1)], ids=["alone", "in a crowd"])
async def test_in_a_crowd_requests_are_collected(taking: Runner, orders: int, transactions: int) -> None:
    """Where several orders are under way, a request waits a moment for the next; else it is taken at once."""
    commits = count_commits(taking.core)
    taking.crowd.notice(orders, monotonic() + LATER_S)
    first = asyncio.create_task(taking.submit(asking(place_order(1))))
    await turns(2)  # until it is being taken, or collected
    await asyncio.gather(first, taking.submit(asking(place_order(2))))
    assert len(commits) == transactions
    assert taken(taking.core, range(4)) == [1, 2]


async def test_what_is_collected_when_the_service_stops_is_refused(tmp_path: Path) -> None:
    """Whoever asked is told so, and the database that is closed stays closed."""
    core = open_core(ORDER, tmp_path)
    runner = Runner(core, BrokerLink(NOWHERE, PARTITIONS), KafkaPublisher(NOWHERE), own_thread=False)
    connected: list[object] = []
    runner.crowd.notice(2, monotonic() + LATER_S)
    request = asyncio.create_task(runner.submit(asking(place_order(1))))
    await turns(2)
    await runner.stop()
    event.listen(core.database.engine, "connect", lambda *_: connected.append(1))
    with pytest.raises(DatabaseTimeout, match="is stopping"):
        await request
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    assert not connected


class AskedCrowd(Crowd):
    """A crowd, and when a service asks whether there is one: what it has by then, it collects."""

    def __init__(self) -> None:
        super().__init__()
        super().notice(2, monotonic() + LATER_S)
        self.asked = asyncio.Event()

    def notice(self, orders: int, now: float) -> bool:
        """Note that so many orders have arrived together; whether it is a crowd."""
        self.asked.set()
        return super().notice(orders, now)


async def test_what_is_collected_when_the_service_is_killed_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is as if the order had not been asked for, though the last task takes a while; the log is empty."""
    gc.collect()
    caplog.clear()  # of what earlier tests have left
    monkeypatch.setattr(common.runner, "_COLLECT_S", 0)
    core = open_core(ORDER, tmp_path)
    runner = Runner(core, BrokerLink(NOWHERE, PARTITIONS), KafkaPublisher(NOWHERE), own_thread=False)
    runner.start()
    runner.crowd = crowd = AskedCrowd()
    request = asyncio.create_task(runner.submit(asking(place_order(1))))
    await crowd.asked.wait()
    await runner.kill()
    with pytest.raises(DatabaseTimeout, match="is stopping"):
        await request
    assert not taken(core, [1])
    core.database.close()
    del runner
    gc.collect()
    assert not caplog.records


async def test_requests_are_taken_in_their_order(taking: Runner) -> None:
    """Those that share a transaction see what earlier ones have made, and so do those after them."""
    requests = [
        asking(place_order(1)),
        asking(place_order(1, quantity=9)),
        asking(CancelOrder(order_id=order_id(1))),
    ]
    await asyncio.gather(*map(taking.submit, requests))
    order = stored_order(taking.core, order_id(1))
    assert order is not None
    assert order.quantity == 2
    told = [record for page in pages(taking.core, range(PARTITIONS)) for record in page]
    kinds = [dict(record.headers)["ce_type"] for record in told]
    assert kinds == [b"OrderCreated", b"OrderCancelRequested"]


async def test_more_requests_than_fit_into_one_transaction(
    taking: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction is bounded; what is left over has the next one."""
    monkeypatch.setattr(common.runner, "_MOST_TOGETHER", 4)
    commits = count_commits(taking.core)
    await asyncio.gather(*(taking.submit(asking(place_order(number))) for number in range(10)))
    assert len(commits) == 3
    assert taken(taking.core, range(10)) == list(range(10))


async def test_a_bad_request_fails_alone(taking: Runner) -> None:
    """Whoever asks for what can't be is told so, and those who came at the same moment are served."""
    bad, commits = (3, 7), count_commits(taking.core)
    requests = [taking.submit(fail if number in bad else asking(place_order(number))) for number in range(10)]
    answers = await asyncio.gather(*requests, return_exceptions=True)
    good = [number for number in range(10) if number not in bad]
    assert [number for number, answer in enumerate(answers) if answer is None] == good
    assert {type(answers[number]) for number in bad} == {LookupError}
    assert taken(taking.core, range(10)) == good
    assert (taking.core.backlog(), len(commits)) == (8, 1)


async def test_a_command_that_cannot_be_decided_fails_alone(tmp_path: Path) -> None:
    """An error that only the decider finds, with all requests made, costs its own request only."""

    def decide(state: Any, message: Any, rules: Any) -> Decision[Any]:  # noqa: ANN401 - as a decider is declared
        if message.order_id == order_id(2):
            raise ConnectionError("undecided")
        return ORDER.domain.decide(state, message, rules)

    broken = replace(ORDER, domain=replace(ORDER.domain, decide=decide))
    runner = new_runner(open_core(broken, tmp_path), NOWHERE)
    requests = [asking(place_order(1)), asking(place_order(2)), asking(CancelOrder(order_id=order_id(3)))]
    answers = await asyncio.gather(*map(runner.submit, requests), return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None), ConnectionError, type(None)]
    assert taken(runner.core, range(5)) == [1]
    with runner.core.database.read() as connection:
        assert counts(connection) == {"ignored": 1}
    assert runner.core.counts == {"ignored": 1}
    await runner.stop()


async def test_a_request_that_could_not_be_committed_is_not_published(taking: Runner) -> None:
    """What failed at the very end of its transaction is told to who asked, and to nobody else."""

    def work(transaction: Connection) -> Sequence[PlaceOrder]:
        event.listen(transaction, "commit", fail)
        return (place_order(1),)

    requests = [taking.submit(work), taking.submit(asking(place_order(2)))]
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert [type(answer) for answer in answers] == [LookupError, type(None)]
    assert taken(taking.core, range(5)) == [2]
    assert {record.key for record in taking._submitted} == {order_id(2).encode()}


async def test_a_request_whose_waiter_is_gone_is_taken_all_the_same(taking: Runner) -> None:
    """Whoever waits for its turn may go away; what was asked for is done, and others aren't disturbed."""
    held = Held(taking)
    await held.begun()
    gone = [asyncio.create_task(taking.submit(asking(place_order(number)))) for number in (1, 2)]
    bad = asyncio.create_task(taking.submit(fail))
    stays = asyncio.create_task(taking.submit(asking(place_order(3))))

    async def all_wait() -> bool:
        return len(taking._requests) == 4

    await until(all_wait)
    for task in (*gone, bad):
        task.cancel()
    await asyncio.wait({*gone, bad})
    held.release()
    await asyncio.gather(held.request, stays)
    assert all(task.cancelled() for task in (*gone, bad))
    assert taken(taking.core, range(5)) == [0, 1, 2, 3]


async def test_a_request_that_has_waited_too_long_is_not_taken(
    taking: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for its turn behind a write that hangs is sent away, and then nothing is done."""
    monkeypatch.setattr(common.runner, "_SUBMIT_LIMIT_S", 0.05)
    held = Held(taking)
    await held.begun()
    with pytest.raises(DatabaseTimeout, match="not its turn"):
        await taking.submit(asking(place_order(1)))
    held.release()
    await held.request
    assert taken(taking.core, range(5)) == [0]


async def test_a_locked_database_is_waited_for_once(taking: Runner) -> None:
    """Requests that share a transaction fail together if the database can't be used: none is tried again."""
    impatient(taking.core)
    tries: list[object] = []
    event.listen(taking.core.database.engine, "checkout", lambda *details: tries.append(details))
    with sqlite3.connect(str(taking.core.database), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        requests = [taking.submit(asking(place_order(number))) for number in range(20)]
        answers = await asyncio.gather(*requests, return_exceptions=True)
        other.execute("ROLLBACK")
    other.close()
    assert {type(answer) for answer in answers} == {OperationalError}
    assert len(tries) == 1
    assert taken(taking.core, range(20)) == []
    await taking.submit(asking(place_order(1)))


async def test_an_overloaded_service_takes_nothing_more(
    broker: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the broker is away, so much is taken and no more; once it is back, all goes on."""
    monkeypatch.setattr(common.runner, "_MOST_UNPUBLISHED", 3)
    async with running(ORDER, tmp_path, broker) as runner:
        await broker.down()
        for number in range(3):
            await runner.submit(asking(place_order(number)))
        for number in (3, 4):
            with pytest.raises(OverloadedError, match="3 records wait for the broker already"):
                await runner.submit(asking(place_order(number)))
        assert taken(runner.core, range(5)) == [0, 1, 2]
        await broker.up()

        async def takes_more() -> bool:
            with suppress(OverloadedError):
                await runner.submit(asking(place_order(5)))
                return True
            return False

        await until(takes_more)
        await nothing_left(runner)
    async with consuming(broker, "orders.events", partitions=range(PARTITIONS)) as consumer:
        records = await read(consumer, 4)
    assert {record.key for record in records} == {order_id(number).encode() for number in (0, 1, 2, 5)}


async def test_a_stopped_service_takes_nothing_more(taking: Runner) -> None:
    """Who comes too late is told so at once, and nothing is done."""
    await taking.stop()
    with pytest.raises(DatabaseTimeout, match="is stopping"):
        await taking.submit(asking(place_order(1)))
    assert taken(taking.core, range(5)) == []


async def test_progress(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    """Whoever waits for progress is woken by a batch, and otherwise when the time is up."""
    async with running_mode(choreographed.MODE, tmp_path, Embedded(embedded)) as runners:
        before = monotonic()
        await runners["order"].progress(0.05)
        assert monotonic() - before >= 0.05
        waiting = asyncio.create_task(runners["inventory"].progress(60))
        await runners["order"].submit(asking(place_order(1)))
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
        await runner.submit(asking(place_order(1)))
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
