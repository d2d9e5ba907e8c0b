"""Replaying a scenario in one mode: the real services over a real broker, with an observer beside them.

Everything but the wiring is the same for both modes: the orders with their ids, the stock, the rules, the
faults, the settings, the broker, the observer, the process that they run in. Each replay has topics, groups
and databases of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

from aiokafka import TopicPartition
from sqlalchemy.exc import SQLAlchemyError

from common.core import Core
from common.domain.order import OrderStatus
from common.errors import BrokerError, LabError
from common.messages import CancelOrder, RetryCompensation
from common.runner import BrokerLink
from common.settings import Settings
from common.store.journal import counts
from common.wiring import Mode
from compare.engine import Engine, MakeEngine, Outage, Surroundings
from compare.evidence import Happened, gather_evidence
from compare.faults import Fault
from compare.injection import ms, never_struck, strikes_of
from compare.observer import Observer
from compare.plan import PlacedOrder, Plan
from compare.recording import Recording, Requested
from compare.services import Services

_LONGEST_WAIT_S: Final = 0.1
_SETTLE_POLL_S: Final = 0.005
_OUTAGE_POLL_S: Final = 0.05


Advance = Callable[[int, int], None]
"""Is told how many of how many orders have ended."""


async def replay(  # noqa: PLR0913, PLR0917 - half of them have defaults
    plan_: Plan,
    mode: Mode,
    link: BrokerLink,
    advance: Advance = lambda _ended, _total: None,
    outage: Outage | None = None,
    make_engine: MakeEngine = Services,
    settings: Settings | None = None,
) -> Recording:
    """Run a scenario's orders through one mode, on topics that exist, and return what happened.

    `outage` is the broker, if it can be taken away; `make_engine` makes what runs the services; `settings`
    say where the databases are.

    Raises:
        LabError: the services could not be started; what goes wrong later is the recording's `unfinished`.
    """
    topics = [link.prefix + topic for topic in mode.all_topics]
    with TemporaryDirectory(prefix="saga-lab-") as folder:
        around = Surroundings(plan_, mode, link, Path(folder), outage, settings or Settings())
        async with _observing(link, topics) as observer:
            engine = make_engine(around, observer)
            try:
                await engine.start()
                lab = _Lab(plan_, engine, observer, advance)
                unfinished = await lab.finish(lab.warm_up)
                before = _counted(engine.cores())
                start = monotonic()
                unfinished = unfinished or await lab.finish(lab.place_all)
                happened = Happened(
                    unfinished=unfinished,
                    wall_s=monotonic() - start,
                    counts=_since(before, _counted(engine.cores())),
                    strikes=strikes_of(engine.struck, start),
                    requested=_requested(lab.asked, start),
                    not_applicable=(*engine.not_applicable, *never_struck(plan_.scenario, engine.struck)),
                )
                return gather_evidence(plan_, engine.cores(), observer.records, link.prefix, happened)
            finally:
                await engine.stop()
                await asyncio.to_thread(around.premises.clear_away, mode)


def _counted(cores: Mapping[str, Core]) -> dict[str, Counter[str]]:
    """What each service has counted, over all of its lives."""
    found = {}
    for name, core in cores.items():
        with core.database.read() as connection:
            found[name] = Counter(counts(connection))
    return found


def _since(before: Mapping[str, Counter[str]], now: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: dict(total - before[name]) for name, total in now.items()}


def _requested(asked: Sequence[_Asked], start: float) -> tuple[Requested, ...]:
    return tuple(
        Requested(order_id=one.order_id, what=one.what, accepted=one.accepted, at_ms=ms(one.at - start))
        for one in asked
    )


@asynccontextmanager
async def _observing(link: BrokerLink, topics: Sequence[str]) -> AsyncIterator[Observer]:
    observer = Observer(link.bootstrap_servers, topics, link.partitions)
    await observer.start()
    try:
        yield observer
    finally:
        await observer.stop()


@dataclass(frozen=True)
class _Asked:
    """What a customer or an operator has asked for, and whether the order could take it."""

    order_id: str
    what: str
    accepted: bool
    at: float


class _Lab:
    """Drives one replay: place the orders, wait for their ends, wait until nothing moves any more."""

    def __init__(self, plan_: Plan, engine: Engine, observer: Observer, advance: Advance) -> None:
        self.asked: list[_Asked] = []
        self._plan = plan_
        self._engine = engine
        self._observer = observer
        self._advance = advance
        self._ids = frozenset(order.command.order_id for order in plan_.orders)
        self._placed = {order_id: asyncio.Event() for order_id in self._ids}

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
        await self._engine.place(self._plan.warm_up)

    async def place_all(self) -> None:
        """Place the orders when they are due, ask for what is to be asked for, and wait for their ends."""
        at_once = sorted((order for order in self._plan.orders if order.spec.after is None), key=_due)
        dependent = [order for order in self._plan.orders if order.spec.after is not None]
        placing = [self._place_in_turn(at_once), *map(self._place_after, dependent)]
        asking = [self._ask(order) for order in self._plan.orders]
        tasks = [asyncio.create_task(work) for work in (*placing, *asking, self._until_ended(self._ids))]
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
        await self._engine.place(order.command)
        self._placed[order.command.order_id].set()

    async def _ask(self, order: PlacedOrder) -> None:
        """Do what the order's customer, and then an operator, do about it."""
        spec, order_id = order.spec, order.command.order_id
        if spec.cancel is not None:
            await self._placed[order_id].wait()
            if spec.cancel.after == "ended":
                await self._observer.until_ended(order_id)
            await asyncio.sleep(float(spec.cancel.at))
            await self._request("cancel", CancelOrder(order_id=order_id), OrderStatus.PENDING)
        if spec.retry_compensation is not None:
            await self._observer.until_ended(order_id)
            await asyncio.sleep(float(spec.retry_compensation))
            retry = RetryCompensation(order_id=order_id)
            told = len(self._observer.ends[order_id])
            if await self._request("retry_compensation", retry, OrderStatus.COMPENSATION_FAILED):
                await self._observer.until_told(order_id, told + 1)

    async def _request(self, what: str, command: CancelOrder | RetryCompensation, at: OrderStatus) -> bool:
        asked_at = monotonic()
        accepted = await self._engine.request(command, at)
        self.asked.append(_Asked(command.order_id, what, accepted, asked_at))
        return accepted

    async def _until_ended(self, order_ids: frozenset[str]) -> None:
        # The observer tells, and not the Order service's database: asking that would slow down the observed.
        while pending := len(order_ids - self._observer.ended):
            self._advance(len(order_ids) - pending, len(order_ids))
            self._engine.check()
            await self._observer.progress(_LONGEST_WAIT_S)

    async def _settle(self) -> None:
        """Wait until nothing moves any more.

        That is: the engine is quiet about all that there is on the broker, and there is nothing new since it
        was asked how much there is. Then no more can come: records only come from records and from time.
        """
        while True:
            self._engine.check()
            ends = await self._ends()
            quiet = self._observer.has_read(ends) and await self._engine.quiet(ends)
            if quiet and await self._ends() == ends:
                return
            await self._engine.progress(_SETTLE_POLL_S)

    async def _ends(self) -> Mapping[TopicPartition, int]:
        """How far each partition goes; the broker may be away because of a fault."""
        while True:
            try:
                return await self._observer.end_offsets()
            except BrokerError:
                if not any(struck.target.spec.fault is Fault.BROKER_OUTAGE for struck in self._engine.struck):
                    raise
                await asyncio.sleep(_OUTAGE_POLL_S)


def _due(order: PlacedOrder) -> tuple[Decimal, int]:
    return order.spec.at, order.number
