"""The services of one replay: built, hit by faults, and rebuilt from what their databases hold.

In this engine a crash is the death of the service's task: nothing is finished, committed, published or said
goodbye to, and what comes after has the database alone to go by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from aiokafka import TopicPartition

from common.core import Core
from common.domain.order import OrderStatus
from common.errors import BrokerError, LabError
from common.messages import CancelOrder, PlaceOrder, RetryCompensation
from common.probe import Boundary
from common.wiring import Wiring
from compare.acts import Acts, away, keep_company
from compare.engine import Outage, Surroundings
from compare.faults import Fault
from compare.injection import CrashError, StandsStillError, Struck
from compare.instance import LabRunner
from compare.wire import Ends, WiredPublisher

_START_LIMIT_S: Final = 30.0


class Services(Acts):
    """All services of a mode, kept running though faults strike them."""

    def __init__(self, around: Surroundings, ends: Ends) -> None:
        super().__init__(around, ends)
        self.runners: dict[str, LabRunner] = {}
        self._premises = around.premises
        self._deaths: dict[str, Struck] = {}
        self._rebuilt = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def idle(self) -> bool:
        """Whether no fault is under way: nothing is dead, stopped, away or held that will be back."""
        return not self._deaths and not self._acts and self._wire.idle

    def cores(self) -> Mapping[str, Core]:
        """By service: a core over its database."""
        return {name: runner.core for name, runner in self.runners.items()}

    def check(self) -> None:
        """Raise a LabError if a service has died that no fault has killed."""
        for runner in self.runners.values():
            if runner.failure is not None and not isinstance(runner.failure, CrashError):
                message = f"{runner.core.wiring} has died: {runner.failure}"
                raise LabError(message)

    async def start(self) -> None:
        """Start every service, and wait until all have their partitions.

        Raises:
            BrokerError: they were not ready in time.
        """
        self._injection.begin()
        for wiring in self._around.mode.services:
            self._keepers.append(asyncio.create_task(self._keep(wiring, self._begin(wiring))))
        try:
            async with asyncio.timeout(_START_LIMIT_S):
                await asyncio.gather(*(runner.ready() for runner in self.runners.values()))
        except TimeoutError:
            asked = [(runner, await runner.readiness()) for runner in self.runners.values()]
            troubles = (f"{runner.core.wiring}: {found.broker}" for runner, found in asked if found.broker)
            message = f"the services were not ready within {_START_LIMIT_S:g} s ({'; '.join(troubles)})"
            raise BrokerError(message) from None

    async def place(self, command: PlaceOrder) -> None:
        """Place an order; return once it is committed."""
        await (await self._order()).submit(lambda _: (command,))

    async def request(self, command: CancelOrder | RetryCompensation, at: OrderStatus) -> bool:
        """Ask for what an order can only take at a status; whether it was at that."""
        return await (await self._order()).request(command, at)

    async def quiet(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether all that there is on the broker, up to these ends, is consumed, and nothing is to come."""
        if not self.idle:
            return False
        for runner in self.runners.values():
            heard = {runner.link.prefix + topic for topic in runner.core.wiring.subscriptions}
            behind = any(
                runner.consumed.get(where, 0) < end
                for where, end in ends.items()
                if where.topic in heard and end
            )
            if behind or await runner.in_thread(runner.core.backlog) > 0:
                return False
            if await runner.in_thread(runner.core.expects, range(runner.link.partitions)):
                return False
        return True

    async def progress(self, timeout_s: float) -> None:
        """Wait until something has been processed, for at most `timeout_s` seconds."""
        await self.runners["order"].progress(timeout_s)

    async def stop(self) -> None:
        """Stop every service, and whatever a fault has left under way."""
        for keeper in self._keepers:
            keeper.cancel()
        await self._end_acts()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for runner in self.runners.values():
            runner.moves.set()
        await asyncio.gather(*(runner.stop() for runner in self.runners.values()))
        await self._clear_away()

    async def _order(self) -> LabRunner:
        """The Order service, once it is alive."""
        while "order" in self._deaths:
            await self._rebuilt.wait()
        return self.runners["order"]

    def _begin(self, wiring: Wiring) -> asyncio.Task[None]:
        runner, before = self._build(wiring), self.runners.get(wiring.name)
        if before is not None:
            # What the one before has consumed is done and published: it is in the database and on the broker.
            runner.consumed |= before.consumed
        self.runners[wiring.name] = runner
        return runner.start()

    def _build(self, wiring: Wiring) -> LabRunner:
        probe = self._injection.probe(wiring.name, lambda struck: self._act(wiring, struck))
        publisher = WiredPublisher(wiring.name, self._wire, self._premises.publisher())
        core, clock = self._premises.core(wiring, probe), self._injection.clock(wiring.name)
        return LabRunner(core, self._around.link, publisher, clock)

    async def _keep(self, wiring: Wiring, running: asyncio.Task[None]) -> None:
        """Rebuild the service each time a fault has killed it."""
        while True:
            await asyncio.wait({running})
            struck = self._deaths.get(wiring.name)
            if struck is None:
                return
            await self.runners[wiring.name].kill()
            await asyncio.sleep(struck.target.spec.duration_s)
            running = self._begin(wiring)
            await self.runners[wiring.name].ready()
            del self._deaths[wiring.name]
            struck.ended()
            self._rebuilt.set()
            self._rebuilt = asyncio.Event()

    def _act(self, wiring: Wiring, struck: Struck) -> None:
        """Carry out what strikes a service at a boundary."""
        runner, seconds = self.runners[wiring.name], struck.target.spec.duration_s
        match struck.target.spec.fault:
            case Fault.CRASH:
                self._deaths[wiring.name] = struck
                runner.die()
            case Fault.STOP:
                runner.moves.clear()
                self.begin(self._stand_still(runner, seconds), struck)
                if struck.boundary in {Boundary.BEFORE, Boundary.DECIDED}:
                    raise StandsStillError(f"{wiring} stands still for {seconds:g} s")
            case Fault.SLOW:
                runner.lag_s = seconds
            case Fault.BROKER_OUTAGE if self._around.outage is not None:
                self.begin(self._be_away(self._around.outage, seconds), struck)
            case Fault.SLOW_BROKER:
                self._slow_down_broker(struck)
            case Fault.REBALANCE:
                self.begin(self._have_company(wiring, seconds), struck)

    @staticmethod
    async def _stand_still(runner: LabRunner, seconds: float) -> None:
        await asyncio.sleep(seconds)
        runner.moves.set()

    @staticmethod
    async def _be_away(broker: Outage, seconds: float) -> None:
        async with away(broker):
            await asyncio.sleep(seconds)

    async def _have_company(self, wiring: Wiring, seconds: float) -> None:
        """A second instance of the service, for a while."""
        second = self._build(wiring)
        try:
            await keep_company(second, seconds)
        finally:
            # What it has consumed, the first one will never see.
            consumed = self.runners[wiring.name].consumed
            consumed |= {where: max(end, consumed.get(where, 0)) for where, end in second.consumed.items()}
