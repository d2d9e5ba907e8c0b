"""Several instances of every service share the work by consumer group, on real Apache Kafka."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

import choreographed
import orchestrated
from common.broker import delete_topics, ensure_topics
from common.core import Core
from common.domain.decision import Rules
from common.domain.order import OrderStatus
from common.domain.payment import PaymentStatus
from common.messages import PlaceOrder
from common.publisher import KafkaPublisher
from common.runner import BrokerLink, Runner
from common.services import ORDERS, PAYMENTS, STOCK
from common.store.database import Database
from common.wiring import Mode, Wiring
from tests.kafka_server.server import KafkaServer
from tests.pump import fill_stock, order_id
from tests.running import asking, until

ORDERS_PLACED = 60
PARTITIONS = 4


class Instance:
    """One instance of every service of a mode; all instances of a service share its database file."""

    def __init__(self, mode: Mode, folder: Path, bootstrap: str) -> None:
        self.runners = {wiring.name: self._runner(wiring, folder, bootstrap) for wiring in mode.services}

    @staticmethod
    def _runner(wiring: Wiring, folder: Path, bootstrap: str) -> Runner:
        database = Database(f"sqlite:///{folder / wiring.name}.db", wiring.domain.storage.tables)
        link = BrokerLink(bootstrap, PARTITIONS, fetch_max_wait_ms=20, prefix=f"{folder.name}.")
        return Runner(Core(wiring, Rules(), database, link.prefix), link, KafkaPublisher(bootstrap))

    @property
    def core(self) -> Core:
        """The order service's core."""
        return self.runners["order"].core

    async def start(self) -> None:
        """Start every service and wait until each has its partitions."""
        for runner in self.runners.values():
            runner.start()
        await asyncio.gather(*(runner.ready() for runner in self.runners.values()))

    async def place(self, number: int) -> None:
        """Place an order; every third is too dear."""
        price = 600_00 if number % 3 == 0 else 100_00
        command = PlaceOrder(
            order_id=order_id(number), customer_id="alice", item="laptop", quantity=1, price_cents=price
        )
        await self.runners["order"].submit(asking(command))

    async def stop(self) -> None:
        """Stop every service."""
        await asyncio.gather(*(runner.stop() for runner in self.runners.values()))


def statuses(core: Core) -> Counter[str]:
    """How many orders are in which status."""
    with core.database.read() as connection:
        return Counter(connection.scalars(select(ORDERS.table.c.status)))


@pytest.mark.kafka
@pytest.mark.timeout(90, func_only=True)
@pytest.mark.parametrize("mode", [orchestrated.MODE, choreographed.MODE], ids=lambda mode: mode.name)
async def test_instances_that_come_and_go_share_the_work(
    mode: Mode, kafka: KafkaServer, tmp_path: Path
) -> None:
    """With one instance joining and another leaving in mid-flight, every order ends and is charged once."""
    topics = sorted(f"{tmp_path.name}.{topic}" for topic in mode.topics)
    await ensure_topics(kafka.bootstrap, topics, PARTITIONS)
    async with AsyncExitStack() as stack:
        first, second, third = (Instance(mode, tmp_path, kafka.bootstrap) for _ in range(3))
        for instance in (first, second, third):
            stack.push_async_callback(instance.stop)
        with first.runners["inventory"].core.database.write() as transaction:
            fill_stock(transaction, {"laptop": 100})
        await asyncio.gather(first.start(), second.start())

        async def both_have_work() -> bool:
            return all(one.runners["inventory"]._subscription.partitions for one in (first, second))

        await until(both_have_work)
        for number in range(ORDERS_PLACED // 2):
            await (first, second)[number % 2].place(number)
        starting = asyncio.create_task(third.start())
        for number in range(ORDERS_PLACED // 2, ORDERS_PLACED):
            await second.place(number)
        await first.stop()
        await starting

        async def all_ended() -> bool:
            found = await asyncio.to_thread(statuses, second.core)
            return found.total() == ORDERS_PLACED and found[OrderStatus.PENDING] == 0

        await until(all_ended, seconds=60)
        assert statuses(second.core) == {OrderStatus.COMPLETED: 40, OrderStatus.FAILED: 20}
        with second.runners["payment"].core.database.read() as connection:
            paid = Counter(connection.scalars(select(PAYMENTS.table.c.status)))
        assert paid == {PaymentStatus.CHARGED: 40, PaymentStatus.DECLINED: 20}
        with second.runners["inventory"].core.database.read() as connection:
            assert connection.scalar(select(STOCK.table.c.available)) == 60
        shares = [instance.runners["inventory"].core.counts["consumed"] for instance in (first, second)]
        assert all(shares), f"one instance did all the work: {shares}"
    await delete_topics(kafka.bootstrap, topics)
