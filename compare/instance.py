"""One instance of a service in a replay, and how it is built, in whatever process it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Connection

from common.core import Core
from common.domain.decision import Rules
from common.domain.order import OrderStatus
from common.envelope import Outgoing
from common.messages import Message
from common.probe import Probe
from common.publisher import KafkaPublisher, Publisher
from common.runner import BrokerLink, Runner
from common.services import ORDERS, STOCK, fill_stock
from common.store.database import Database
from common.store.rows import LoadedRows
from common.subscription import Batch
from common.wiring import Wiring
from compare.injection import CrashError
from compare.plan import WARM_UP_ITEM
from compare.repeating import RepeatingPublisher
from compare.scenario import Scenario


@dataclass(frozen=True)
class Premises:
    """What the instances of a replay's services are built from."""

    scenario: Scenario
    rules: Rules
    link: BrokerLink
    folder: Path
    """Where their databases are."""

    def core(self, wiring: Wiring, probe: Probe | None = None) -> Core:
        """A core over the service's database, with the scenario's stock."""
        tables = wiring.domain.storage.tables
        # The folder goes with the replay: its databases survive a crash, but need not survive a power cut.
        database = Database(f"sqlite:///{self.folder / wiring.name}.db", tables, synchronous="OFF")
        if STOCK.table in tables:
            fill_stock(database, {**self.scenario.stock, WARM_UP_ITEM: 1})
        recovery = self.scenario.patience
        return Core(wiring, self.rules, database, self.link.prefix, recovery=recovery, probe=probe)

    def publisher(self) -> Publisher:
        """The way to the broker."""
        publisher: Publisher = KafkaPublisher(self.link.bootstrap_servers)
        if self.scenario.deliveries > 1:
            publisher = RepeatingPublisher(publisher, self.scenario.deliveries)
        return publisher


class LabRunner(Runner):
    """A runner that a fault can stop, slow down or kill, and that can be asked for what HTTP would ask."""

    def __init__(
        self,
        core: Core,
        link: BrokerLink,
        publisher: Publisher,
        clock: Callable[[], datetime],
        *,
        own_thread: bool = False,
    ) -> None:
        super().__init__(core, link, publisher, clock=clock, own_thread=own_thread)
        self.moves = asyncio.Event()
        """Whether the service moves; where it doesn't, it neither decides nor publishes."""
        self.moves.set()
        self.lag_s = 0.0
        """How much longer each batch takes."""

    def die(self) -> NoReturn:
        """End here; `kill` clears away what is left."""
        self._killed = True
        raise CrashError

    async def request(self, command: Message, at: OrderStatus | None) -> bool:
        """Take a command that its order can only take at a status, or if it is not there yet.

        Returns whether the order was at that.
        """
        accepted = False

        def ask(transaction: Connection) -> Message | None:
            nonlocal accepted
            rows = LoadedRows(ORDERS)
            rows.load(transaction, [command.order_id])
            order = rows.get(command.order_id)
            accepted = (order.status if order is not None else None) is at
            return command if accepted else None

        await self.submit(ask)
        return accepted

    async def in_thread(self, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - as the base's
        """Run a blocking function, once the service moves."""
        await self.moves.wait()
        return await super().in_thread(function, *arguments)

    async def _handle(self, batch: Batch) -> None:
        await asyncio.sleep(self.lag_s)
        await super()._handle(batch)

    async def _publish(self, records: list[Outgoing]) -> None:
        await self.moves.wait()
        await super()._publish(records)
