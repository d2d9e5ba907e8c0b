"""Replaying a scenario in one mode: the real services over a real broker, with an observer beside them.

Everything but the wiring is the same for both modes: the orders with their ids, the stock, the rules, the
settings, the broker, the observer, the process that they run in. Each replay has topics, groups and databases
of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

from aiokafka import TopicPartition
from sqlalchemy.exc import SQLAlchemyError

from common.core import Core
from common.envelope import Outgoing
from common.errors import BrokerError, LabError
from common.publisher import KafkaPublisher, Publisher
from common.runner import BrokerLink, Runner
from common.services import STOCK, fill_stock
from common.store.database import Database
from common.wiring import Mode, Wiring
from compare.evidence import Ending, gather_evidence
from compare.observer import Observer
from compare.plan import WARM_UP_ITEM, PlacedOrder, Plan
from compare.recording import Recording

_START_LIMIT_S: Final = 30.0
_LONGEST_WAIT_S: Final = 0.1
_SETTLE_POLL_S: Final = 0.005


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


Advance = Callable[[int, int], None]
"""Is told how many of how many orders have ended."""


async def replay(
    plan_: Plan, mode: Mode, link: BrokerLink, advance: Advance = lambda _ended, _total: None
) -> Recording:
    """Run a scenario's orders through one mode, on topics that exist, and return what happened.

    Raises:
        LabError: the services could not be started; what goes wrong later is the recording's `unfinished`.
    """
    topics = sorted(link.prefix + topic for topic in mode.topics)
    with TemporaryDirectory(prefix="saga-lab-") as folder:
        async with (
            _services(plan_, mode, link, Path(folder)) as runners,
            _observing(link, topics) as observer,
        ):
            lab = _Lab(plan_, runners, observer, advance)
            unfinished = await lab.finish(lab.warm_up)
            for runner in runners.values():
                runner.core.counts.clear()
            start = monotonic()
            unfinished = unfinished or await lab.finish(lab.place_all)
            wall_s = monotonic() - start
            cores = {name: runner.core for name, runner in runners.items()}
            return gather_evidence(plan_, cores, observer.records, link.prefix, Ending(unfinished, wall_s))


@asynccontextmanager
async def _services(
    plan_: Plan, mode: Mode, link: BrokerLink, folder: Path
) -> AsyncIterator[dict[str, Runner]]:
    async with AsyncExitStack() as stack:
        runners = {}
        for wiring in mode.services:
            runner = _runner(plan_, wiring, link, folder)
            stack.push_async_callback(runner.stop)
            runner.start()
            runners[wiring.name] = runner
        await _all_ready(runners.values())
        yield runners


async def _all_ready(runners: Collection[Runner]) -> None:
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            await asyncio.gather(*(runner.ready() for runner in runners))
    except TimeoutError:
        asked = [(runner, await runner.readiness()) for runner in runners]
        troubles = (f"{runner.core.wiring}: {found.broker}" for runner, found in asked if found.broker)
        message = f"the services were not ready within {_START_LIMIT_S:g} s ({'; '.join(troubles)})"
        raise BrokerError(message) from None


def _runner(plan_: Plan, wiring: Wiring, link: BrokerLink, folder: Path) -> Runner:
    tables = wiring.domain.storage.tables
    # The folder goes with the replay, so its databases need not survive a power cut; they do survive a crash.
    database = Database(f"sqlite:///{folder / wiring.name}.db", tables, synchronous="OFF")
    if STOCK.table in tables:
        fill_stock(database, {**plan_.scenario.stock, WARM_UP_ITEM: 1})
    publisher: Publisher = KafkaPublisher(link.bootstrap_servers)
    if plan_.scenario.deliveries > 1:
        publisher = RepeatingPublisher(publisher, plan_.scenario.deliveries)
    return Runner(Core(wiring, plan_.rules, database, link.prefix), link, publisher, own_thread=False)


@asynccontextmanager
async def _observing(link: BrokerLink, topics: Sequence[str]) -> AsyncIterator[Observer]:
    observer = Observer(link.bootstrap_servers, topics, link.partitions)
    await observer.start()
    try:
        yield observer
    finally:
        await observer.stop()


class _Lab:
    """Drives one replay: place the orders, wait for their ends, wait until nothing moves any more."""

    def __init__(
        self, plan_: Plan, runners: Mapping[str, Runner], observer: Observer, advance: Advance
    ) -> None:
        self._plan = plan_
        self._runners = runners
        self._order = runners["order"]
        self._observer = observer
        self._advance = advance
        self._ids = frozenset(order.command.order_id for order in plan_.orders)

    async def finish(self, work: Callable[[], Awaitable[None]]) -> str | None:
        """Do the work and wait until nothing moves any more; return why that was not to be had, if so."""
        limit = float(self._plan.scenario.timeout)
        try:
            async with asyncio.timeout(limit):
                await work()
                await self._settle()
        except TimeoutError:
            ended, total = len(self._ids & self._observer.ended), len(self._ids)
            return (
                f"after {limit:g} s, {ended} of {total} orders had ended and the services were still at work"
            )
        except (LabError, SQLAlchemyError) as error:
            return str(error)
        return None

    async def warm_up(self) -> None:
        """Send one order through every path, so that no scenario pays for connecting and for cold caches."""
        await self._order.submit(lambda _: self._plan.warm_up)

    async def place_all(self) -> None:
        """Place the orders when they are due, and wait for their ends."""
        at_once = sorted((order for order in self._plan.orders if order.spec.after is None), key=_due)
        dependent = [order for order in self._plan.orders if order.spec.after is not None]
        placing = [self._place_in_turn(at_once), *map(self._place_after, dependent)]
        tasks = [asyncio.create_task(work) for work in (*placing, self._until_ended(self._ids))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _place_in_turn(self, orders: Sequence[PlacedOrder]) -> None:
        start = monotonic()
        for order in orders:
            # This is the scenario's own clock, not a wait for something to happen.
            await asyncio.sleep(max(0.0, start + float(order.spec.at) - monotonic()))
            await self._place(order)

    async def _place_after(self, order: PlacedOrder) -> None:
        first = [other.command.order_id for other in self._plan.orders if other.spec.name == order.spec.after]
        await self._until_ended(frozenset(first))
        await asyncio.sleep(float(order.spec.at))
        await self._place(order)

    async def _place(self, order: PlacedOrder) -> None:
        await self._order.submit(lambda _: order.command)

    async def _until_ended(self, order_ids: frozenset[str]) -> None:
        # The observer tells, and not the Order service's database: asking that would slow down the observed.
        while pending := len(order_ids - self._observer.ended):
            self._advance(len(order_ids) - pending, len(order_ids))
            self._check_services()
            await self._observer.progress(_LONGEST_WAIT_S)

    def _check_services(self) -> None:
        for runner in self._runners.values():
            if runner.failure is not None:
                message = f"{runner.core.wiring} has died: {runner.failure}"
                raise LabError(message)

    async def _settle(self) -> None:
        """Wait until nothing moves any more.

        That is: every service has consumed all there is and has nothing left to publish, and there is nothing
        new since it was asked how much there is. No more can come then, since records only come from records.
        """
        while True:
            self._check_services()
            ends = await self._observer.end_offsets()
            if await self._quiet(ends) and await self._observer.end_offsets() == ends:
                return
            await self._order.progress(_SETTLE_POLL_S)

    async def _quiet(self, ends: Mapping[TopicPartition, int]) -> bool:
        if not self._observer.has_read(ends):
            return False
        for runner in self._runners.values():
            heard = {runner.link.prefix + topic for topic in runner.core.wiring.subscriptions}
            behind = any(
                runner.consumed.get(where, 0) < end
                for where, end in ends.items()
                if where.topic in heard and end
            )
            if behind or await runner.in_thread(runner.core.backlog) > 0:
                return False
        return True


def _due(order: PlacedOrder) -> tuple[Decimal, int]:
    return order.spec.at, order.number
