"""What the lab relies on in a broker: one suite for the embedded broker, Apache Kafka and the simulated one.

A stand-in has to earn its trust: whatever holds here on all of them holds for the lab on any. A test that
takes `client` runs on all three; one that takes `broker` is about sockets, producers or outages, which the
simulated broker doesn't have; one that takes `sharing` needs groups of several members, which the embedded
broker lacks.
"""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AsyncExitStack

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NoOffsetForPartitionError

from common.broker import delete_topics, ensure_topics, partition_of
from common.envelope import Headers, Record
from common.errors import BrokerError
from compare.simulation.broker import SimulatedBroker
from tests.brokers import (
    Broker,
    Client,
    Embedded,
    Kafka,
    Member,
    OverSocket,
    Simulated,
    consuming,
    outgoing,
    producing,
    read,
    read_as,
    send,
    values,
)
from tests.kafka_server.server import KafkaServer

# Only the test itself is timed: the first one of a run may have to download and start Apache Kafka.
pytestmark = pytest.mark.timeout(60, func_only=True)

_PARTITIONS = 3
_KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)


@pytest.fixture(params=["embedded", _KAFKA])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each kind of broker in turn, running."""
    return broker_of(request, request.param)


@pytest.fixture(params=["embedded", _KAFKA, "simulated"])
def client(request: pytest.FixtureRequest) -> Client:
    """The way to each kind of broker in turn, running."""
    return client_of(request, request.param)


@pytest.fixture(params=[_KAFKA, "simulated"])
def sharing(request: pytest.FixtureRequest) -> Client:
    """Likewise, to those that serve several members of a group: the embedded one lets no second one join."""
    return client_of(request, request.param)


def broker_of(request: pytest.FixtureRequest, kind: str) -> Broker:
    """The broker of this kind."""
    handle = request.getfixturevalue(kind)
    return Embedded(handle) if kind == "embedded" else Kafka(handle)


def client_of(request: pytest.FixtureRequest, kind: str) -> Client:
    """The way to the broker of this kind."""
    return Simulated(SimulatedBroker()) if kind == "simulated" else OverSocket(broker_of(request, kind))


@pytest.fixture
async def topic(request: pytest.FixtureRequest) -> str:
    """A new topic with three partitions: not four, which the embedded broker would choose itself."""
    name = f"contract-{uuid.uuid4().hex}"
    (kind,) = {"broker", "client", "sharing"} & set(request.fixturenames)
    await request.getfixturevalue(kind).create_topics([name], _PARTITIONS)
    return name


async def test_topics_have_the_chosen_partition_count(client: Client, topic: str) -> None:
    """A topic has exactly the partitions that it was created with."""
    assert await client.partitions(topic) == set(range(_PARTITIONS))


async def test_topics_may_exist_already(client: Client, topic: str) -> None:
    """Creating a topic again with the same count changes nothing, as every service does it at its start."""
    await client.create_topics([topic], _PARTITIONS)
    await client.ensure_topics([topic], _PARTITIONS)
    assert await client.partitions(topic) == set(range(_PARTITIONS))


async def test_another_partition_count_is_an_error(client: Client, topic: str) -> None:
    """A topic with another partition count is refused by name, with both counts."""
    with pytest.raises(BrokerError, match=rf"{topic}' exists with 3 partitions, not 5"):
        await client.ensure_topics([topic], 5)


async def test_that_error_says_what_to_set(broker: Broker, topic: str) -> None:
    """Whoever has brought a broker of his own is told the setting, and its value."""
    with pytest.raises(BrokerError, match=r"not 5: set .* to 3"):
        await ensure_topics(broker.bootstrap, [topic], 5)


async def test_records_survive_whole(client: Client, topic: str) -> None:
    """Key, value, and headers in their order, one of them twice, arrive as they were sent."""
    headers: Headers = (("ce_id", b"1"), ("traceparent", b"\x00\xff"), ("ce_id", b"2"), ("empty", b""))
    await client.send([outgoing(topic, b"value", 1, key=b"k", headers=headers)])
    (record,) = await client.records(topic, 1)
    assert (record.topic, record.partition, record.offset) == (topic, 1, 0)
    assert (record.key, record.value, tuple(record.headers)) == (b"k", b"value", headers)


async def test_timestamps_survive(broker: Broker, topic: str) -> None:
    """The timestamp, in milliseconds, arrives as it was sent."""
    async with producing(broker) as producer:
        await producer.send_and_wait(topic, b"value", timestamp_ms=1_234_567_890_123)
    async with consuming(broker, topic, partitions=range(_PARTITIONS)) as consumer:
        (record,) = await read(consumer, 1)
    assert record.timestamp == 1_234_567_890_123


async def test_keys_choose_the_partition(broker: Broker, topic: str) -> None:
    """A producer puts a key where `partition_of` says, so that either side can compute it.

    In the simulated world nobody else is there to choose: services say where each of their records goes.
    """
    keys = [f"order-{number}".encode() for number in range(20)]
    async with producing(broker) as producer:
        sent = [await producer.send_and_wait(topic, b"", key=key) for key in keys]
    assert [record.partition for record in sent] == [partition_of(key, _PARTITIONS) for key in keys]


async def test_partitions_keep_their_order(client: Client, topic: str) -> None:
    """Records of one partition are read in the order in which they were sent, without gaps."""
    total = 300
    await client.send(outgoing(topic, b"%d" % number, number % _PARTITIONS) for number in range(total))
    found = _by_partition(await client.records(topic, total))
    assert sorted(found) == list(range(_PARTITIONS))
    for partition, records in found.items():
        assert values(records) == [b"%d" % number for number in range(partition, total, _PARTITIONS)]
        assert [record.offset for record in records] == list(range(len(records)))


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


async def test_a_group_member_gets_every_partition(client: Client, topic: str) -> None:
    """A group's only member is assigned all partitions of all its topics."""
    other = f"{topic}-other"
    await client.create_topics([other], _PARTITIONS)
    async with client.member(topic, topic, other) as member:
        while not member.assignment():
            await member.poll()
        assert member.assignment() == {
            (name, partition) for name in (topic, other) for partition in range(_PARTITIONS)
        }


async def test_no_commit_is_an_error(broker: Broker, topic: str) -> None:
    """A group that has never committed gets an error that names the partition, not a start somewhere."""
    async with consuming(broker, topic, group=topic) as consumer:
        with pytest.raises(NoOffsetForPartitionError) as caught:
            await consumer.getone()
    assert caught.value.args[0].topic == topic


async def test_a_new_group_begins_at_the_start(client: Client, topic: str) -> None:
    """All that was sent before the group existed is read; over a socket, by a seek after that error."""
    await client.send([outgoing(topic, b"a"), outgoing(topic, b"b")])
    async with client.member(topic, topic) as member:
        assert values(await read_as(member, 2)) == [b"a", b"b"]


async def test_a_group_resumes_from_its_commit(client: Client, topic: str) -> None:
    """A fresh member goes on after the commit."""
    await client.send([outgoing(topic, b"a"), outgoing(topic, b"b"), outgoing(topic, b"c")])
    async with client.member(topic, topic) as member:
        await read_as(member, 3)
        await member.commit((topic, 0), 2)
    async with client.member(topic, topic) as member:
        assert values(await read_as(member, 1)) == [b"c"]


async def test_a_consumer_of_its_own_partitions_resumes(broker: Broker, topic: str) -> None:
    """One that takes the partition itself, and doesn't join the group, goes on there as well."""
    await send(broker, topic, [b"a", b"b", b"c"])
    async with consuming(broker, topic, group=topic, partitions=[0]) as consumer:
        await read(consumer, 3)
        await consumer.commit({TopicPartition(topic, 0): 2})
    async with consuming(broker, topic, group=topic, partitions=[0]) as consumer:
        assert values(await read(consumer, 1)) == [b"c"]


async def test_groups_are_apart(client: Client, topic: str) -> None:
    """What one group has committed is nothing to another, which reads the same records."""
    await client.send([outgoing(topic, b"a")])
    async with client.member(f"{topic}-one", topic) as member:
        await read_as(member, 1)
        await member.commit((topic, 0), 1)
    async with client.member(f"{topic}-other", topic) as member:
        assert values(await read_as(member, 1)) == [b"a"]


async def test_stopping_commits_nothing(client: Client, topic: str) -> None:
    """A consumer that stops leaves its commit where it was, so that unfinished work is read again."""
    await client.send([outgoing(topic, b"a"), outgoing(topic, b"b")])
    async with client.member(topic, topic) as member:
        await read_as(member, 2)
        await member.commit((topic, 0), 1)
    async with client.member(topic, topic) as member:
        assert values(await read_as(member, 1)) == [b"b"]


async def test_a_failed_batch_can_be_read_again(client: Client, topic: str) -> None:
    """After a seek back the same consumer gets the same records once more."""
    await client.send([outgoing(topic, b"a"), outgoing(topic, b"b")])
    async with client.member(topic, topic) as member:
        await read_as(member, 2)
        member.again((topic, 0))
        assert values(await read_as(member, 2)) == [b"a", b"b"]


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


async def test_several_members_share_a_group(sharing: Client, topic: str) -> None:
    """Each record is read by one member of a group; a real one has its members divide the partitions."""
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(sharing.member(topic, topic)) for _ in range(2)]
        await rebalanced(*members)
        await sharing.send(outgoing(topic, b"%d" % number, number) for number in range(_PARTITIONS))
        shares: list[list[Record]] = [[], []]
        while sum(map(len, shares)) < _PARTITIONS:
            batches = await asyncio.gather(*(member.poll() for member in members))
            shares = [[*share, *batch] for share, batch in zip(shares, batches, strict=True)]
    assert all(shares) or not sharing.divides
    assert sorted(values(shares[0] + shares[1])) == [b"0", b"1", b"2"]


async def test_a_member_cannot_commit_what_it_has_lost(sharing: Client, topic: str) -> None:
    """Once a partition has gone to another member, that one commits its offset; its former owner fails."""
    await sharing.send(outgoing(topic, b"%d" % number, number) for number in range(_PARTITIONS))
    async with sharing.member(topic, topic) as first:
        await read_as(first, _PARTITIONS)
        async with sharing.member(topic, topic) as second:
            await rebalanced(first, second)
            lost = sorted(second.assignment())
            with pytest.raises(BrokerError):
                await first.commit(lost[0], 1)
            await second.commit(lost[0], 1)
    async with sharing.member(topic, topic) as member:
        read_again = await read_as(member, _PARTITIONS - 1)
    assert lost[0] not in {(record.topic, record.partition) for record in read_again}


async def rebalanced(first: Member, second: Member) -> None:
    """Wait until a second member has got partitions, and the first has given them up."""
    while not second.assignment() or first.assignment() & second.assignment():
        # Polled together: a member that doesn't poll holds the rebalance up.
        await asyncio.gather(first.poll(), second.poll())


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


def _by_partition(records: Iterable[Record]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        found[record.partition].append(record)
    return found
