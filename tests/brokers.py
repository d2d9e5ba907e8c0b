"""What the tests need of a broker, the same for all kinds, and short ways to send and read.

The embedded broker and Apache Kafka are spoken to over a socket. The simulated broker has none: a `Client` is
what can be asked of any of the three.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError

from common.broker import consumer_options, ensure_topics, producer_options
from common.embedded import EmbeddedBroker
from common.envelope import Headers, Outgoing, Record
from common.errors import BrokerError
from compare.simulation.broker import Place, SimulatedBroker
from tests.kafka_server.server import KafkaServer

# Bounds on what should take milliseconds, so that a hang names its place and not just the test.
_STOP_SECONDS = 15.0
_READ_SECONDS = 30.0
_POLL_MS = 200


class Broker(Protocol):
    """A running broker, and the ways in which the kinds differ."""

    @property
    def bootstrap(self) -> str: ...

    fetch_max_wait_ms: int

    async def create_topics(self, names: Iterable[str], partitions: int) -> None: ...
    async def down(self) -> None: ...
    async def up(self) -> None: ...


class Embedded:
    """The embedded broker as the contract sees it."""

    fetch_max_wait_ms = 5

    def __init__(self, handle: EmbeddedBroker) -> None:
        self.bootstrap = handle.bootstrap
        self.create_topics = handle.create_topics
        self.down = handle.down
        self.up = handle.up


class Kafka:
    """Apache Kafka as the contract sees it; going down ends its process."""

    fetch_max_wait_ms = 200

    def __init__(self, server: KafkaServer) -> None:
        self._server = server
        self.bootstrap = server.bootstrap

    async def create_topics(self, names: Iterable[str], partitions: int) -> None:
        await ensure_topics(self.bootstrap, names, partitions)

    async def down(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def crash(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def up(self) -> None:
        await asyncio.to_thread(self._server.start)


@asynccontextmanager
async def producing(broker: Broker) -> AsyncIterator[AIOKafkaProducer]:
    """A producer with the lab's settings."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, **producer_options())
    async with _running(producer):
        yield producer


@asynccontextmanager
async def consuming(
    broker: Broker, *topics: str, group: str | None = None, partitions: Iterable[int] = ()
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer with the lab's settings: a member of its group, or one that takes its partitions."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        group_id=group,
        **consumer_options(fetch_max_wait_ms=broker.fetch_max_wait_ms),
    )
    if own := [TopicPartition(topic, partition) for topic in topics for partition in partitions]:
        consumer.assign(own)
    else:
        consumer.subscribe(topics)
    async with _running(consumer):
        yield consumer


@asynccontextmanager
async def _running(client: AIOKafkaProducer | AIOKafkaConsumer) -> AsyncIterator[None]:
    try:
        await client.start()
        yield
    finally:
        async with asyncio.timeout(_STOP_SECONDS):
            await client.stop()


async def poll(consumer: AIOKafkaConsumer) -> list[Any]:
    """One batch, perhaps an empty one; a partition that has no commit is read from its start."""
    try:
        batches = await consumer.getmany(timeout_ms=_POLL_MS)
    except NoOffsetForPartitionError as error:
        (partition,) = error.args
        if partition in consumer.assignment():  # else it has gone to another member since
            consumer.seek(partition, 0)
        return []
    return [record for batch in batches.values() for record in batch]


async def read(consumer: AIOKafkaConsumer, count: int) -> list[Any]:
    """The next `count` records or a few more, in the order of their partitions."""
    records: list[Any] = []
    async with asyncio.timeout(_READ_SECONDS):
        while len(records) < count:
            records += await poll(consumer)
    return records


async def send(broker: Broker, topic: str, values: Iterable[bytes], *, partition: int = 0) -> None:
    """Send the values in this order to one partition, and wait for the acknowledgements."""
    async with producing(broker) as producer:
        sent = [await producer.send(topic, value, partition=partition) for value in values]
        await asyncio.gather(*sent)


def values(records: Iterable[Any]) -> list[bytes]:
    """The records' values."""
    return [record.value for record in records]


class Member(Protocol):
    """A consumer that has joined a group; it begins a partition that has no commit at its start."""

    def assignment(self) -> set[Place]:
        """The partitions that it has at this moment."""

    async def poll(self) -> Sequence[Record]:
        """What is next, or nothing; whoever doesn't poll takes part in no rebalance."""

    def again(self, place: Place) -> None:
        """Go back to the start of a partition."""

    async def commit(self, place: Place, offset: int) -> None:
        """Commit an offset; BrokerError if another member has the partition."""


class Client(Protocol):
    """What the lab relies on in a broker, in whatever way that is asked for it."""

    @property
    def divides(self) -> bool:
        """Whether the members of a group divide the partitions; if not, the last one has all."""

    async def create_topics(self, names: Iterable[str], partitions: int) -> None:
        """Create topics, as a broker's owner does."""

    async def ensure_topics(self, names: Iterable[str], partitions: int) -> None:
        """Create what is missing, as a service does; BrokerError if there is another number of partitions."""

    async def partitions(self, topic: str) -> set[int]:
        """The partitions of a topic."""

    async def send(self, records: Iterable[Outgoing]) -> None:
        """Put records where they say, in this order."""

    async def records(self, topic: str, count: int) -> Sequence[Record]:
        """The first `count` records of a topic, read without a group; of a partition, in its order."""

    def member(self, group: str, *topics: str) -> AbstractAsyncContextManager[Member]:
        """A new member of a group, for the length of the block."""


def outgoing(
    topic: str, value: bytes, partition: int = 0, *, key: bytes | None = None, headers: Headers = ()
) -> Outgoing:
    """A record as services send them."""
    return Outgoing("", topic, partition, key, value, headers)


async def read_as(member: Member, count: int) -> list[Record]:
    """The next `count` records or a few more, as a member of a group."""
    records: list[Record] = []
    async with asyncio.timeout(_READ_SECONDS):
        while len(records) < count:
            records += await member.poll()
    return records


class OverSocket:
    """A broker that is spoken to with aiokafka, as the services do it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.divides = True

    async def create_topics(self, names: Iterable[str], partitions: int) -> None:
        await self._broker.create_topics(names, partitions)

    async def ensure_topics(self, names: Iterable[str], partitions: int) -> None:
        await ensure_topics(self._broker.bootstrap, list(names), partitions)

    async def partitions(self, topic: str) -> set[int]:
        async with producing(self._broker) as producer:
            return set(await producer.partitions_for(topic))

    async def send(self, records: Iterable[Outgoing]) -> None:
        async with producing(self._broker) as producer:
            sent = [
                await producer.send(
                    one.topic, one.value, key=one.key, partition=one.partition, headers=list(one.headers)
                )
                for one in records
            ]
            await asyncio.gather(*sent)

    async def records(self, topic: str, count: int) -> Sequence[Record]:
        partitions = await self.partitions(topic)
        async with consuming(self._broker, topic, partitions=sorted(partitions)) as consumer:
            return await read(consumer, count)

    @asynccontextmanager
    async def member(self, group: str, *topics: str) -> AsyncIterator[Member]:
        async with consuming(self._broker, *topics, group=group) as consumer:
            yield _SocketMember(consumer)


class _SocketMember:
    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    def assignment(self) -> set[Place]:
        return {(one.topic, one.partition) for one in self._consumer.assignment()}

    async def poll(self) -> Sequence[Record]:
        return await poll(self._consumer)

    def again(self, place: Place) -> None:
        self._consumer.seek(TopicPartition(*place), 0)

    async def commit(self, place: Place, offset: int) -> None:
        try:
            await self._consumer.commit({TopicPartition(*place): offset})
        except KafkaError as error:
            raise BrokerError(f"{place} can't be committed: {error!r}") from error


class Simulated:
    """The simulated broker, which is asked directly."""

    divides = False

    def __init__(self, broker: SimulatedBroker) -> None:
        self._broker = broker

    async def create_topics(self, names: Iterable[str], partitions: int) -> None:
        self._broker.create_topics(names, partitions)

    ensure_topics = create_topics

    async def partitions(self, topic: str) -> set[int]:
        return {partition for name, partition in self._broker.logs if name == topic}

    async def send(self, records: Iterable[Outgoing]) -> None:
        for record in records:
            self._broker.append(record, record.partition, name="", id_=record.id)

    async def records(self, topic: str, count: int) -> Sequence[Record]:
        return [record for record in self._broker.records() if record.topic == topic][:count]

    @asynccontextmanager
    async def member(self, group: str, *topics: str) -> AsyncIterator[Member]:
        yield _SimulatedMember(self._broker, group, topics)


class _SimulatedMember:
    def __init__(self, broker: SimulatedBroker, group: str, topics: Sequence[str]) -> None:
        self._broker = broker
        self._group = group
        self._generation = broker.join(group)
        self._next = {place: broker.position(group, place) for place in broker.logs if place[0] in topics}

    def assignment(self) -> set[Place]:
        return set(self._next) if self._broker.generations[self._group] == self._generation else set()

    async def poll(self) -> Sequence[Record]:
        found = [
            record
            for place in sorted(self.assignment())
            for record in self._broker.fetch(self._group, place)
            if record.offset >= self._next[place]
        ]
        self._next |= {record.place: record.offset + 1 for record in found}
        return found

    def again(self, place: Place) -> None:
        self._next[place] = 0

    async def commit(self, place: Place, offset: int) -> None:
        self._broker.commit(self._group, self._generation, place, offset)
