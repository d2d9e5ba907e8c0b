"""The observer: an outsider that reads every record of every topic, as any Kafka client could.

No hook inside a service stands in for it: what it shows has crossed the broker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from common.broker import consumer_options, stop_consumer
from common.envelope import kind_of
from common.errors import BrokerError
from common.wiring import DEAD_LETTERS
from compare.metrics import ENDS

log = logging.getLogger(__name__)

_FETCH_MAX_WAIT_MS: Final = 20
"""The observer may be late, for records bear their times; asking often would slow down the observed."""
_POLL_MS: Final = 100
_STOP_LIMIT_S: Final = 3.0


class Observer:
    """Reads the given topics from their beginning, without a consumer group.

    Raises:
        BrokerError: from every method but `stop`, if the broker can't be read from.
    """

    def __init__(self, bootstrap_servers: str, topics: Iterable[str], partitions: int) -> None:
        self.records: list[Any] = []
        """The records so far, in the order in which they were read."""
        self._where = [
            TopicPartition(topic, partition) for topic in topics for partition in range(partitions)
        ]
        options = consumer_options(fetch_max_wait_ms=_FETCH_MAX_WAIT_MS)
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, **options)
        # A connection of its own: a broker answers in turn, and would hold a question behind an empty fetch.
        self._asking = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, **options)
        self.ends: dict[str, list[str]] = {}
        """By order id: the types of the events that told of its end, as they came."""
        self._progress = asyncio.Event()
        self._read = dict.fromkeys(self._where, 0)
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> set[str]:
        """The ids of the orders whose end was told."""
        return set(self.ends)

    async def until_ended(self, order_id: str) -> None:
        """Wait for the end of an order."""
        await self.until_told(order_id, 1)

    async def until_told(self, order_id: str, times: int) -> None:
        """Wait until the end of an order was told so often: an operator may have a failed one tried again."""
        while len(self.ends.get(order_id, ())) < times:
            await self._progress.wait()

    async def start(self) -> None:
        """Connect and begin to read."""
        try:
            with _reading():
                await asyncio.gather(self._consumer.start(), self._asking.start())
                for consumer in (self._consumer, self._asking):
                    consumer.assign(self._where)
                self._asking.pause(*self._where)
                for where, offset in (await self._consumer.beginning_offsets(self._where)).items():
                    self._consumer.seek(where, offset)
                    self._read[where] = offset
        except BrokerError:
            await self.stop()
            raise
        self._task = asyncio.create_task(self._watch())

    async def end_offsets(self) -> dict[TopicPartition, int]:
        """How far each partition goes at this moment."""
        with _reading():
            ends: dict[TopicPartition, int] = await self._asking.end_offsets(self._where)
        return ends

    def has_read(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether everything up to these offsets is in `records`; an error in reading is raised here."""
        if self._task is not None and self._task.done():
            with _reading():
                self._task.result()
        return all(self._read[where] >= offset for where, offset in ends.items())

    async def progress(self, timeout_s: float) -> None:
        """Wait until records have been read, for at most `timeout_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._progress.wait()

    async def stop(self) -> None:
        """Stop reading and disconnect."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, KafkaError):
                await self._task
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await asyncio.gather(stop_consumer(self._consumer), stop_consumer(self._asking))
        except TimeoutError:
            log.warning("The observer gave up disconnecting.")

    async def _watch(self) -> None:
        while True:
            got = await self._consumer.getmany(timeout_ms=_POLL_MS)
            for where, records in got.items():
                self.records += records
                for order_id, type_ in _ends(records):
                    self.ends.setdefault(order_id, []).append(type_)
                self._read[where] = records[-1].offset + 1
            self._progress.set()
            self._progress = asyncio.Event()


def _ends(records: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for record in records:
        type_ = (kind_of(record) or b"").decode(errors="replace")
        if type_ in ENDS and not record.topic.endswith(DEAD_LETTERS):
            yield (record.key or b"").decode(errors="replace"), type_


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        message = f"The observer can't read from the broker: {error}"
        raise BrokerError(message) from error
