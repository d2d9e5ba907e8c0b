"""A subject made of services: all in this process, or all but the first Order in ones of their own."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from common.domain.order import OrderStatus
from common.errors import LabError
from common.messages import PlaceOrder
from common.wiring import Mode, Wiring
from compare.bench.counting import Spent
from compare.bench.parts import Ground, Part
from compare.bench.remote import Kind, RemotePart
from compare.bench.subject import Costs, Ended, Expected

_START_LIMIT_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.02
_ORDER: Final = "order"


class Fleet(ABC):
    """The services of a mode, or what stands in for them; a subclass says when they rest, and judges."""

    kind: ClassVar[Kind]
    """What its services are."""
    has_database: ClassVar[bool]

    def __init__(self, name: str, mode: Mode, ground: Ground) -> None:
        self.ground = ground
        self.mode = mode
        self.open: set[str] = set()
        """Ids of the orders that have not ended."""
        self._name = name
        self._parts: list[Part] = []
        self._ended: Ended = lambda *_: None
        self._before = Spent()
        self._total = Spent()

    @property
    def name(self) -> str:
        """What it is called in results."""
        return self._name

    async def start(self, ended: Ended) -> None:
        """Start every instance, and wait until all are ready.

        Raises:
            LabError: one can't start, or they were not ready in time.
        """
        self._ended = ended
        conditions = self.ground.conditions
        # The first is the one that orders are placed with.
        for wiring in sorted(self.mode.services, key=lambda one: one.name != _ORDER):
            for number in range(conditions.instances):
                own_process = conditions.processes and (number, wiring.name) != (0, _ORDER)
                self._parts.append(self._remote(wiring) if own_process else self.local(wiring))
        try:
            async with asyncio.timeout(_START_LIMIT_S):
                await asyncio.gather(*(part.start() for part in self._parts))
        except TimeoutError:
            message = f"the services of {self.name} were not ready within {_START_LIMIT_S:g} s"
            raise LabError(message) from None

    async def place(self, orders: Sequence[PlaceOrder]) -> None:
        """Take on all these orders; return once they are durably accepted.

        Raises:
            LabError: the Order service can't go on.
        """
        self.open.update(order.order_id for order in orders)
        await self._parts[0].place(orders)

    def check(self) -> None:
        """Return at once, or raise a LabError if it can't go on: what it waits for would never come."""
        for part in self._parts:
            part.check()

    def mark(self) -> None:
        """Count costs from now on; it has come to rest."""
        self._before = self._total

    async def costs(self) -> Costs:
        """What has been spent since `mark`."""
        spent = await self._spent() - self._before
        return Costs(
            records=spent.records, bytes=spent.bytes, commits=spent.commits if self.has_database else None
        )

    async def settle(self) -> None:
        """Return once all orders have ended and nothing moves any more; the caller limits the time.

        Raises:
            LabError: it can't go on.
        """
        while self.open or not await self.rests():
            self.check()
            await asyncio.sleep(_LOOK_EVERY_S)
        self._total = await self._spent()

    @abstractmethod
    async def rests(self) -> bool:
        """Whether nothing is left to do, now that all orders have ended."""

    @abstractmethod
    async def judge(self, expected: Mapping[str, Expected]) -> tuple[str, ...]:
        """What is wrong, in words."""

    async def stop(self) -> None:
        """End all parts; idempotent."""
        parts, self._parts = self._parts, []
        await asyncio.gather(*(part.stop() for part in parts))

    @abstractmethod
    def local(self, wiring: Wiring) -> Part:
        """An instance of a service in this process."""

    def tell(self, ends: Sequence[tuple[str, OrderStatus]]) -> None:
        """Note that orders have ended."""
        for order_id, status in ends:
            self.open.discard(order_id)
            self._ended(order_id, status)

    def _remote(self, wiring: Wiring) -> Part:
        return RemotePart(self.kind, wiring, self.ground, self.tell)

    async def _spent(self) -> Spent:
        return sum(await asyncio.gather(*(part.spent() for part in self._parts)), Spent())
