"""What both engines do about faults: know them, carry them out, and clear away what is left of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from common.publisher import KafkaPublisher
from compare.engine import Outage, Surroundings
from compare.faults import Fault
from compare.injection import Injection, Struck
from compare.wire import Ends, Wire


class Company(Protocol):
    """One more instance of a service, in whatever process."""

    def start(self) -> object:
        """Begin to run."""

    async def ready(self) -> None:
        """Wait until the broker has given it its partitions."""

    async def stop(self) -> None:
        """End."""


class Acts:
    """The faults of one replay, and what there is under way because of them."""

    def __init__(self, around: Surroundings, ends: Ends) -> None:
        self._names = {order.command.order_id: order.spec.name for order in around.plan.orders}
        self._around = around
        self._injection = Injection(around.plan.scenario, around.mode, self._names)
        self._wire = Wire(self._injection, KafkaPublisher(around.link.bootstrap_servers), ends)
        self._acts: set[asyncio.Task[None]] = set()

    @property
    def struck(self) -> Sequence[Struck]:
        """The faults that have struck."""
        return self._injection.struck

    @property
    def not_applicable(self) -> tuple[str, ...]:
        """The faults that have no counterpart in this mode, and what is hit instead."""
        return tuple(self._injection.not_applicable)

    def begin(self, work: Coroutine[Any, Any, None], struck: Struck | None = None) -> None:
        """Do something to the services, or to the broker, that will be over; until then, nothing is quiet."""

        async def act() -> None:
            await work
            if struck is not None:
                struck.ended()

        task = asyncio.create_task(act())
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)

    def _slow_down_broker(self, struck: Struck) -> None:
        """Have the broker answer later from now on, if it is the lab's own."""
        if self._around.outage is not None:
            self.begin(self._around.outage.set_round_trip(struck.target.spec.milliseconds))

    async def _end_acts(self) -> None:
        """Cancel what is under way."""
        for act in self._acts:
            act.cancel()
        await asyncio.gather(*self._acts, return_exceptions=True)

    async def _clear_away(self) -> None:
        """Leave wire and broker as others need them after this replay."""
        await self._wire.stop()
        slowed = any(struck.target.spec.fault is Fault.SLOW_BROKER for struck in self.struck)
        if slowed and self._around.outage is not None:
            await self._around.outage.set_round_trip(0)


@asynccontextmanager
async def away(broker: Outage) -> AsyncIterator[None]:
    """The broker is away for the length of the block."""
    await broker.down()
    try:
        yield
    finally:
        # Others need it after this replay, even if that has run out of time.
        await broker.up()


async def keep_company(second: Company, seconds: float) -> None:
    """Have a second instance of a service run for a while."""
    second.start()
    try:
        await second.ready()
        await asyncio.sleep(seconds)
    finally:
        await second.stop()
