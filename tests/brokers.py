"""What the tests need of a broker, the same for both kinds, and short ways to send and read."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import NoOffsetForPartitionError

from common.broker import consumer_options, ensure_topics, producer_options
from common.embedded import EmbeddedBroker
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
