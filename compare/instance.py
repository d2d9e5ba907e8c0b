"""One instance of a service in a replay, and how it is built, in whatever process it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Connection

from common.core import Core
from common.databases import database_for, drop_schemas
from common.domain.decision import Rules
from common.domain.order import OrderStatus
from common.envelope import Outgoing
from common.messages import Message
from common.probe import Probe
from common.publisher import KafkaPublisher, Publisher
from common.runner import BrokerLink, Runner
from common.services import ORDERS, STOCK, fill_stock
from common.settings import Settings
from common.store.rows import LoadedRows
from common.subscription import Batch
from common.wiring import Mode, Wiring
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
    """Where their databases are, unless the settings name a server; its name tells them apart there."""
    settings: Settings

    def core(self, wiring: Wiring, probe: Probe | None = None) -> Core:
        """A core over the service's database, with the scenario's stock."""
        database = database_for(wiring, self._local, self._run)
        if STOCK.table in database.tables:
            fill_stock(database, {**self.scenario.stock, WARM_UP_ITEM: 1})
        recovery = self.scenario.patience
        return Core(wiring, self.rules, database, self.link.prefix, recovery=recovery, probe=probe)

    def clear_away(self, mode: Mode) -> None:
        """Remove what the replay has left on a database server; the folder's owner removes the folder."""
        drop_schemas(mode, self._local, self._run)

    @property
    def _local(self) -> Settings:
        return self.settings.model_copy(update={"data_dir": self.folder})

    @property
    def _run(self) -> str:
        return blake2b(self.folder.name.encode(), digest_size=4).hexdigest()

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

        def ask(transaction: Connection) -> Sequence[Message]:
            nonlocal accepted
            rows = LoadedRows(ORDERS)
            rows.load(transaction, [command.order_id])
            order = rows.get(command.order_id)
            accepted = (order.status if order is not None else None) is at
            return (command,) if accepted else ()

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
