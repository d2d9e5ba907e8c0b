"""The consuming side, over the embedded broker: whatever comes between fetches, no record is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

import choreographed
import common.subscription
from common.crowd import Crowd
from common.embedded import EmbeddedBroker
from common.subscription import BrokerLink, Subscription
from tests.brokers import Embedded, producing, send
from tests.running import PARTITIONS, until

ORDER: Final = choreographed.MODE.service("order")
TOPIC: Final = "payments.events"
MOST: Final = 10
LONG_S: Final = 0.04
"""To collect records for: so long that a machine that is busy doesn't use it up before it begins."""
Seen = dict[TopicPartition, list[int]]
"""By partition: the offsets of what was polled, in that order."""


@pytest.fixture
async def broker(embedded: EmbeddedBroker) -> Embedded:
    """An embedded broker with the topics of the choreographed mode."""
    await embedded.create_topics(choreographed.MODE.all_topics, PARTITIONS)
    return Embedded(embedded)


async def nothing() -> None:
    """There is no batch in flight to be waited for."""


@asynccontextmanager
async def subscribed(broker: Embedded, *, sole: bool = True) -> AsyncIterator[Subscription]:
    """The Order service's subscription, started."""
    link = BrokerLink(
        broker.bootstrap, PARTITIONS, fetch_max_wait_ms=2, max_poll_records=MOST, sole_instance=sole
    )
    subscription = Subscription(ORDER, link, nothing, Crowd())
    await subscription.start()
    try:
        await subscription.assigned.wait()
        yield subscription
    finally:
        await subscription.stop()


async def send_sets(broker: Embedded, *sizes: int, partition: int = 0) -> None:
    """Send sets of records of these sizes, one after the other, as separate transactions would."""
    for size in sizes:
        await send(broker, TOPIC, [b"x"] * size, partition=partition)


async def poll_until(subscription: Subscription, count: int) -> Seen:
    """Poll until so many records of the topic have come, a bounded number at a time."""
    seen: Seen = {}

    async def enough() -> bool:
        batch = await subscription.poll()
        assert sum(map(len, batch.values())) <= MOST
        for where, records in batch.items():
            seen.setdefault(where, []).extend(record.offset for record in records)
        return sum(map(len, seen.values())) >= count

    await until(enough)
    return seen


def offsets(sizes: Sequence[int]) -> Seen:
    """What is polled of partitions of these sizes: all, in order."""
    return {
        TopicPartition(TOPIC, partition): list(range(size)) for partition, size in enumerate(sizes) if size
    }


@pytest.mark.parametrize("sole", [True, False], ids=["alone", "in a group"])
async def test_all_is_polled_in_order(sole: bool, broker: Embedded) -> None:  # noqa: FBT001 - a parameter of the test
    """However many sets there are, and of whatever size, each record comes once, in bounded batches."""
    await asyncio.gather(
        send_sets(broker, *[1] * 25, partition=0),
        send_sets(broker, 40, partition=1),
        send_sets(broker, 3, 1, 17, 2, partition=2),
    )
    async with subscribed(broker, sole=sole) as subscription:
        assert await poll_until(subscription, 88) == offsets([25, 40, 23])


@pytest.mark.parametrize(
    ("orders", "kind", "waits"),
    [(2, b"PaymentProcessed", True), (1, b"PaymentProcessed", False), (2, b"PaymentDeclined", False)],
    ids=["several orders", "one order", "another service's business"],
)
async def test_in_a_crowd_more_is_waited_for(
    orders: int, kind: bytes, *, waits: bool, broker: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is asked once more, for the whole of the time that records are collected for."""
    async with producing(broker) as producer:
        for number in range(orders):
            await producer.send_and_wait(
                TOPIC, b"{}", key=b"%d" % number, partition=number, headers=[("ce_type", kind)]
            )
    timeouts: list[float] = []
    getmany = AIOKafkaConsumer.getmany

    async def noted(consumer: AIOKafkaConsumer, *, timeout_ms: float, max_records: int) -> Any:  # noqa: ANN401 - aiokafka is untyped
        batch = await getmany(consumer, timeout_ms=timeout_ms, max_records=max_records)
        timeouts.append(timeout_ms)
        return batch

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", noted)
    monkeypatch.setattr(common.subscription, "_COLLECT_S", LONG_S)
    async with subscribed(broker) as subscription:
        while not await subscription.poll():
            timeouts.clear()
    collecting = timeouts[1:]
    assert bool(collecting) is waits
    assert all(0 < timeout <= 1000 * LONG_S for timeout in collecting)
    assert not waits or collecting[0] > 1000 * LONG_S / 2


@pytest.mark.usefixtures("odd_names")
@pytest.mark.parametrize("before", [1, 3, 20])
async def test_what_comes_before_an_unreadable_record_is_polled(before: int, broker: Embedded) -> None:
    """A record that the client can't read is found in a later fetch than those before it, and costs none."""
    await send_sets(broker, *[1] * before, partition=0)
    await send_sets(broker, *[1] * before, partition=1)
    async with producing(broker) as producer:
        await producer.send_and_wait(TOPIC, b"{}", partition=0, headers=[("ODD_NAME", b"")])
    await send_sets(broker, 2, partition=0)
    async with subscribed(broker) as subscription:
        assert await poll_until(subscription, 2 * before + 3) == offsets([before + 3, before])


@pytest.mark.parametrize("sole", [True, False], ids=["alone", "in a group"])
async def test_a_partition_without_a_commit_costs_the_others_nothing(sole: bool, broker: Embedded) -> None:  # noqa: FBT001 - as above
    """Where one partition goes on from its commit and another begins, neither passes a record over."""
    await send_sets(broker, 1, partition=0)
    async with subscribed(broker, sole=sole) as subscription:
        first = await poll_until(subscription, 1)
        await subscription.done({where: seen[-1] + 1 for where, seen in first.items()})
    await send_sets(broker, *[1] * 8, partition=0)
    await send_sets(broker, *[1] * 8, partition=1)
    async with subscribed(broker, sole=sole) as subscription:
        seen = await poll_until(subscription, 16)
    assert seen == {
        TopicPartition(TOPIC, 0): list(range(1, 9)),
        TopicPartition(TOPIC, 1): list(range(8)),
    }
