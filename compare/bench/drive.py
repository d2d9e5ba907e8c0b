"""The load generator: orders in a closed loop, or at a fixed rate, and how long each took.

Closed loop: so many orders are under way at any time; the next are placed when some have ended, all at once.
Open loop: each order has a time at which it is to start, whatever has become of those before it. How long it
took is counted from that time, even if it was placed later, so that a stall counts for all who would have
come meanwhile (no "coordinated omission": Gil Tene, "How NOT to Measure Latency", 2013).
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from common.domain.order import OrderStatus
from common.messages import PlaceOrder
from compare.bench.load import Load
from compare.bench.subject import Subject

_CHECK_EVERY_S: Final = 0.25
_SHORTEST_SLEEP_S: Final = 0.001
"""Orders that are due within it are placed together."""


def _seconds() -> array[float]:
    return array("d")


@dataclass
class Tally:
    """What became of the orders of one phase."""

    placed: int = 0
    began: float = 0.0
    """On the clock of `perf_counter`, as all times here."""
    last_end: float = 0.0
    lag_s: float = 0.0
    completed: array[float] = field(default_factory=_seconds)
    """How long each took, in seconds."""
    failed: array[float] = field(default_factory=_seconds)
    declined_unended: int = 0
    """Orders whose payment is declined, and that had not ended when the phase was over."""

    @property
    def ended(self) -> int:
        """How many have ended."""
        return len(self.completed) + len(self.failed)


class Drive:
    """Places the orders of a load with one subject, and hears of their ends by `ended`."""

    def __init__(self, subject: Subject, load: Load) -> None:
        self.placed = 0
        """All orders so far: the number of the next."""
        self.all_ended = 0
        """Orders of all phases that have ended, each counted once."""
        self.tally = Tally()
        self.told: Callable[[int], None] = lambda _: None
        """Is told now and then how many orders of the phase have ended."""
        self._subject = subject
        self._load = load
        self._under_way: dict[str, float] = {}
        self._late: set[str] = set()
        """Of orders that had not ended when their phase was over."""
        self._moved = asyncio.Event()

    def ended(self, order_id: str, status: OrderStatus) -> None:
        """Note the end of an order; one that is told again, or whose phase is over, is no matter."""
        if order_id in self._late:
            self._late.discard(order_id)
            self.all_ended += 1
        intended = self._under_way.pop(order_id, None)
        if intended is None:
            return
        self.all_ended += 1
        now = perf_counter()
        tally = self.tally
        tally.last_end = now
        (tally.failed if status is OrderStatus.FAILED else tally.completed).append(now - intended)
        self._moved.set()

    async def closed(self, concurrency: int, orders: int, seconds: float, drain_s: float) -> Tally:
        """Keep so many orders under way, until so many are placed or the time is over; wait for the rest.

        Raises:
            LabError: the subject can't go on.
        """
        tally = self._begin()
        end = tally.began + seconds
        left = orders
        while left:
            room = min(left, concurrency - len(self._under_way))
            if room:
                await self._subject.place(self._next([perf_counter()] * room))
                left -= room
            await self._wait(_CHECK_EVERY_S)
            if perf_counter() >= end:
                break
        return await self._drained(drain_s)

    async def open(self, rate: float, orders: int, drain_s: float) -> Tally:
        """Place an order each 1/`rate` seconds, whatever becomes of them; wait for the rest.

        Raises:
            LabError: the subject can't go on.
        """
        tally = self._begin()
        placing: set[asyncio.Task[None]] = set()
        try:
            while tally.placed < orders:
                now = perf_counter()
                due = min(orders, int((now - tally.began) * rate) + 1)
                if due > tally.placed:
                    tally.lag_s = max(tally.lag_s, now - tally.began - tally.placed / rate)
                    times = [tally.began + number / rate for number in range(tally.placed, due)]
                    placing.add(asyncio.create_task(self._place(self._next(times))))
                placing = self._unfinished(placing)
                self._subject.check()
                wait_s = tally.began + tally.placed / rate - perf_counter()
                await asyncio.sleep(max(wait_s, _SHORTEST_SLEEP_S))
            return await self._drained(drain_s)
        finally:
            for task in placing:
                task.cancel()
            await asyncio.gather(*placing, return_exceptions=True)

    async def _drained(self, drain_s: float) -> Tally:
        """Wait for the orders under way, but no longer than so many seconds."""
        end = perf_counter() + drain_s
        while self._under_way and perf_counter() < end:
            await self._wait(_CHECK_EVERY_S)
        self._late.update(self._under_way)
        numbers = map(self._load.number, self._under_way)
        self.tally.declined_unended = sum(map(self._load.is_declined, numbers))
        self._under_way.clear()
        return self.tally

    def _begin(self) -> Tally:
        self.tally = Tally(began=perf_counter())
        return self.tally

    async def _wait(self, longest_s: float) -> None:
        """Wait until an order has ended, and see whether the subject can go on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._moved.wait()
        self._moved.clear()
        self._subject.check()
        self.told(self.tally.ended)

    def _next(self, intended: Sequence[float]) -> list[PlaceOrder]:
        """The next orders, one for each time at which one is to start; they are under way from now on."""
        orders = [self._load.order(self.placed + index) for index in range(len(intended))]
        for order, at in zip(orders, intended, strict=True):
            self._under_way[order.order_id] = at
        self.placed += len(orders)
        self.tally.placed += len(orders)
        return orders

    async def _place(self, orders: Sequence[PlaceOrder]) -> None:
        await self._subject.place(orders)

    @staticmethod
    def _unfinished(placing: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Those that are under way; an error of another is raised."""
        for task in placing:
            if task.done():
                task.result()
        return {task for task in placing if not task.done()}
