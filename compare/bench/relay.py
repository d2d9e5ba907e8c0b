"""The raw relay: the limit of what the broker, its client and this machine can do for a mode.

It moves as many records of the same sizes over the same topics and hops, with the same clients and settings,
but there is no database, no validation and no logic: a service looks up, by the id of what arrives, what to
send on, and sends it with the same key.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, ClassVar, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from common.broker import consumer_options, partition_of, producer_options, stop_consumer
from common.crowd import Crowd
from common.domain.order import OrderStatus
from common.errors import LabError
from common.messages import PlaceOrder
from common.patience import until_one_ends
from common.wiring import Mode, Wiring
from compare.bench.counting import Spent
from compare.bench.fleet import Fleet
from compare.bench.load import DECLINED_CENTS
from compare.bench.parts import Ground, Part, TellEnds
from compare.bench.remote import Kind
from compare.bench.subject import Expected
from compare.bench.templates import Script, Template, script

_POLL_MS: Final = 250
_COMMIT_EVERY_S: Final = 0.5
_STOP_LIMIT_S: Final = 3.0
_COLLECT_S: Final = 0.002
"""For which records are collected in a crowd; with less, orchestrated ones get into small batches."""

Outbound = dict[tuple[str, int], list[tuple[bytes, Template]]]
"""By topic and partition: keys, and what to send with them."""


@dataclass
class _Waiting:
    """What has arrived and is not passed on yet."""

    outbound: Outbound = field(default_factory=lambda: defaultdict(list))
    ends: list[tuple[str, OrderStatus]] = field(default_factory=list)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    placed: list[asyncio.Future[None]] = field(default_factory=list)
    """Of those who wait until their orders are sent."""

    def orders(self) -> int:
        """How many orders they are of."""
        return len({key for messages in self.outbound.values() for key, _ in messages})


class RelayPart:
    """What stands in for one instance of a service."""

    def __init__(self, mode: Mode, wiring: Wiring, ground: Ground, tell: TellEnds) -> None:
        self._wiring = wiring
        self._link = ground.conditions.link(ground.prefix)
        self._tell = tell
        self._script: Script = script(mode, ground.load, ground.prefix)
        self._then = self._script.then[wiring.name]
        self._id_at = self._script.id_at
        self._spent = Spent()
        self._work: asyncio.Task[None] | None = None
        self._assigned = asyncio.Event()
        self._waiting = _Waiting()
        self._crowd = Crowd()
        self._arrived = asyncio.Event()
        self._topics = [ground.prefix + topic for topic in sorted(wiring.subscriptions)]
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Be ready to work.

        Raises:
            KafkaError: the broker can't be reached.
        """
        link = self._link
        self._producer = AIOKafkaProducer(bootstrap_servers=link.bootstrap_servers, **producer_options())
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=link.bootstrap_servers,
            group_id=link.prefix + self._wiring.group,
            **consumer_options(fetch_max_wait_ms=link.fetch_max_wait_ms),
        )
        if link.sole_instance:
            partitions = range(link.partitions)
            self._consumer.assign(
                [TopicPartition(topic, one) for topic in self._topics for one in partitions]
            )
            self._assigned.set()
        else:
            self._consumer.subscribe(self._topics, listener=_Assigned(self._assigned))
        await self._producer.start()
        await self._consumer.start()
        self._work = asyncio.create_task(
            until_one_ends(self._poll(self._consumer), self._pass_on(self._consumer))
        )
        await self._assigned.wait()

    def check(self) -> None:
        """Return at once, or raise a LabError if it can't go on."""
        if self._work is None or not self._work.done() or self._work.cancelled():
            return
        error = self._work.exception()
        if isinstance(error, OffsetOutOfRangeError):
            message = (
                f"the relay of {self._wiring} fell behind, and the broker has dropped what it had not read"
            )
            raise LabError(message) from error
        raise LabError(f"the relay of {self._wiring} has died: {error!r}") from error

    async def place(self, orders: Sequence[PlaceOrder]) -> None:
        """Send what each of these orders begins with; return once the broker has it."""
        placed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outbound = self._waiting.outbound
        self._waiting.placed.append(placed)
        for order in orders:
            template = self._script.first[order.price_cents == DECLINED_CENTS]
            key = order.order_id.encode()
            outbound[template.topic, partition_of(key, self._link.partitions)].append((key, template))
        self._arrived.set()
        await placed

    async def spent(self) -> Spent:
        """What it has spent so far."""
        return self._spent + Spent()

    async def stop(self) -> None:
        """End; idempotent."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        consumer, producer, self._consumer, self._producer = self._consumer, self._producer, None, None
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_LIMIT_S):
                if consumer is not None:
                    await stop_consumer(consumer)
                if producer is not None:
                    await producer.stop()

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                batch = await consumer.getmany(timeout_ms=_POLL_MS, max_records=self._link.max_poll_records)
            except NoOffsetForPartitionError as error:
                # Its topics are new: it begins where they do.
                for where in error.args:
                    consumer.seek(where, 0)
                continue
            self._take(batch)

    def _take(self, batch: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """Put what these records lead to with what waits to be sent."""
        outbound, ends = self._waiting.outbound, self._waiting.ends
        then, id_at = self._then, self._id_at
        for where, records in batch.items():
            for record in records:
                template = then.get(record.headers[id_at][1])
                if template is None:
                    continue
                outbound[template.topic, where.partition].append((record.key, template))
                if template.end is not None:
                    ends.append((record.key.decode(), template.end))
            self._waiting.offsets[where] = records[-1].offset + 1
        if batch:
            self._arrived.set()

    async def _pass_on(self, consumer: AIOKafkaConsumer) -> None:
        """Send all that waits at once; what arrives meanwhile is the next to be sent.

        Those of few orders go out as they come. Of many, some are collected first: of the embedded broker, a
        consumer gets one set of records per fetch and partition, as it was sent, be it small or large.
        """
        next_commit = 0.0
        done: dict[TopicPartition, int] = {}
        while True:
            await self._arrived.wait()
            if self._crowd.notice(self._waiting.orders(), monotonic()):
                await asyncio.sleep(_COLLECT_S)
            self._arrived.clear()
            sent, self._waiting = self._waiting, _Waiting()
            if sent.outbound:
                await self._send(sent.outbound)
            if sent.ends:
                self._tell(sent.ends)
            for placed in sent.placed:
                if not placed.done():
                    placed.set_result(None)
            done |= sent.offsets
            if done and monotonic() >= next_commit:
                next_commit = monotonic() + _COMMIT_EVERY_S
                # What a rebalance has taken away is another's.
                with suppress(KafkaError):
                    await consumer.commit(done)
                done = {}

    async def _send(self, outbound: Outbound) -> None:
        await asyncio.gather(*(self._send_to(*where, messages) for where, messages in outbound.items()))
        for messages in outbound.values():
            self._spent.records += len(messages)
            self._spent.bytes += sum(template.size for _, template in messages)

    async def _send_to(self, topic: str, partition: int, messages: Sequence[tuple[bytes, Template]]) -> None:
        if self._producer is None:
            raise LabError("the relay is not started")
        waiting = list(reversed(messages))
        while waiting:
            batch = self._producer.create_batch()
            while waiting:
                key, template = waiting[-1]
                added = batch.append(key=key, value=template.value, timestamp=None, headers=template.headers)
                if added is None:
                    break
                waiting.pop()
            batch.close()
            await (await self._producer.send_batch(batch, topic, partition=partition))


class _Assigned(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Notes that the group has given this member its partitions."""

    def __init__(self, assigned: asyncio.Event) -> None:
        self._assigned = assigned

    def on_partitions_revoked(self, _: frozenset[TopicPartition]) -> None:
        pass

    def on_partitions_assigned(self, _: frozenset[TopicPartition]) -> None:
        self._assigned.set()


class RelaySubject(Fleet):
    """The raw relay of one mode's records."""

    kind: ClassVar[Kind] = "relay"
    has_database: ClassVar[bool] = False

    def __init__(self, mode: Mode, ground: Ground) -> None:
        super().__init__(relay_of(mode.name), mode, ground)
        self._ends: Counter[OrderStatus] = Counter()
        self._again = 0

    def local(self, wiring: Wiring) -> Part:
        """What stands in for a service in this process."""
        return RelayPart(self.mode, wiring, self.ground, self.tell)

    def tell(self, ends: Sequence[tuple[str, OrderStatus]]) -> None:
        """Note that the last record of orders was sent."""
        for order_id, status in ends:
            if order_id in self.open:
                self._ends[status] += 1
                super().tell([(order_id, status)])
            else:
                self._again += 1

    async def rests(self) -> bool:
        """Nothing comes after the last record of each order."""
        return True

    async def judge(self, expected: Mapping[str, Expected]) -> tuple[str, ...]:
        """Whether as many orders of each kind were carried to their end as there were, and none twice."""
        due = Counter(one.status for one in expected.values())
        faults = [
            f"{self._ends[status]} orders were carried to {status}, not {due[status]}"
            for status in due | self._ends
            if self._ends[status] != due[status]
        ]
        if self._again:
            faults.append(f"{self._again} times, the last record of an order came again")
        return tuple(faults)


def relay_of(mode: str) -> str:
    """What the relay of a mode's records is called."""
    return f"relay of {mode}"
