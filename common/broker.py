"""Topics and client settings, the same for every broker: embedded, Redpanda or Apache Kafka.

The settings below are aiokafka's, chosen for a service that keeps its own inbox and outbox: a record may be
sent or read twice, since the inbox removes duplicates, but none may be lost, or overtaken in its partition.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from aiokafka.partitioner import murmur2

from common.errors import BrokerError

# The broker's own default, so that one setting there decides for all topics.
_DEFAULT_REPLICATION = -1
# aiokafka takes that default only beside an assignment of replicas; an empty one leaves it to the broker.
_ANY_REPLICAS: dict[int, list[int]] = {}
# librdkafka names its built-in cluster so.
_EMBEDDED_CLUSTER_ID = "mockCluster"
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_CLOSE_SECONDS = 2.0
# Far below aiokafka's 40 s: a port forwarder accepts connections before the broker behind it can answer, and
# the next try has to come while there is time left.
_REQUEST_MS = 5_000


class _NotYetError(Exception):
    """The broker answers, but what was asked of it has not become visible; asking again may help."""


def producer_options() -> dict[str, Any]:
    """Keyword arguments for every `AIOKafkaProducer`."""
    return {
        # The outbox lets go of a record once it is acknowledged, so that has to mean that it is stored.
        "acks": "all",
        # An idempotent producer hangs, in stop() too, when the broker dies (aio-libs/aiokafka#1101). One
        # batch is in flight per partition either way, so order holds, and the inbox removes the duplicates.
        "enable_idempotence": False,
        # The outbox hands over whole batches: waiting for more records would only add latency.
        "linger_ms": 0,
        # A full outbox batch of a partition goes out in one request; the default of 16 KiB would split it.
        "max_batch_size": 65_536,
        "retry_backoff_ms": 50,
        # A client that missed a change of leader stalls until its next refresh: by default for 5 minutes.
        "metadata_max_age_ms": 30_000,
    }


def consumer_options(*, fetch_max_wait_ms: int) -> dict[str, Any]:
    """Keyword arguments for every `AIOKafkaConsumer`.

    `fetch_max_wait_ms` is how long the broker may hold a fetch that finds nothing: 100 to 500 on real ones,
    but 1 to 10 on the embedded broker, which holds it to the end even if a record arrives meanwhile.
    """
    return {
        # Offsets are committed after the database; a timer's commit, or stop()'s, would skip unfinished work.
        "enable_auto_commit": False,
        # "earliest" and "latest" skip silently over what the broker no longer has: a lost order. With "none"
        # a group that has no commit, or was overrun by retention, gets an error, and then seeks by intent.
        "auto_offset_reset": "none",
        "fetch_max_wait_ms": fetch_max_wait_ms,
        # By ranges, as all topics have the same partition count, a member gets the same partitions of each:
        # all records of an order meet in one process. One assignor: mixed ones abort the embedded broker.
        "partition_assignment_strategy": (RangePartitionAssignor,),
        # One polled batch is one transaction: large enough to share its cost, small enough to be short.
        "max_poll_records": 2000,
        "retry_backoff_ms": 10,
        # A batch in flight when a rebalance begins is finished first; by default, the group would wait
        # for a member no longer than its session, which is 10 s.
        "rebalance_timeout_ms": 30_000,
        # How long the fetcher sleeps when it has nothing to ask for. A seek doesn't wake it, so with the
        # default of 200 ms that is what a group's first record would wait.
        "consumer_timeout_ms": 10,
        # As for the producer.
        "metadata_max_age_ms": 30_000,
    }


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and disconnect, with or without a broker.

    Without its broker, aiokafka's own stop can be cancelled by its own cancelling of a fetch, and then leaves
    its client open.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        await consumer._client.close()  # noqa: SLF001 - what it has left open
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, from 0, that Java's and aiokafka's producers choose for a key by default (murmur2)."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


async def ensure_topics(
    bootstrap: str,
    names: Iterable[str],
    partitions: int,
    *,
    timeout: float = 30.0,  # noqa: ASYNC109 - it ends in an error of its own, which says what was waited for
) -> None:
    """Create the topics that are missing, and wait until each has a leader for all its partitions.

    The broker may still be starting: it is tried again until `timeout` seconds have passed. The embedded
    broker creates topics by `EmbeddedBroker.create_topics` only; there this merely checks them.

    Raises `BrokerError` if there is no broker in that time, if it refuses to create a topic, or if a topic
    exists with another partition count (records of one order would then be spread over several partitions).
    """
    wanted = frozenset(names)

    async def attempt(admin: AIOKafkaAdminClient) -> None:
        found = await _leaders(admin)
        for name in sorted(wanted & found.keys()):
            _check_topic(name, found[name], partitions)
        if missing := sorted(wanted - found.keys()):
            await _create(admin, missing, partitions)
            raise _NotYetError(f"topic {missing[0]!r} has just been created")

    await _until_done(bootstrap, attempt, timeout)


async def find_topics(
    bootstrap: str,
    *,
    timeout: float = 10.0,  # noqa: ASYNC109 - as above
) -> dict[str, int]:
    """The topics that there are, and how many partitions each has; none is created by asking.

    Raises `BrokerError` if there is no broker in that time.
    """
    found: dict[str, int] = {}

    async def attempt(admin: AIOKafkaAdminClient) -> None:
        found.update({name: len(leaders) for name, leaders in (await _leaders(admin)).items()})

    await _until_done(bootstrap, attempt, timeout)
    return found


async def delete_topics(
    bootstrap: str,
    names: Iterable[str],
    *,
    timeout: float = 30.0,  # noqa: ASYNC109 - as above
) -> None:
    """Delete those of the topics that exist, with all their records, and wait until they are gone.

    Raises `BrokerError` if that takes more than `timeout` seconds or is refused, as by the embedded broker.
    """
    unwanted = frozenset(names)

    async def attempt(admin: AIOKafkaAdminClient) -> None:
        if present := sorted(unwanted & (await _leaders(admin)).keys()):
            await _check_controller(admin)
            response = await admin.delete_topics(present)
            _check_results(response.topic_error_codes, accepted=UnknownTopicOrPartitionError)
            raise _NotYetError(f"topic {present[0]!r} has just been deleted")

    await _until_done(bootstrap, attempt, timeout)


async def _create(admin: AIOKafkaAdminClient, names: list[str], partitions: int) -> None:
    await _check_controller(admin)
    topics = [NewTopic(name, partitions, _DEFAULT_REPLICATION, _ANY_REPLICAS) for name in names]
    response = await admin.create_topics(topics)
    # Another service may be creating the same topics at this moment.
    _check_results(response.topic_errors, accepted=TopicAlreadyExistsError)


async def _check_controller(admin: AIOKafkaAdminClient) -> None:
    """Topics are created and deleted by the controller; aiokafka takes for granted that there is one."""
    cluster = await admin.describe_cluster()
    if str(cluster["cluster_id"]).startswith(_EMBEDDED_CLUSTER_ID):
        raise BrokerError("the embedded broker has no admin calls: create its topics through EmbeddedBroker")
    if cluster["controller_id"] not in {broker["node_id"] for broker in cluster["brokers"]}:
        raise _NotYetError("there is no controller")


def _check_results(results: Iterable[tuple[Any, ...]], accepted: type[KafkaError]) -> None:
    """Raise for the first topic that was refused: aiokafka hands the codes over without looking at them."""
    for name, code, *message in results:
        if code not in (0, accepted.errno):
            raise for_code(code)(": ".join(filter(None, (f"topic {name!r}", *message))))


async def _leaders(admin: AIOKafkaAdminClient) -> dict[str, list[int]]:
    """For every topic of the broker, the leaders of its partitions; below 0 where there is none.

    It asks for all topics, since asking about one that is missing may create it, with a count of its own.
    """
    topics = await admin.describe_topics()
    return {topic["topic"]: [partition["leader"] for partition in topic["partitions"]] for topic in topics}


def _check_topic(name: str, leaders: list[int], partitions: int) -> None:
    if not leaders or min(leaders) < 0:
        raise _NotYetError(f"topic {name!r} has a partition without a leader")
    if len(leaders) != partitions:
        raise BrokerError(
            f"topic {name!r} exists with {len(leaders)} partitions, not {partitions}: "
            f"set the partition count to {len(leaders)}, or delete the topic"
        )


async def _until_done(
    bootstrap: str, attempt: Callable[[AIOKafkaAdminClient], Awaitable[None]], seconds: float
) -> None:
    """Make attempts, each with a client of its own (one whose start failed hangs), until one succeeds."""
    last: Exception | None = None
    try:
        async with asyncio.timeout(seconds):
            for pause in _pauses():
                try:
                    async with _admin(bootstrap) as admin:
                        return await attempt(admin)
                except (KafkaError, OSError, _NotYetError) as error:
                    if isinstance(error, KafkaError) and not error.retriable:
                        raise BrokerError(f"the broker at {bootstrap} refuses: {error}") from error
                    last = error
                await asyncio.sleep(pause)
    except TimeoutError:
        reason = f" ({last})" if last else ""
        raise BrokerError(
            f"the broker at {bootstrap} is not ready after {seconds:g} s{reason}: "
            "start it, or correct the address (KAFKA_BOOTSTRAP_SERVERS, --broker)"
        ) from None


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_REQUEST_MS)
    try:
        await admin.start()
        yield admin
    finally:
        # Closing flushes to a broker that may be gone.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await admin.close()


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
