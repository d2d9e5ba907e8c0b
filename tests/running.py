"""Services in the test's own process, over a broker: what the runtime's and HTTP's tests start from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import TypeVar

from sqlalchemy import select

from common.core import Core
from common.domain.order import ENDS, Order
from common.messages import Message
from common.publisher import KafkaPublisher
from common.runner import BrokerLink, Runner, Work
from common.services import ORDERS
from common.wiring import Mode, Wiring
from tests.brokers import Broker
from tests.pump import fill_stock, open_core

T = TypeVar("T")

PARTITIONS = 3
NOWHERE = "127.0.0.1:1"
"""An address at which nobody listens."""


def asking(*commands: Message) -> Work:
    """What a request does that asks for these commands."""
    return lambda _: commands


async def until(condition: Callable[[], Awaitable[T]], *, seconds: float = 20.0) -> T:
    """Wait until the condition gives something true, and return that."""
    deadline = monotonic() + seconds
    while not (found := await condition()):
        assert monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)
    return found


def new_runner(core: Core, bootstrap: str, *, sole_instance: bool = False) -> Runner:
    """A runner with the embedded broker's settings, not started."""
    link = BrokerLink(bootstrap, PARTITIONS, fetch_max_wait_ms=2, sole_instance=sole_instance)
    return Runner(core, link, KafkaPublisher(bootstrap))


@asynccontextmanager
async def running(
    wiring: Wiring, folder: Path, broker: Broker, *, sole_instance: bool = False
) -> AsyncIterator[Runner]:
    """One service, started and ready; its database is in `folder`, its topics exist."""
    runner = new_runner(open_core(wiring, folder), broker.bootstrap, sole_instance=sole_instance)
    runner.start()
    try:
        await runner.ready()
        yield runner
    finally:
        await runner.stop()


@asynccontextmanager
async def running_mode(
    mode: Mode, folder: Path, broker: Broker, *, sole_instance: bool = False
) -> AsyncIterator[dict[str, Runner]]:
    """All services of a mode, with 100 laptops in stock."""
    await broker.create_topics(mode.all_topics, PARTITIONS)
    runners = {}
    for wiring in mode.services:
        core = open_core(wiring, folder)
        runners[wiring.name] = new_runner(core, broker.bootstrap, sole_instance=sole_instance)
    with runners["inventory"].core.database.write() as transaction:
        fill_stock(transaction, {"laptop": 100})
    for runner in runners.values():
        runner.start()
    try:
        await asyncio.gather(*(runner.ready() for runner in runners.values()))
        yield runners
    finally:
        await asyncio.gather(*(runner.stop() for runner in runners.values()))


def stored_order(core: Core, order_id: str) -> Order | None:
    """An order as the order service has it."""
    with core.database.read() as connection:
        columns = [ORDERS.table.c[field] for field in ORDERS.fields]
        query = select(*columns).where(ORDERS.table.c.order_id == order_id)
        found = ORDERS.rows([tuple(row) for row in connection.execute(query)])
    return found[0] if found else None


async def ended(runner: Runner, order_id: str) -> Order:
    """Wait until an order has ended."""

    async def look() -> Order | None:
        order = await asyncio.to_thread(stored_order, runner.core, order_id)
        return order if order and order.status in ENDS else None

    found = await until(look)
    assert found is not None
    return found
