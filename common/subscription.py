"""The consuming side of a service: its consumer group, its partitions, and how far it has come.

Nothing is ever skipped: a partition that the group has never committed is read from its beginning, by a seek,
and records that the broker has dropped before they were consumed are an error. `auto_offset_reset="earliest"`
would do the first, but also pass over the second in silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from time import monotonic
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from common.broker import consumer_options, stop_consumer
from common.crowd import Crowd
from common.envelope import kind_of
from common.errors import LabError
from common.wiring import Wiring

log = logging.getLogger(__name__)

Batch = dict[TopicPartition, list[Any]]

_POLL_S: Final = 0.25
_PICK_MS: Final = 500
_GATHER_S: Final = 0.01
_LONGEST_GATHERING_S: Final = 0.05
_COLLECT_S: Final = 0.001
"""For which more is collected in a crowd: less makes smaller batches, more makes all of them late."""
_POSITION_LIMIT_S: Final = 0.005
_ANSWER_LIMIT_S: Final = 1.0
_COMMIT_EVERY_S: Final = 0.5
_STOP_LIMIT_S: Final = 3.0
_SWEEP_EVERY_S: Final = 5.0
_LAST_COMMIT_LIMIT_S: Final = 0.3
_DAY_MS: Final = 24 * 60 * 60 * 1000


class OverrunError(LabError):
    """The broker has dropped records that were not consumed yet: their effects are lost."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The place of a record that the client can't read; it fits `common.envelope.Record`."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class BrokerLink:
    """How a service reaches its topics."""

    bootstrap_servers: str
    partitions: int = 6
    fetch_max_wait_ms: int = 100
    max_poll_records: int = 2000
    prefix: str = ""
    """Goes before the names of topics and groups, so that separate runs can share a broker."""
    sole_instance: bool = False
    """Whether this is the only instance of its service: it then takes all partitions, and joins no group.

    The embedded broker has room for no second member, and a restarted one would wait 19 s for the first one's
    session to end."""


class Subscription:
    """A service's place in its consumer group, which commits are kept for.

    `finish` is awaited before partitions may go to another instance: it returns once no batch is in flight.
    `crowd` is told how many orders arrive together.
    """

    def __init__(
        self, wiring: Wiring, link: BrokerLink, finish: Callable[[], Awaitable[None]], crowd: Crowd
    ) -> None:
        self.assigned = asyncio.Event()
        """Whether the broker has given this instance its partitions, perhaps none."""
        self._wiring = wiring
        self._link = link
        self._finish = finish
        self._crowd = crowd
        self._topics = [link.prefix + topic for topic in sorted(wiring.subscriptions)]
        self._consumer: AIOKafkaConsumer | None = None
        self._new: frozenset[TopicPartition] = frozenset()
        self._uncommitted: dict[TopicPartition, int] = {}
        self._reached: dict[TopicPartition, int] = {}
        """How far `poll` has come since the partitions were assigned."""
        self._next_commit = 0.0
        self._next_sweep = 0.0
        self._doubtful = False
        self._heard = {name.encode() for name in wiring.reaction_to}

    async def start(self) -> None:
        """Connect with a fresh consumer: one whose start failed can't be used again (aio-libs/aiokafka#759).

        Raises:
            KafkaError: the broker can't be reached, or refuses.
        """
        await self.stop()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._link.bootstrap_servers,
            group_id=self._link.prefix + self._wiring.group,
            client_id=str(self._wiring).replace("/", "."),
            # A long outage is waited for in the middle of a batch. A member that doesn't poll would be put
            # out of its group, and aiokafka never lets it back in. Rebalances have a limit of their own.
            max_poll_interval_ms=_DAY_MS,
            **consumer_options(fetch_max_wait_ms=self._link.fetch_max_wait_ms),
        )
        if self._link.sole_instance:
            await self._start_alone(self._consumer)
        else:
            self._consumer.subscribe(self._topics, listener=_Rebalancing(self))
            await self._consumer.start()

    async def _start_alone(self, consumer: AIOKafkaConsumer) -> None:
        everything = [
            TopicPartition(topic, partition)
            for topic in self._topics
            for partition in range(self._link.partitions)
        ]
        consumer.assign(everything)
        await consumer.start()
        await self.on_assigned(frozenset(everything))

    async def poll(self, longest_s: float = _POLL_S) -> Batch:
        """Wait a moment, of `longest_s` seconds at most, for records of the partitions that are ours.

        Raises:
            OverrunError: the broker has dropped records that were not consumed yet.
            KafkaError: the broker is in trouble; trying again may help.
        """
        if self._doubtful:
            # One whose inner tasks have died fails for ever, so try again with a fresh one.
            await self.start()
            self._doubtful = False
        if self._consumer is None:
            return {}
        try:
            batch = await self._gather(self._consumer, min(longest_s, _POLL_S))
        except OffsetOutOfRangeError as error:
            raise OverrunError(
                f"{self._wiring} fell behind, and the broker has dropped records that it had not consumed "
                f"({error}): raise the broker's retention, or put fewer orders in flight."
            ) from error
        except NoOffsetForPartitionError:
            await self._begin_uncommitted(self._consumer)
            return {}
        except KafkaError:
            self._doubtful = True
            raise
        except UnicodeDecodeError:
            return self._reach(self._consumer, await self._pick_out_unreadable(self._consumer))
        return self._reach(self._consumer, batch)

    def _reach(self, consumer: AIOKafkaConsumer, batch: Batch) -> Batch:
        """What of a batch is ours: a rebalance may have come between, and have made it its new owner's."""
        ours = consumer.assignment()
        reached = {where: records for where, records in batch.items() if where in ours}
        self._reached |= {where: records[-1].offset + 1 for where, records in reached.items()}
        return reached

    async def _gather(self, consumer: AIOKafkaConsumer, longest_s: float) -> Batch:
        """Wait for records, and then fetch what else is there, or will be in a moment.

        A fetch brings what there was when it was asked for, and from the embedded broker no more than one set
        of records for each partition; and what one transaction tells is one set. So without this, small
        batches would beget small batches, however much there is to do. In a crowd, the records of the next
        milliseconds are waited for; outside of one, nothing is.
        """
        gathered: Batch = {}
        timeout_s, room = longest_s, self._link.max_poll_records
        until = end = 0.0
        try:
            while batch := await consumer.getmany(timeout_ms=1000 * timeout_s, max_records=room):
                if not gathered:
                    now = monotonic()
                    end = now + _LONGEST_GATHERING_S
                    until = now + _COLLECT_S if self._crowd.notice(self._orders(batch), now) else 0.0
                for where, records in batch.items():
                    gathered.setdefault(where, []).extend(records)
                room -= sum(map(len, batch.values()))
                timeout_s = _GATHER_S if _is_behind(consumer, gathered) else until - monotonic()
                timeout_s = min(timeout_s, end - monotonic())
                if room <= 0 or timeout_s <= 0:
                    break
        except BaseException:
            # The client has passed over what is gathered, and nobody will get it: so it is fetched again.
            for where, records in gathered.items():
                if where in consumer.assignment():
                    consumer.seek(where, records[0].offset)
            raise
        return gathered

    def _orders(self, batch: Batch) -> int:
        """How many orders a batch is about, as far as it is our business; two stand for any more."""
        keys: set[bytes | None] = set()
        for record in chain.from_iterable(batch.values()):
            if kind_of(record) in self._heard:
                keys.add(record.key)
                if len(keys) > 1:
                    break
        return len(keys)

    async def done(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note that all up to these offsets is done; they are committed now or a moment later.

        Not for each batch: a commit costs as much as a batch of one record, and what a crash leaves
        uncommitted comes again and is dropped by the inbox.
        """
        self._uncommitted.update(offsets)
        if monotonic() >= self._next_commit:
            await self.commit()

    async def commit(self) -> None:
        """Move the group's offsets; if that fails, the records come again, and the inbox drops them."""
        self._next_commit = monotonic() + _COMMIT_EVERY_S
        offsets, self._uncommitted = self._uncommitted, {}
        if self._consumer is None or not offsets:
            return
        try:
            await self._consumer.commit(offsets)
        except KafkaError as error:
            log.info(
                "%s could not commit offsets; the inbox will drop what comes again: %r", self._wiring, error
            )

    @property
    def partitions(self) -> list[int]:
        """The partitions, of whatever topic, that are ours."""
        ours = self._consumer.assignment() if self._consumer is not None else ()
        return sorted({where.partition for where in ours})

    async def ends(self) -> dict[TopicPartition, int] | None:
        """How far our partitions go at this moment; None if the broker doesn't answer."""
        if self._consumer is None or not self.assigned.is_set():
            return None
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                ends: dict[TopicPartition, int] = await self._consumer.end_offsets(
                    self._consumer.assignment()
                )
        except (TimeoutError, KafkaError):  # it is away, or a rebalance has come between
            return None
        return ends

    async def has_polled(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether `poll` has returned all up to these ends, of the partitions that are still ours."""
        if self._consumer is None or not self.assigned.is_set():
            return False
        behind = [where for where in self._consumer.assignment() & ends.keys() if ends[where] > 0]
        try:
            # A partition that has no position yet is waited for; polling is what gives it one.
            async with asyncio.timeout(_POSITION_LIMIT_S):
                return all([await self._consumer.position(where) >= ends[where] for where in behind])
        except (TimeoutError, KafkaError):
            return False

    def partitions_to_sweep(self) -> list[int]:
        """The partitions whose outbox may hold what another instance has left there.

        Those that were assigned since the last call; and now and then all of ours, since an instance that is
        out of the group already may still commit a batch, and die before it has published it.
        """
        new, self._new = self._new, frozenset()
        if self._consumer is not None and monotonic() >= self._next_sweep:
            self._next_sweep = monotonic() + _SWEEP_EVERY_S
            new |= self._consumer.assignment()
        return sorted({where.partition for where in new})

    async def trouble(self) -> str | None:
        """What keeps the broker from serving us now; None if it does."""
        if self._consumer is None or not self.assigned.is_set():
            return "no partitions assigned yet"
        return await self.silence(_ANSWER_LIMIT_S)

    async def silence(self, limit_s: float) -> str | None:
        """Ask the broker: how it fails to answer, or None if it does, or if we are not connected yet."""
        if self._consumer is None or not self.assigned.is_set():
            return None
        try:
            async with asyncio.timeout(limit_s):
                await self._consumer.topics()
        except TimeoutError:
            return f"no answer within {limit_s:g} s"
        except KafkaError as error:
            return f"no answer: {error}"
        return None

    async def stop(self) -> None:
        """Leave the group; idempotent. It can hang when the broker is gone (aio-libs/aiokafka#1101)."""
        self.assigned.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_COMMIT_LIMIT_S):
                await self.commit()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_LIMIT_S):
                    await stop_consumer(consumer)

    async def drop(self) -> None:
        """Disconnect without a word to the group, and without a commit."""
        self._uncommitted.clear()
        await self.stop()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """After a rebalance: these are ours now."""
        self._new |= partitions
        self._reached.clear()
        self.assigned.set()

    async def on_revoked(self) -> None:
        """Before a rebalance: all may go to another instance."""
        self.assigned.clear()
        self._new = frozenset()
        await self._finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_COMMIT_LIMIT_S):
                await self.commit()

    async def _pick_out_unreadable(self, consumer: AIOKafkaConsumer) -> Batch:
        """A record of each partition, one by one, after the client has failed at one of them.

        It can't be had: aiokafka takes the names of headers for UTF-8, and a stranger's need not be. In its
        stead there is one without anything but its place, for the dead letters.
        """
        found: Batch = {}
        for where in sorted(consumer.assignment()):
            # What was fetched is fetched again: the client may have passed over what it has handed to nobody,
            # in this partition or in others.
            position = self._reached.get(where)
            if position is None:
                position = await consumer.committed(where)
            if position is None:
                position = (await consumer.beginning_offsets([where]))[where]
            consumer.seek(where, position)
            try:
                found |= await consumer.getmany(where, timeout_ms=_PICK_MS, max_records=1)
            except UnicodeDecodeError:
                log.warning("%s: the client can't read %s@%d", self._wiring, where, position)
                consumer.seek(where, position + 1)
                found[where] = [Unreadable(where.topic, where.partition, position)]
        return {where: records for where, records in found.items() if records}

    async def _begin_uncommitted(self, consumer: AIOKafkaConsumer) -> None:
        """Seek the beginning of every partition that the group has never committed."""
        ours = sorted(consumer.assignment())
        committed = await asyncio.gather(*(consumer.committed(where) for where in ours))
        new = [where for where, offset in zip(ours, committed, strict=True) if offset is None]
        for where, offset in (await consumer.beginning_offsets(new)).items() if new else ():
            consumer.seek(where, offset)


def _is_behind(consumer: AIOKafkaConsumer, batch: Batch) -> bool:
    """Whether the broker is known to have more of these partitions."""
    ours = consumer.assignment()
    return any(
        (consumer.highwater(where) or 0) > records[-1].offset + 1
        for where, records in batch.items()
        if where in ours
    )


class _Rebalancing(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Passes aiokafka's calls on, under the names that it wants."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def on_partitions_revoked(self, _: frozenset[TopicPartition]) -> None:
        await self._subscription.on_revoked()

    async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        await self._subscription.on_assigned(assigned)
