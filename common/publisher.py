"""Publishing the outbox: in order per partition, acknowledged by the broker before it counts as sent."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from common.broker import producer_options
from common.envelope import Outgoing
from common.errors import BrokerError


class Publisher(Protocol):
    """Where a service's messages go; a lab may put another one between."""

    async def start(self) -> None:
        """Connect, unless that is done; BrokerError if the broker can't be reached."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Return once the broker has acknowledged all of them; BrokerError if some may not have arrived."""

    async def stop(self) -> None:
        """Disconnect; idempotent."""


class KafkaPublisher:
    """Publishes with aiokafka, a batch per partition.

    Without the producer's idempotence (it hangs when the broker dies, aio-libs/aiokafka#1101): what is sent
    twice has the same id, and the consumer's inbox removes it.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._producer: AIOKafkaProducer | None = None
        self._doubtful = False

    async def start(self) -> None:
        """Connect, unless that is done; BrokerError if the broker can't be reached."""
        if self._producer is not None:
            return
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap_servers, **producer_options())
        try:
            await producer.start()
        except KafkaError as error:
            await producer.stop()
            raise BrokerError(f"can't publish to {self._bootstrap_servers}: {error}") from error
        self._producer = producer

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Return once the broker has acknowledged all of them; BrokerError if some may not have arrived."""
        if self._doubtful:
            # A producer whose sender has crashed fails for ever, so try again with a fresh one.
            await self.stop()
            await self.start()
            self._doubtful = False
        by_partition: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        for record in records:
            by_partition[record.topic, record.partition].append(record)
        sending = (self._publish_partition(*where, batch) for where, batch in by_partition.items())
        # Each is waited for: what is tried again must not run beside what is still under way.
        for outcome in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(outcome, KafkaError):
                self._doubtful = True
                raise BrokerError(f"not all {len(records)} records are acknowledged: {outcome}") from outcome
            if outcome is not None:
                raise outcome

    async def stop(self) -> None:
        """Disconnect; idempotent."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _publish_partition(self, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
        if self._producer is None:
            raise BrokerError("the publisher is not started")
        waiting = list(reversed(records))
        while waiting:
            batch = self._producer.create_batch()
            while waiting and self._fits(batch, waiting[-1]):
                waiting.pop()
            batch.close()
            # One batch after the other: the next must not overtake one that is being retried.
            await (await self._producer.send_batch(batch, topic, partition=partition))

    @staticmethod
    def _fits(batch: object, record: Outgoing) -> bool:
        appended = batch.append(  # type: ignore[attr-defined] # aiokafka is untyped
            key=record.key, value=record.value, timestamp=None, headers=list(record.headers)
        )
        return appended is not None
