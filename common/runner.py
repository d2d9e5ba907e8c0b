"""The thin asyncio shell around a core: it moves bytes between the broker and the core, and decides nothing.

Consumed batch -> core (in the service's own thread, so that the database never blocks the event loop) ->
publish and wait for the acknowledgements -> commit the offsets. Commands from outside (HTTP), retries and
deadlines take the same way from the core on. A deadline is looked at once all that has arrived is consumed:
the answer that it waits for may be among that.

On a rebalance, a batch in flight is finished first; the new owner of a partition then publishes what the old
one left in the outbox for it. Shutdown goes the other way round: finish the batch, commit, leave the group,
publish what HTTP has added, disconnect, close the database; with a limit on each, since a broker that is gone
would hold up every one of them, and the outbox keeps what is left.

Trouble with broker or database is waited out. What waiting can't mend is an error: topics that don't fit, and
records that the broker has dropped before they were consumed.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as DatabaseTimeout

from common.broker import ensure_topics, partition_of
from common.core import Core
from common.crowd import Crowd
from common.envelope import Outgoing
from common.errors import BrokerError, OverloadedError
from common.messages import Message
from common.patience import Patience, StoppingError, until_one_ends
from common.probe import Boundary
from common.publisher import Publisher
from common.subscription import Batch, BrokerLink, Subscription
from common.watch import Readiness, Watch

__all__ = ["BrokerLink", "Runner"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_SUBMIT_LIMIT_S: Final = 5.0
_MOST_UNPUBLISHED: Final = 10_000
"""Records of commands from outside; with more of them waiting, no further command is taken."""
_MOST_TOGETHER: Final = 500
"""Requests that are taken in one transaction."""
_COLLECT_S: Final = 0.002
"""For which requests are collected in a crowd; what each begins has many transactions before it."""
_FINISH_LIMIT_S: Final = 1.0
_STOP_LIMIT_S: Final = 0.8
_REBALANCE_LIMIT_S: Final = 10.0
_SHORTEST_POLL_S: Final = 0.01
_CLEAN_UP_EVERY_S: Final = 60.0
_OF_THE_DATABASE: Final = (OperationalError, InterfaceError, DatabaseTimeout)
"""Errors that another try at once would only wait for again."""
_OF_ONE_LOCK: Final = frozenset({"40001", "40P01", "55P03", "57014"})
"""PostgreSQL's SQLSTATEs of a conflict with another transaction: it is no matter of the whole database."""

Work = Callable[[Connection], Sequence[Message]]
"""Makes the commands of a request, in the transaction that their effect will be part of."""


class _Request(NamedTuple):
    work: Work
    taken: asyncio.Future[None]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Runner:
    """One instance of a service: `start` it, `submit` commands to it, `stop` it.

    `clock` gives the time of decisions, aware and in UTC. `own_thread` is for a service with a process to
    itself: its database then never blocks the event loop. Several in one process are faster without, for
    their threads would fight over the interpreter.
    """

    def __init__(
        self,
        core: Core,
        link: BrokerLink,
        publisher: Publisher,
        *,
        clock: Callable[[], datetime] = _utc_now,
        own_thread: bool = True,
    ) -> None:
        self.core = core
        self.link = link
        self.consumed: dict[TopicPartition, int] = {}
        """By partition: the offset up to which all is consumed, and all that it led to is published."""
        self.crowd = Crowd()
        """Whether several orders are under way, by what the broker brings and what is asked for here."""
        self._publisher = publisher
        self._clock = clock
        self._subscription = Subscription(core.wiring, link, self._finish_batch, self.crowd)
        self._patience = Patience(
            str(core.wiring), database=str(core.database), broker=link.bootstrap_servers
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=str(core.wiring)) if own_thread else None
        self._watch = Watch(core, self._subscription, self._patience, self.in_thread)
        self._progress = asyncio.Event()
        self._batch = asyncio.Lock()
        self._publishing = asyncio.Lock()
        self._requests: deque[_Request] = deque()
        self._taking: asyncio.Task[None] | None = None
        self._closed = False
        self._submitted: list[Outgoing] = []
        self._submission = asyncio.Event()
        self._due_behind: dict[TopicPartition, int] | None = None
        """How far the topics went when something was first found due; None while nothing is."""
        self._next_clean_up = 0.0
        self._killed = False
        self._work: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to work in the background.

        The task that is returned ends when the service is stopped, and fails with a LabError when the service
        can't go on: the topics don't fit, or the broker has dropped records that were not consumed yet.
        """
        self._running = asyncio.create_task(self._run(), name=str(self.core.wiring))
        return self._running

    async def ready(self) -> None:
        """Wait until the broker has given this instance its partitions; a LabError if it can't go on."""
        if self._running is None:
            raise BrokerError(f"{self.core.wiring} is not started.")
        assigned = asyncio.create_task(self._subscription.assigned.wait())
        try:
            await asyncio.wait({assigned, self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            assigned.cancel()
        if self._running.done():
            self._running.result()

    @property
    def failure(self) -> BaseException | None:
        """What has ended the work for good; None if nothing has."""
        if self._running is None or not self._running.done() or self._running.cancelled():
            return None
        return self._running.exception()

    async def submit(self, work: Work) -> None:
        """Take what is asked for from outside; `work` makes the commands of it, or none.

        Returns once they are committed; what they lead to is published soon after. Requests that come while
        another is being taken share a transaction, as long as all of them succeed. So do those that come in a
        crowd a moment after one another.

        Raises:
            OverloadedError: too much waits to be published already.
            SQLAlchemyError: the database can't be used, or others have kept it busy for too long.
        """
        if self._closed:
            raise _closed(self.core)
        waiting = len(self._submitted) + len(self._requests)
        if waiting >= _MOST_UNPUBLISHED:
            raise OverloadedError(f"{waiting} records wait for the broker already")
        request = _Request(work, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._take_requests())
        try:
            async with asyncio.timeout(_SUBMIT_LIMIT_S):
                # Whoever waits may be cancelled. What is asked for may be done all the same.
                await asyncio.shield(request.taken)
        except TimeoutError:
            if request in self._requests:
                # Those that wait behind a write that hangs would wait longer and longer.
                self._requests.remove(request)
                raise DatabaseTimeout(f"not its turn within {_SUBMIT_LIMIT_S:g} s") from None
            await request.taken

    async def progress(self, timeout_s: float) -> None:
        """Wait until a batch has been processed, for at most `timeout_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._progress.wait()

    async def readiness(self) -> Readiness:
        """Ask database and broker how they are; it takes a second or so at most."""
        return await self._watch.readiness()

    def request_failed(self, error: SQLAlchemyError) -> None:
        """Note that a request could not be served for want of the database."""
        self._watch.request_failed(error)

    async def stop(self) -> None:
        """Finish the batch in flight, publish what is committed, leave the group, and close the database."""
        self._patience.stop()
        if self._work is not None:
            await asyncio.wait({self._work}, timeout=_FINISH_LIMIT_S)
            self._work.cancel()
        await self._end()

    async def kill(self) -> None:
        """End as a process does that is killed: nothing is finished, committed, published or said goodbye to.

        For a lab, which then makes another runner over the same database.
        """
        self._killed = True
        self._refuse_requests()
        self._patience.stop()
        if self._work is not None:
            self._work.cancel()
        await self._end()

    async def _end(self) -> None:
        """Wait until the work is over, and let go of thread and database."""
        if self._running is not None:
            await asyncio.wait({self._running})
            # Whoever wants to know can ask; asyncio need not complain of an error that nobody has seen.
            _ = self.failure
        self._refuse_requests()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)
        self.core.database.close()

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a blocking function in the service's own thread, where its writes are done one by one."""
        if self._thread is None:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _take_requests(self) -> None:
        while self._requests:
            waiting = len(self._requests)
            if self.crowd.notice(waiting, monotonic()) and waiting < _MOST_TOGETHER:
                await asyncio.sleep(_COLLECT_S)
            together = [self._requests.popleft() for _ in range(min(len(self._requests), _MOST_TOGETHER))]
            if not together:
                return  # they were refused meanwhile, or given up
            try:
                await self.in_thread(self._take, together, asyncio.get_running_loop())
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits is told
                for request in together:
                    _tell(request, error)

    def _take(self, requests: Sequence[_Request], loop: asyncio.AbstractEventLoop) -> None:
        """Take requests in one transaction; those that can't share it, each in one of its own."""
        alone = self._take_together(requests, loop)
        for index, request in enumerate(alone):
            error = self._take_alone(request, loop)
            if _is_of_the_database(error):
                # It would only be waited for once more by each of the others.
                loop.call_soon_threadsafe(self._taken, alone[index + 1 :], [], error)
                return

    def _take_together(
        self, requests: Sequence[_Request], loop: asyncio.AbstractEventLoop
    ) -> Sequence[_Request]:
        """Take requests in one transaction, in turn, and return those that have to be tried alone.

        Each finds what those before it have done. One that fails is rolled back by itself.
        """
        taken: list[_Request] = []
        alone: list[_Request] = []
        refused: list[tuple[_Request, Exception]] = []
        outgoing: list[Outgoing] = []
        try:
            with self.core.uncounted_if_failed(), self.core.database.write() as transaction:
                for request in requests:
                    try:
                        with self.core.uncounted_if_failed(), transaction.begin_nested():
                            told = self._submit(transaction, request.work(transaction))
                    except SQLAlchemyError as error:
                        if _is_of_the_database(error):
                            raise
                        # Alone, it holds up nobody, and nobody's locks hold it up for long.
                        alone.append(request)
                    except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits for it is told
                        refused.append((request, error))
                    else:
                        taken.append(request)
                        outgoing += told
        except Exception as error:  # noqa: BLE001 - as above
            if not _is_of_the_database(error):
                return requests
            loop.call_soon_threadsafe(self._taken, requests, [], error)
            return ()
        # From here, and not by whoever waits for this: that may have been cancelled, and what is committed
        # must go out.
        loop.call_soon_threadsafe(self._taken, taken, outgoing, None)
        for request, why in refused:
            loop.call_soon_threadsafe(self._taken, [request], [], why)
        return alone

    def _take_alone(self, request: _Request, loop: asyncio.AbstractEventLoop) -> Exception | None:
        """Take a request in a transaction of its own, and return the error that it ends with, if any."""
        outgoing: list[Outgoing] = []
        failure: Exception | None = None
        try:
            with self.core.uncounted_if_failed(), self.core.database.write() as transaction:
                outgoing = self._submit(transaction, request.work(transaction))
        except Exception as error:  # noqa: BLE001 - as above
            outgoing, failure = [], error
        loop.call_soon_threadsafe(self._taken, [request], outgoing, failure)
        return failure

    def _submit(self, transaction: Connection, commands: Sequence[Message]) -> list[Outgoing]:
        placed = [(one, partition_of(one.order_id.encode(), self.link.partitions)) for one in commands]
        return self.core.submit(transaction, placed, self._clock())

    def _taken(self, requests: Sequence[_Request], outgoing: list[Outgoing], error: Exception | None) -> None:
        for request in requests:
            _tell(request, error)
        if outgoing:
            self._submitted += outgoing
            self._submission.set()

    def _refuse_requests(self) -> None:
        """Take nothing more, and tell those who wait."""
        self._closed = True
        while self._requests:
            _tell(self._requests.popleft(), _closed(self.core))

    async def _run(self) -> None:
        self._work = asyncio.create_task(self._connect_and_work())
        try:
            await self._work
        except (StoppingError, asyncio.CancelledError):
            if not self._patience.stopping:
                raise
        finally:
            await self._disconnect()

    async def _connect_and_work(self) -> None:
        await until_one_ends(self._serve(), self._watch.run())

    async def _serve(self) -> None:
        await self._patience.unless_stopping(self._connect())
        await until_one_ends(self._consume(), self._relay())

    async def _connect(self) -> None:
        link, wiring = self.link, self.core.wiring
        topics = [link.prefix + topic for topic in wiring.all_topics]
        # Without a limit, it tries again by itself, and gives up only for what trying again can't mend.
        topics_exist = ensure_topics(link.bootstrap_servers, topics, link.partitions, timeout=math.inf)
        await self._patience.complaining(topics_exist, f"no broker at {link.bootstrap_servers} yet")
        await self._patience.insist("connecting", self._connect_once)

    async def _connect_once(self) -> None:
        await self._publisher.start()
        await self._subscription.start()

    async def _consume(self) -> None:
        while not self._patience.stopping:
            batch = await self._patience.insist("consuming", self._poll)
            async with self._batch:
                await self._publish_inherited()
                if batch:
                    await self._handle(batch)
                else:
                    await self._subscription.commit()
                    await self._patience.insist("writing", lambda: self.in_thread(self.core.tidy))
                await self._wake()
                await self._clean_up()

    async def _poll(self) -> Batch:
        # What is due has to wait for what has arrived, and may do so for a while: that is no reason to spin.
        longest_s = max(_SHORTEST_POLL_S, self.core.due_in(self._clock()))
        return await self._patience.unless_stopping(self._subscription.poll(longest_s))

    async def _handle(self, batch: Batch) -> None:
        records = [record for part in batch.values() for record in part]
        now = self._clock()
        outgoing = await self._patience.insist(
            "writing", lambda: self.in_thread(self.core.process, records, now)
        )
        async with self._publishing:
            await self._publish(outgoing)
        self.core.passing(Boundary.PUBLISHED)
        offsets = {where: part[-1].offset + 1 for where, part in batch.items()}
        await self._subscription.done(offsets)
        self.consumed |= offsets
        self._moved()
        self.core.passing(Boundary.ACKNOWLEDGED)

    async def _wake(self) -> None:
        """Go on with the retries and deadlines that are due."""
        now = self._clock()
        if self.core.due_in(now) > 0:
            self._due_behind = None
            return
        # What has arrived by the time at which something is due comes before it; what arrives later doesn't.
        self._due_behind = self._due_behind or await self._subscription.ends()
        if self._due_behind is None or not await self._subscription.has_polled(self._due_behind):
            return
        self._due_behind = None
        partitions = self._subscription.partitions
        outgoing = await self._patience.insist(
            "writing", lambda: self.in_thread(self.core.wake, partitions, now)
        )
        async with self._publishing:
            await self._publish(outgoing)
        if outgoing:
            self._moved()

    async def _clean_up(self) -> None:
        """Now and then, forget what is too old to come again."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_clean_up:
            return
        now = self._clock()
        more = await self._patience.insist("writing", lambda: self.in_thread(self.core.clean_up, now))
        self._next_clean_up = loop.time() + (0 if more else _CLEAN_UP_EVERY_S)

    def _moved(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    async def _relay(self) -> None:
        """Publish what `submit` has committed, all that waits at once."""
        while True:
            await self._submission.wait()
            self._submission.clear()
            await self._publish_submitted()

    async def _publish_submitted(self) -> None:
        async with self._publishing:
            await self._publish(list(self._submitted))

    async def _publish_inherited(self) -> None:
        """Publish what an earlier run, or another instance, has left in the outbox of our partitions."""
        partitions = self._subscription.partitions_to_sweep()
        if not partitions:
            return
        self.core.look_again()
        self._due_behind = None
        # Within the lock, so that nothing is taken for left that is being published at this moment.
        async with self._publishing:
            total = await self._publish_unsent(partitions)
        if total:
            log.info("%s has published %d records that were left in the outbox", self.core.wiring, total)

    async def _publish_unsent(self, partitions: Sequence[int]) -> int:
        """Publish what is in the outbox, page by page; how many records it were."""
        after = total = 0
        until = await self._patience.insist("reading", lambda: self.in_thread(self.core.latest_parcel))

        async def read() -> list[Outgoing]:
            return await self.in_thread(self.core.unsent, partitions, after, until)

        while left := await self._patience.insist("reading", read):
            await self._publish(left)
            after, total = left[-1].parcel, total + len(left)
        return total

    async def _publish(self, records: list[Outgoing]) -> None:
        """Publish until it is acknowledged; the caller holds the lock."""
        if records:
            await self._patience.insist("publishing", lambda: self._publisher.publish(records))
            await self.in_thread(self.core.acknowledge, records)
        if self._submitted:
            published = {record.parcel for record in records}
            self._submitted = [record for record in self._submitted if record.parcel not in published]

    async def _finish_batch(self) -> None:
        """Wait until no batch is in flight, but not for ever: what comes again is dropped by the inbox."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_REBALANCE_LIMIT_S), self._batch:
                pass

    async def _disconnect(self) -> None:
        if self._killed:
            await asyncio.gather(
                _within_limit(self._subscription.drop(), "dropping the consumer"),
                _within_limit(self._publisher.stop(), "dropping the producer"),
            )
            return
        await asyncio.gather(
            _within_limit(self._subscription.stop(), "leaving the consumer group"),
            _within_limit(self._flush(), "publishing what is left"),
        )
        await _within_limit(self._publisher.stop(), "disconnecting the producer")

    async def _flush(self) -> None:
        """Publish what HTTP has added at the last moment; what fails stays in the outbox."""
        if self._submitted:
            await self._publish_submitted()
        await self.in_thread(self.core.tidy)


def _is_of_the_database(error: Exception | None) -> bool:
    """Whether it is the whole database that can't be used, and not what one request wants of it."""
    if not isinstance(error, _OF_THE_DATABASE):
        return False
    return getattr(getattr(error, "orig", None), "sqlstate", None) not in _OF_ONE_LOCK


def _closed(core: Core) -> DatabaseTimeout:
    return DatabaseTimeout(f"{core.wiring} is stopping")


def _tell(request: _Request, error: BaseException | None) -> None:
    if request.taken.done():
        return
    if error is None:
        request.taken.set_result(None)
    else:
        request.taken.set_exception(error)
        # Whoever waited for it may be gone; asyncio need not complain of that.
        request.taken.exception()


async def _within_limit(work: Coroutine[Any, Any, None], what: str) -> None:
    try:
        async with asyncio.timeout(_STOP_LIMIT_S):
            await work
    except (StoppingError, TimeoutError, BrokerError, KafkaError, SQLAlchemyError) as error:
        log.warning("Gave up %s: %r", what, error)
