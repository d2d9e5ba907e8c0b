"""The lab's own modes as subjects: the services as they run live, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar, Final

from sqlalchemy import func, select

from common.databases import schema_of
from common.store.database import Database
from common.store.postgresql import drop_schema, postgresql_engine
from common.store.runtime import DEADLINES
from common.store.schema import OUTBOX, RETRIES
from common.wiring import Mode, Wiring
from compare.bench.fleet import Fleet
from compare.bench.judge import judge_lab
from compare.bench.parts import Ground, Part, ServicePart
from compare.bench.remote import Kind
from compare.bench.subject import Ended, Expected

_LEFT: Final = tuple(select(func.count()).select_from(table) for table in (OUTBOX, RETRIES, DEADLINES.table))


class ModeSubject(Fleet):
    """A mode of the lab."""

    kind: ClassVar[Kind] = "mode"
    has_database: ClassVar[bool] = True

    def __init__(self, mode: Mode, ground: Ground) -> None:
        super().__init__(mode.name, mode, ground)
        self._databases: dict[str, Database] = {}

    async def start(self, ended: Ended) -> None:
        """Start every instance, and wait until all are ready; a LabError if they can't be."""
        self._databases = {wiring.name: self.ground.database(wiring) for wiring in self.mode.services}
        await super().start(ended)

    def local(self, wiring: Wiring) -> Part:
        """An instance of a service in this process."""
        return ServicePart(wiring, self.ground, self.tell, own_thread=self.ground.conditions.processes)

    async def rests(self) -> bool:
        """Whether nothing waits to be published, to be tried again, or for an answer."""
        return await asyncio.to_thread(self._rests)

    async def judge(self, expected: Mapping[str, Expected]) -> tuple[str, ...]:
        """What is wrong in the services' databases, in words; nothing if all is right."""
        return await asyncio.to_thread(judge_lab, self._databases, expected, self.ground.load.stock)

    async def stop(self) -> None:
        """End all parts, and remove their schemas from a server; idempotent."""
        await super().stop()
        databases, self._databases = self._databases, {}
        for database in databases.values():
            database.close()
        if databases:
            self._leave_nothing()

    def _rests(self) -> bool:
        for database in self._databases.values():
            with database.read() as connection:
                if any(connection.scalar(left) for left in _LEFT):
                    return False
        return True

    def _leave_nothing(self) -> None:
        server = self.ground.conditions.server
        if server is None:
            return
        engine = postgresql_engine(server, None)
        try:
            with engine.begin() as connection:
                for wiring in self.mode.services:
                    drop_schema(connection, schema_of(wiring, self.ground.run))
        finally:
            engine.dispose()
