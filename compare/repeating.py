"""A producer that misses acknowledgements."""

from __future__ import annotations

from collections.abc import Sequence

from common.envelope import Outgoing
from common.publisher import Publisher


class RepeatingPublisher:
    """Puts every record on the broker several times, as a producer does that misses acknowledgements."""

    def __init__(self, publisher: Publisher, deliveries: int) -> None:
        self._publisher = publisher
        self._deliveries = deliveries

    async def start(self) -> None:
        """Connect."""
        await self._publisher.start()

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish the records, and the same again."""
        for _ in range(self._deliveries):
            await self._publisher.publish(records)

    async def stop(self) -> None:
        """Disconnect."""
        await self._publisher.stop()
