"""What the lab relies on in a broker: one suite for the embedded broker and for Apache Kafka.

A stand-in has to earn its trust: whatever holds here on both holds for the lab on either. Where the embedded
broker differs, the test says so.
"""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NoOffsetForPartitionError

from common.broker import delete_topics, ensure_topics, partition_of
from common.errors import BrokerError
from tests.brokers import Broker, Embedded, Kafka, consuming, poll, producing, read, send, values
from tests.kafka_server.server import KafkaServer

# Only the test itself is timed: the first one of a run may have to download and start Apache Kafka.
pytestmark = pytest.mark.timeout(60, func_only=True)

_PARTITIONS = 3
_KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)


@pytest.fixture(params=["embedded", _KAFKA])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each kind of broker in turn, running."""
    handle = request.getfixturevalue(request.param)
    return Embedded(handle) if request.param == "embedded" else Kafka(handle)


@pytest.fixture
async def topic(broker: Broker) -> str:
    """A new topic with three partitions: not four, which the embedded broker would choose itself."""
    name = f"contract-{uuid.uuid4().hex}"
    await broker.create_topics([name], _PARTITIONS)
    return name


async def test_topics_have_the_chosen_partition_count(broker: Broker, topic: str) -> None:
    """A topic has exactly the partitions that it was created with."""
    async with producing(broker) as producer:
        assert await producer.partitions_for(topic) == set(range(_PARTITIONS))


async def test_topics_may_exist_already(broker: Broker, topic: str) -> None:
    """Creating a topic again with the same count changes nothing, as every service does it at its start."""
    await broker.create_topics([topic], _PARTITIONS)
    await ensure_topics(broker.bootstrap, [topic], _PARTITIONS)


async def test_another_partition_count_is_an_error(broker: Broker, topic: str) -> None:
    """A topic with another partition count is refused by name, with both counts."""
    with pytest.raises(BrokerError, match=rf"{topic}' exists with 3 partitions, not 5: set .* to 3"):
        await ensure_topics(broker.bootstrap, [topic], 5)


async def test_records_survive_whole(broker: Broker, topic: str) -> None:
    """Key, value, headers in their order, and the timestamp in milliseconds arrive as they were sent."""
    headers = [("ce_id", b"1"), ("traceparent", b"\x00\xff"), ("ce_id", b"2"), ("empty", b"")]
    async with producing(broker) as producer:
        await producer.send_and_wait(
            topic, b"value", key=b"k", timestamp_ms=1_234_567_890_123, headers=headers
        )
    async with consuming(broker, topic, partitions=range(_PARTITIONS)) as consumer:
        (record,) = await read(consumer, 1)
    assert (record.key, record.value, list(record.headers)) == (b"k", b"value", headers)
    assert record.timestamp == 1_234_567_890_123


async def test_keys_choose_the_partition(broker: Broker, topic: str) -> None:
    """A producer puts a key where `partition_of` says, so that either side can compute it."""
    keys = [f"order-{number}".encode() for number in range(20)]
    async with producing(broker) as producer:
        sent = [await producer.send_and_wait(topic, b"", key=key) for key in keys]
    assert [record.partition for record in sent] == [partition_of(key, _PARTITIONS) for key in keys]


async def test_partitions_keep_their_order(broker: Broker, topic: str) -> None:
    """Records of one partition are read in the order in which they were sent, without gaps."""
    total = 300
    async with producing(broker) as producer:
        sent = [
            await producer.send(topic, str(number).encode(), partition=number % _PARTITIONS)
            for number in range(total)
        ]
        await asyncio.gather(*sent)
    async with consuming(broker, topic, partitions=range(_PARTITIONS)) as consumer:
        records = await read(consumer, total)
    for partition, found in _by_partition(records).items():
        assert found == [str(number).encode() for number in range(partition, total, _PARTITIONS)]


async def test_batches_arrive_whole_on_their_partition(broker: Broker, topic: str) -> None:
    """A batch built by hand is stored in one piece, in order, with headers, on the partition it names."""
    async with producing(broker) as producer:
        batch = producer.create_batch()
        for number in range(50):
            batch.append(key=b"k", value=b"%d" % number, timestamp=number, headers=[("n", b"%d" % number)])
        batch.close()
        first = await (await producer.send_batch(batch, topic, partition=2))
    async with consuming(broker, topic, partitions=[2]) as consumer:
        records = await read(consumer, 50)
    assert (first.partition, first.offset) == (2, 0)
    assert [(r.offset, r.timestamp, r.value, r.headers) for r in records] == [
        (n, n, b"%d" % n, (("n", b"%d" % n),)) for n in range(50)
    ]


async def test_a_group_member_gets_every_partition(broker: Broker, topic: str) -> None:
    """A group's only member is assigned all partitions of all its topics."""
    other = f"{topic}-other"
    await broker.create_topics([other], _PARTITIONS)
    async with consuming(broker, topic, other, group=topic) as consumer:
        while not consumer.assignment():
            await poll(consumer)
        assert consumer.assignment() == {
            TopicPartition(name, partition) for name in (topic, other) for partition in range(_PARTITIONS)
        }


async def test_no_commit_is_an_error(broker: Broker, topic: str) -> None:
    """A group that has never committed gets an error that names the partition, not a start somewhere."""
    async with consuming(broker, topic, group=topic) as consumer:
        with pytest.raises(NoOffsetForPartitionError) as caught:
            await consumer.getone()
    assert caught.value.args[0].topic == topic


async def test_an_explicit_seek_starts_a_group(broker: Broker, topic: str) -> None:
    """After that error a seek to the start reads everything that was sent before the group existed."""
    await send(broker, topic, [b"a", b"b"])
    async with consuming(broker, topic, group=topic) as consumer:
        assert values(await read(consumer, 2)) == [b"a", b"b"]


@pytest.mark.parametrize("mine", [(), (0,)], ids=["member", "own-partitions"])
async def test_a_group_resumes_from_its_commit(broker: Broker, topic: str, mine: tuple[int, ...]) -> None:
    """A fresh consumer goes on after the commit, whether it joins the group or takes the partition itself."""
    await send(broker, topic, [b"a", b"b", b"c"])
    async with consuming(broker, topic, group=topic, partitions=mine) as consumer:
        await read(consumer, 3)
        await consumer.commit({TopicPartition(topic, 0): 2})
    async with consuming(broker, topic, group=topic, partitions=mine) as consumer:
        assert values(await read(consumer, 1)) == [b"c"]


async def test_stopping_commits_nothing(broker: Broker, topic: str) -> None:
    """A consumer that stops leaves its commit where it was, so that unfinished work is read again."""
    await send(broker, topic, [b"a", b"b"])
    async with consuming(broker, topic, group=topic, partitions=[0]) as consumer:
        await read(consumer, 2)
        await consumer.commit({TopicPartition(topic, 0): 1})
    async with consuming(broker, topic, group=topic, partitions=[0]) as consumer:
        assert values(await read(consumer, 1)) == [b"b"]


async def test_a_failed_batch_can_be_read_again(broker: Broker, topic: str) -> None:
    """After a seek back the same consumer gets the same records once more."""
    await send(broker, topic, [b"a", b"b"])
    async with consuming(broker, topic, group=topic) as consumer:
        await read(consumer, 2)
        consumer.seek(TopicPartition(topic, 0), 0)
        assert values(await read(consumer, 2)) == [b"a", b"b"]


async def test_sends_outlive_a_broker_that_is_down(broker: Broker, topic: str) -> None:
    """What is sent while the broker is down waits, and arrives in order once it is up."""
    async with producing(broker) as producer:
        await producer.send_and_wait(topic, b"before", partition=0)
        await broker.down()
        waiting = [await producer.send(topic, b"%d" % number, partition=0) for number in range(3)]
        assert not any(future.done() for future in waiting)
        await broker.up()
        await asyncio.gather(*waiting)
    async with consuming(broker, topic, partitions=[0]) as consumer:
        assert values(await read(consumer, 4)) == [b"before", b"0", b"1", b"2"]


async def test_consumers_outlive_a_broker_that_is_down(broker: Broker, topic: str) -> None:
    """A group member goes on reading and committing after the broker was down; none of it needs a restart."""
    await send(broker, topic, [b"before"])
    async with consuming(broker, topic, group=topic) as consumer:
        await read(consumer, 1)
        await broker.down()
        await broker.up()
        await send(broker, topic, [b"after"])
        assert values(await read(consumer, 1)) == [b"after"]
        await consumer.commit({TopicPartition(topic, 0): 2})
        assert await consumer.committed(TopicPartition(topic, 0)) == 2


async def test_several_members_share_a_group(broker: Broker, topic: str) -> None:
    """Members of a group divide the partitions, and each record is read by one of them."""
    if isinstance(broker, Embedded):
        pytest.skip("the embedded broker serves one member per group: a second one fails to join")
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(consuming(broker, topic, group=topic)) for _ in range(2)]
        # Polled together: a member that doesn't poll holds the rebalance up.
        while not all(member.assignment() for member in members):
            await asyncio.gather(*map(poll, members))
        async with producing(broker) as producer:
            for partition in range(_PARTITIONS):
                await producer.send_and_wait(topic, b"%d" % partition, partition=partition)
        shares: list[list[Any]] = [[], []]
        while sum(map(len, shares)) < _PARTITIONS:
            batches = await asyncio.gather(*map(poll, members))
            shares = [share + batch for share, batch in zip(shares, batches, strict=True)]
    assert all(shares)
    assert sorted(values(shares[0] + shares[1])) == [b"0", b"1", b"2"]


@pytest.mark.kafka
async def test_acknowledged_records_outlive_a_crash(kafka: KafkaServer) -> None:
    """On a real broker what was acknowledged, or committed, is still there after its process was killed."""
    broker, topic = Kafka(kafka), f"contract-{uuid.uuid4().hex}"
    await broker.create_topics([topic], _PARTITIONS)
    await send(broker, topic, [b"a", b"b"])
    async with consuming(broker, topic, group=topic) as consumer:
        await read(consumer, 2)
        await consumer.commit({TopicPartition(topic, 0): 1})
    await broker.crash()
    await broker.up()
    async with consuming(broker, topic, group=topic) as consumer:
        assert values(await read(consumer, 1)) == [b"b"]


@pytest.mark.kafka
async def test_deleted_topics_are_gone(kafka: KafkaServer) -> None:
    """A deleted topic can be created anew at once, with another partition count and no old record."""
    broker, topic = Kafka(kafka), f"contract-{uuid.uuid4().hex}"
    await broker.create_topics([topic], 1)
    await send(broker, topic, [b"old"])
    await delete_topics(broker.bootstrap, [topic, "never-existed"])
    await broker.create_topics([topic], 2)
    await send(broker, topic, [b"new"])
    async with consuming(broker, topic, partitions=[0]) as consumer:
        assert values(await read(consumer, 1)) == [b"new"]


@pytest.mark.kafka
async def test_a_refused_topic_is_an_error(kafka: KafkaServer) -> None:
    """A name that the broker refuses is an error at once, with the broker's reason, not a wait."""
    with pytest.raises(BrokerError, match=r"refuses: .*topic 'no spaces': Topic name is invalid"):
        await ensure_topics(kafka.bootstrap, ["no spaces"], 1)


@pytest.mark.kafka
async def test_topics_can_be_asked_for_before_the_broker_is_up(kafka: KafkaServer) -> None:
    """A service that starts before its broker waits for it, as in Docker Compose."""
    broker, topic = Kafka(kafka), f"contract-{uuid.uuid4().hex}"
    await broker.down()
    asking = asyncio.create_task(ensure_topics(broker.bootstrap, [topic], 2))
    await broker.up()
    await asking


# The values of Kafka's own test of murmur2 (UtilsTest.testMurmur2), as the signed 32-bit numbers of Java.
@pytest.mark.parametrize(
    ("key", "murmur2"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_partitions_are_those_of_java(key: bytes, murmur2: int) -> None:
    """A key's partition is the one that Java's producer chooses, so that other clients' records fit in."""
    assert partition_of(key, 6) == (murmur2 & 0x7FFFFFFF) % 6


def _by_partition(records: Iterable[Any]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = defaultdict(list)
    for record in records:
        found[record.partition].append(record.value)
    return found
