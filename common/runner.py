"""The thin asyncio shell around a core: it moves bytes between the broker and the core, and decides nothing.

Consumed batch -> core (in the service's own thread, so that the database never blocks the event loop) -> publish and
wait for the acknowledgements -> commit the offsets. Commands from outside (HTTP) take the same way from the core on.

On a rebalance, a batch in flight is finished first; the new owner of a partition then publishes what the old one
left in the outbox for it. Shutdown goes the other way round: not ready, finish the batch, commit, leave the group,
publish what HTTP has added, disconnect, close the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from common.broker import consumer_options, ensure_topics, partition_of
from common.core import Core
from common.envelope import Outgoing
from common.errors import BrokerError
from common.messages import Message
from common.publisher import Publisher

log = logging.getLogger(__name__)

T = TypeVar("T")
Batch = dict[TopicPartition, list[Any]]

_POLL_MS: Final = 250
"""How long an idle poll waits; what is acknowledged is dropped from the outbox at least this often."""
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 5.0
_STOP_LIMIT_S: Final = 3.0
_REBALANCE_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class BrokerLink:
    """How a service reaches its topics."""

    bootstrap_servers: str
    partitions: int = 6
    fetch_max_wait_ms: int = 100
    max_poll_records: int = 500
    prefix: str = ""
    """Goes before the names of topics and groups, so that separate runs can share a broker."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a service can do its work: each is None when all is well, or says what is wrong."""

    database: str | None
    broker: str | None
    backlog: int

    @property
    def ready(self) -> bool:
        """Whether nothing is wrong."""
        return self.database is None and self.broker is None


class Runner:
    """One instance of a service: `start` it, `submit` commands to it, `stop` it.

    `clock` gives the time of decisions, aware and in UTC.
    """

    def __init__(
        self, core: Core, link: BrokerLink, publisher: Publisher, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.core = core
        self.consumed: dict[TopicPartition, int] = {}
        """By partition: the offset up to which everything is consumed, and all that it led to is published."""
        self.link = link
        self._publisher = publisher
        self._clock = clock
        self._consumer: AIOKafkaConsumer | None = None
        self._trouble: str | None = "not connected yet"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=str(core.wiring))
        self._stopping = asyncio.Event()
        self._assigned = asyncio.Event()
        self._progress = asyncio.Event()
        self._batch = asyncio.Lock()
        self._publishing = asyncio.Lock()
        self._submitted: asyncio.Queue[list[Outgoing]] = asyncio.Queue()
        self._inherited: list[int] = []
        self._poll: asyncio.Future[Batch] | None = None
        self._running: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to work in the background.

        The task that is returned ends when the service is stopped, and fails with a LabError when the service can't
        go on: the topics don't fit, or the broker has dropped records that were not consumed yet.
        """
        self._running = asyncio.create_task(self._run(), name=str(self.core.wiring))
        return self._running

    async def ready(self) -> None:
        """Wait until the broker has given this instance its partitions; a LabError if it can't go on."""
        if self._running is None:
            message = f"{self.core.wiring} is not started."
            raise BrokerError(message)
        assigned = asyncio.ensure_future(self._assigned.wait())
        done, _ = await asyncio.wait({assigned, self._running}, return_when=asyncio.FIRST_COMPLETED)
        assigned.cancel()
        if self._running in done:
            self._running.result()

    async def submit(self, work: Callable[[Connection], Message | None]) -> None:
        """Take a command from outside: `work` makes it within the transaction that its effect will be part of.

        Returns once it is committed; it is published soon after. `work` may return None for nothing to do.
        """
        outgoing = await self.in_thread(self._submit, work)
        if outgoing:
            self._submitted.put_nowait(outgoing)

    async def progress(self, timeout_s: float) -> None:
        """Wait until a batch has been processed, for at most `timeout_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._progress.wait()

    async def readiness(self) -> Readiness:
        """Ask database and broker how they are."""
        try:
            backlog = await self.in_thread(self.core.backlog)
        except SQLAlchemyError as error:
            return Readiness(database=str(error), broker=self._trouble, backlog=0)
        return Readiness(database=None, broker=await self._broker_trouble(), backlog=backlog)

    async def stop(self) -> None:
        """Finish the batch in flight, publish what is committed, leave the group, and close the database."""
        self._stopping.set()
        if self._poll is not None:
            self._poll.cancel()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=_STOP_LIMIT_S)
            self._running.cancel()
            await asyncio.wait({self._running})
        await asyncio.to_thread(self._thread.shutdown)
        self.core.database.close()

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a blocking function in the service's own thread, where all its database work is done in turn."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _submit(self, work: Callable[[Connection], Message | None]) -> list[Outgoing]:
        with self.core.database.write() as transaction:
            command = work(transaction)
            if command is None:
                return []
            partition = partition_of(command.order_id.encode(), self.link.partitions)
            return self.core.submit(transaction, command, partition, self._clock())

    async def _run(self) -> None:
        relay = asyncio.create_task(self._relay())
        try:
            await self._connect()
            await self._consume()
        finally:
            self._assigned.clear()
            await self._disconnect(relay)

    async def _connect(self) -> None:
        """Connect with fresh clients until it succeeds: one whose start has failed can't be used again (#759)."""
        for delay in _backoff():
            try:
                await self._connect_once()
            except (BrokerError, KafkaError) as error:
                self._trouble = str(error)
                log.warning("%s waits for the broker: %s", self.core.wiring, error)
                await self._disconnect_consumer()
            else:
                self._trouble = None
                return
            if await self._stopped_within(delay):
                return

    async def _connect_once(self) -> None:
        link, wiring = self.link, self.core.wiring
        topics = [link.prefix + topic for topic in sorted(wiring.topics)]
        await ensure_topics(link.bootstrap_servers, topics, link.partitions)
        await self._publisher.start()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=link.bootstrap_servers,
            group_id=link.prefix + wiring.group,
            client_id=str(wiring).replace("/", "."),
            **consumer_options(fetch_max_wait_ms=link.fetch_max_wait_ms),
        )
        self._consumer.subscribe(
            [link.prefix + topic for topic in wiring.subscriptions], listener=_Rebalancing(self)
        )
        await self._consumer.start()

    async def _consume(self) -> None:
        while not self._stopping.is_set():
            batch = await self._poll_once()
            async with self._batch:
                await self._publish_inherited()
                if batch:
                    await self._handle(batch)
                else:
                    await self._tidy()

    async def _poll_once(self) -> Batch:
        """Wait for records; none when there are none, when the service is to stop, or when the broker is in trouble."""
        if self._consumer is None:
            return {}
        polling = self._consumer.getmany(timeout_ms=_POLL_MS, max_records=self.link.max_poll_records)
        self._poll = asyncio.ensure_future(polling)
        try:
            return await self._poll
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        except OffsetOutOfRangeError as error:
            # Never skip: what the broker has dropped before it was consumed is a lost effect.
            message = (
                f"{self.core.wiring} fell behind, and the broker has dropped records that it had not consumed: {error}. "
                "Raise the broker's retention, or put fewer orders in flight."
            )
            raise BrokerError(message) from error
        except NoOffsetForPartitionError as error:
            log.debug("%s begins a partition: %s", self.core.wiring, error)
            await self._begin_where_uncommitted(self._consumer.assignment())
        except KafkaError as error:
            self._trouble = str(error)
            log.warning("%s can't consume: %r", self.core.wiring, error)
            await self._stopped_within(_FIRST_RETRY_S)
        return {}

    async def _handle(self, batch: Batch) -> None:
        assigned = self._consumer.assignment() if self._consumer else frozenset()
        mine = {where: records for where, records in batch.items() if where in assigned}
        records = [record for part in mine.values() for record in part]
        outgoing = await self._process(records)
        if outgoing is None or not await self._publish(outgoing):
            return  # Stopping: the offsets stay uncommitted, so all of this comes again, and the outbox has the rest.
        offsets = {where: part[-1].offset + 1 for where, part in mine.items()}
        await self._commit(offsets)
        self.consumed |= offsets
        self._progress.set()
        self._progress = asyncio.Event()

    async def _process(self, records: Sequence[Any]) -> list[Outgoing] | None:
        """Let the core take the records, again and again while the database is in trouble; None when stopping."""
        for delay in _backoff():
            try:
                return await self.in_thread(self.core.process, records, self._clock())
            except SQLAlchemyError as error:
                log.error("%s can't use its database, and tries again: %s", self.core.wiring, error)  # noqa: TRY400 - not a bug here
            if await self._stopped_within(delay):
                return None
        return None

    async def _publish(self, records: list[Outgoing]) -> bool:
        """Publish until it is acknowledged; False when stopping, which leaves the records in the outbox."""
        if not records:
            return True
        async with self._publishing:
            for delay in _backoff():
                try:
                    await self._publisher.publish(records)
                except BrokerError as error:
                    self._trouble = str(error)
                    log.warning("%s can't publish, and tries again: %s", self.core.wiring, error)
                else:
                    self._trouble = None
                    await self.in_thread(self.core.acknowledge, records)
                    return True
                if await self._stopped_within(delay):
                    return False
        return False

    async def _publish_inherited(self) -> None:
        """Publish what an earlier run, or an earlier owner of the partitions, has left in the outbox."""
        if self._inherited:
            partitions, self._inherited = self._inherited, []
            left = await self.in_thread(self.core.unsent, partitions)
            if left:
                log.info("%s publishes %d records that were left in the outbox", self.core.wiring, len(left))
            await self._publish(left)

    async def _relay(self) -> None:
        """Publish what `submit` has committed, all that waits at once."""
        while True:
            records = await self._submitted.get()
            while not self._submitted.empty():
                records += self._submitted.get_nowait()
            await self._publish(records)

    async def _tidy(self) -> None:
        try:
            await self.in_thread(self.core.tidy)
        except SQLAlchemyError as error:
            log.error("%s can't use its database: %s", self.core.wiring, error)  # noqa: TRY400 - not a bug here

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self._consumer is None or not offsets:
            return
        try:
            await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError, KafkaError) as error:
            log.info("%s could not commit offsets; the inbox will drop what comes again: %r", self.core.wiring, error)

    async def revoked(self, _: frozenset[TopicPartition]) -> None:
        """Before a rebalance: finish the batch in flight."""
        self._assigned.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_REBALANCE_LIMIT_S), self._batch:
                pass

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """After a rebalance: begin where the group left off, with what the outbox still holds."""
        await self._begin_where_uncommitted(partitions)
        self._inherited = sorted({where.partition for where in partitions})
        self._assigned.set()

    async def _begin_where_uncommitted(self, partitions: frozenset[TopicPartition]) -> None:
        """Start partitions that the group has never committed at their beginning.

        By hand, since `auto_offset_reset="earliest"` would also skip silently over records that were dropped.
        """
        if self._consumer is None:
            return
        new = [where for where in partitions if await self._consumer.committed(where) is None]
        for where, offset in (await self._consumer.beginning_offsets(new)).items() if new else ():
            self._consumer.seek(where, offset)

    async def _broker_trouble(self) -> str | None:
        if self._trouble is not None or self._consumer is None:
            return self._trouble
        if not self._assigned.is_set():
            return "no partitions assigned yet"
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await self._consumer.topics()
        except (KafkaError, TimeoutError) as error:
            return f"no answer: {error!r}"
        return None

    async def _stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _disconnect(self, relay: asyncio.Task[None]) -> None:
        await self._disconnect_consumer()
        await _within_limit(self._flush(), "publishing what is left")
        relay.cancel()
        await _within_limit(self._publisher.stop(), "disconnecting the producer")

    async def _flush(self) -> None:
        """Publish what HTTP has added at the last moment; what fails stays in the outbox."""
        while not self._submitted.empty():
            await self._publish(self._submitted.get_nowait())
        async with self._publishing:
            await self.in_thread(self.core.tidy)

    async def _disconnect_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _within_limit(consumer.stop(), "leaving the consumer group")


class _Rebalancing(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Passes aiokafka's calls on, under the names that it wants."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        await self._runner.revoked(revoked)

    async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        await self._runner.assigned(assigned)


def _backoff() -> Iterator[float]:
    """Seconds to wait before each next try, doubling up to a limit, for ever."""
    delay = _FIRST_RETRY_S
    while True:
        yield delay
        delay = min(2 * delay, _LAST_RETRY_S)


async def _within_limit(work: Coroutine[Any, Any, None], what: str) -> None:
    """Aiokafka's stops can hang when the broker is gone (#1101)."""
    try:
        async with asyncio.timeout(_STOP_LIMIT_S):
            await work
    except (TimeoutError, BrokerError, KafkaError, SQLAlchemyError) as error:
        log.warning("Gave up %s: %r", what, error)
