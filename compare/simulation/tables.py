"""Databases in memory, of which an image can be taken and put back: the services' own tables and statements.

Where two instances of a service work at once, one's transaction runs within the other's, between its reading
and its writing, as READ COMMITTED lets them. What keeps them apart then is the row locks of
`RowTable.load`, which are kept here: SQLite has none of its own, since it lets nobody write beside another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec.msgpack import Decoder
from sqlalchemy import Connection, Table, delete

from common.envelope import Outgoing
from common.store.database import Database
from common.store.schema import COUNTERS, HISTORY, OUTBOX
from compare.simulation.broker import telling

Image = bytes

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When every history begins."""
GRAIN: Final = timedelta(milliseconds=10)
"""Moments nearer to each other than this are taken for the same when states are compared."""

_PARCEL: Final = Decoder(list[Outgoing])
_UNTOLD: Final = frozenset({"created_at", "updated_at", "received_at", "at", "sequence"})
"""Columns that tell when something was, or count it; nothing that comes later depends on them."""
_DUE: Final = "due_at"
_DEAD_LETTERS: Final = "dead_letter"


class MemoryDatabase(Database):
    """A service's database, in this process's memory."""

    def __init__(self, tables: Iterable[Table]) -> None:
        self._under_way: Connection | None = None
        super().__init__("sqlite://", tables, synchronous="OFF")
        # The pool keeps one connection for each thread, and there is one thread.
        self._driver: Any = self.engine.raw_connection().driver_connection
        self._carrier = sqlite3.connect(":memory:")
        self._empty = self.image()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction; within one that is under way, it becomes part of that."""
        if self._under_way is not None:
            with self._under_way.begin_nested():
                yield self._under_way
            return
        with super().write() as connection:
            self._under_way = connection
            try:
                yield connection
            finally:
                self._under_way = None

    def image(self) -> Image:
        """All that is in it."""
        image: bytes = self._driver.serialize()
        return image

    def put_back(self, image: Image) -> None:
        """Be again as when the image was taken."""
        # Not at once: SQLite 3.40 dies of the driver's prepared statements, which don't survive that.
        self._carrier.deserialize(image)
        self._carrier.backup(self._driver)

    def clear(self) -> None:
        """Be empty again."""
        self.put_back(self._empty)

    def content(self) -> list[tuple[str, list[tuple[Any, ...]]]]:
        """What is in it, table by table, in so far as what comes next can depend on it."""
        return [(table.name, self._rows(table)) for table in self.tables]

    def everything(self) -> list[list[tuple[Any, ...]]]:
        """All that is in it, and the numbers that it has given to parcels."""
        names = [*(table.name for table in self.tables), "sqlite_sequence"]
        return [self._find(f'SELECT * FROM "{name}"') for name in names]  # noqa: S608 - names of this code

    def _rows(self, table: Table) -> list[tuple[Any, ...]]:
        if table is OUTBOX:
            parcels = self._find("SELECT sequence, content FROM outbox ORDER BY sequence")
            return [(number, *map(telling, _PARCEL.decode(content))) for number, content in parcels]
        if table is COUNTERS:
            return self._find("SELECT total FROM counters WHERE name = ?", _DEAD_LETTERS)
        columns = [one.name for one in table.columns if one.name not in _UNTOLD]
        order = "sequence" if table is HISTORY else columns[0]
        names = ", ".join(f'"{name}"' for name in columns)
        rows = self._find(f'SELECT {names} FROM "{table.name}" ORDER BY "{order}"')  # noqa: S608 - names of this code
        if _DUE in columns:
            at = columns.index(_DUE)
            rows = [(*row[:at], _grain(row[at]), *row[at + 1 :]) for row in rows]
        return rows

    def close(self) -> None:
        """Give the memory back."""
        super().close()
        self._carrier.close()

    def forget(self, table: Table) -> None:
        """Remove all rows of a table."""
        with self.write() as transaction:
            transaction.execute(delete(table))

    def _find(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._driver.execute(sql, parameters).fetchall()
        return found


def _grain(due_at: str | None) -> int | None:
    """A time as a number of grains since the beginning."""
    if due_at is None:
        return None
    return grains(datetime.fromisoformat(due_at))


def grains(moment: datetime) -> int:
    """How many grains there are from the beginning to a moment."""
    return (moment - START) // GRAIN
