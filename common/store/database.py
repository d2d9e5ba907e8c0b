"""A service's database: SQLite by default; the schema and the statements are the same for any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

from sqlalchemy import Connection, Table, create_engine, event
from sqlalchemy.engine import Engine

from common.store.schema import METADATA, RUNTIME_TABLES

Synchronous = Literal["FULL", "OFF"]

_BUSY_TIMEOUT_MS: Final = 10_000


class Database:
    """A database that one service owns, and no other service reads.

    `url` is an SQLAlchemy URL, such as `sqlite:///data/order.db`. `synchronous` is SQLite's: with FULL a
    commit survives a power cut. With OFF it survives the death of the process, which is all that a database
    that goes with its broker or its run can need.
    """

    def __init__(self, url: str, tables: Iterable[Table], *, synchronous: Synchronous = "FULL") -> None:
        self.engine: Engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", partial(_prepare_sqlite, synchronous))
            event.listen(self.engine, "begin", _begin_sqlite)
        # Idempotent: an instance that starts beside another finds the tables there.
        METADATA.create_all(self.engine, tables=[*RUNTIME_TABLES, *tables])

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; it commits at the end, or rolls back on an error."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view that blocks no writer."""
        with self.engine.connect().execution_options(read_only=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection; the database is still usable after a crash that comes first."""
        self.engine.dispose()


def _prepare_sqlite(synchronous: Synchronous, connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection is untyped
    # The driver must not begin transactions by itself: it would begin them deferred, see _begin_sqlite.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {_BUSY_TIMEOUT_MS}",
        f"synchronous = {synchronous}",
        "journal_mode = WAL",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails at once with SQLITE_BUSY_SNAPSHOT when another
    # writer was faster, whatever the timeout; IMMEDIATE waits for its turn before it reads.
    read_only = connection.get_execution_options().get("read_only")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
