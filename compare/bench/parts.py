"""The parts of a subject: instances of services, each in this process or in one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from common.core import Core
from common.databases import schema_of, tables_of
from common.domain.decision import Rules
from common.domain.order import OrderStatus
from common.errors import LabError, OverloadedError
from common.messages import CompleteOrder, FailOrder, Message, PlaceOrder
from common.patience import short
from common.probe import Boundary, Probe
from common.runner import Runner
from common.services import STOCK, fill_stock
from common.store.database import Database
from common.wiring import Wiring
from compare.bench.counting import CountingPublisher, Spent
from compare.bench.load import Load
from compare.bench.spec import Conditions
from compare.recording import Frozen

_ENDS: Final[dict[type[Message], OrderStatus]] = {
    CompleteOrder: OrderStatus.COMPLETED,
    FailOrder: OrderStatus.FAILED,
}


TellEnds = Callable[[Sequence[tuple[str, OrderStatus]]], None]
"""Is told of all orders that have ended at once: their ids, and how."""
_TRY_AGAIN_S: Final = 0.01


class Ground(Frozen):
    """What the parts of one subject stand on."""

    conditions: Conditions
    run: str
    folder: Path
    load: Load

    @property
    def prefix(self) -> str:
        """Goes before the names of topics and groups."""
        return f"{self.run}."

    def database(self, wiring: Wiring) -> Database:
        """Open a service's database.

        Raises:
            SQLAlchemyError: it can't be opened.
        """
        durability, server = self.conditions.durability, self.conditions.server
        schema = None if server is None else schema_of(wiring, self.run)
        url = server or f"sqlite:///{self.folder / wiring.name}.db"
        database = Database(url, tables_of(wiring), synchronous=durability, schema=schema)
        if STOCK.table in database.tables:
            fill_stock(database, self.load.stock)
        return database


class Part(Protocol):
    """One instance of one service."""

    async def start(self) -> None:
        """Be ready to work; a LabError if that can't be."""

    def check(self) -> None:
        """Return at once, or raise a LabError if it can't go on."""

    async def place(self, orders: Sequence[PlaceOrder]) -> None:
        """Take these orders on, being an Order service; return once they are durably accepted."""

    async def spent(self) -> Spent:
        """What it has spent so far."""

    async def stop(self) -> None:
        """End."""


class _Ends(Probe):
    """Sees orders end, once that is committed."""

    def __init__(self, tell: TellEnds) -> None:
        self._tell = tell

    def passing(self, boundary: Boundary, commands: Sequence[Message]) -> None:
        """The batch of these commands has come to a boundary."""
        if boundary is not Boundary.COMMITTED:
            return
        ends = [(one.order_id, _ENDS[type(one)]) for one in commands if type(one) in _ENDS]
        if ends:
            self._tell(ends)


def _from_thread(loop: asyncio.AbstractEventLoop, tell: TellEnds) -> TellEnds:
    def told(ends: Sequence[tuple[str, OrderStatus]]) -> None:
        loop.call_soon_threadsafe(tell, ends)

    return told


class ServicePart:
    """A service as it runs live: its core, and the runner around it.

    With `own_thread`, it has a process to itself but for the load generator, and its database a thread.
    """

    def __init__(self, wiring: Wiring, ground: Ground, tell: TellEnds, *, own_thread: bool) -> None:
        self._spent = Spent()
        self._wiring = wiring
        if own_thread:
            tell = _from_thread(asyncio.get_running_loop(), tell)
        database = ground.database(wiring)
        self._spent.count_commits(database)
        core = Core(wiring, Rules(), database, ground.prefix, probe=_Ends(tell))
        publisher = CountingPublisher(ground.conditions.bootstrap_servers, self._spent)
        self._runner = Runner(core, ground.conditions.link(ground.prefix), publisher, own_thread=own_thread)

    async def start(self) -> None:
        """Be ready to work; a LabError if that can't be."""
        self._runner.start()
        await self._runner.ready()

    def check(self) -> None:
        """Return at once, or raise a LabError if it can't go on."""
        failure = self._runner.failure
        if failure is not None:
            raise LabError(f"{self._wiring} has died: {failure}") from failure

    async def place(self, orders: Sequence[PlaceOrder]) -> None:
        """Take these orders on, being an Order service; return once they are durably accepted."""
        while True:
            try:
                await self._runner.submit(lambda _: orders)
            except OverloadedError:
                # As an HTTP client would do. Their time runs.
                await asyncio.sleep(_TRY_AGAIN_S)
                self.check()
            except SQLAlchemyError as error:
                raise LabError(f"{self._wiring} can't take orders on: {short(error)}") from error
            else:
                return

    async def spent(self) -> Spent:
        """What it has spent so far."""
        return self._spent + Spent()

    async def stop(self) -> None:
        """End."""
        await self._runner.stop()
