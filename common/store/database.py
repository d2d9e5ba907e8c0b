"""A service's database: SQLite or PostgreSQL, with the same schema and the same statements.

What keeps two instances of a service from undoing each other's changes: SQLite lets one transaction write at
a time, and a `write` begins by waiting for its turn. PostgreSQL lets them all, and `RowTable.load` locks the
rows that it reads until the transaction ends. A row that isn't there yet can't be locked: of two instances
that add it at once, the second waits for the first and then gets an IntegrityError, with nothing changed; it
tries again, and finds the row. Where that won't do there is `write_alone`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, Literal
from urllib.parse import quote

from sqlalchemy import URL, Connection, Table, create_engine, event, make_url
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement

from common.store.postgresql import (
    READING,
    create_schema,
    postgresql_engine,
    server_place,
    take_turns,
)
from common.store.runtime import RUNTIME_TABLES
from common.store.schema import METADATA
from common.store.statements import execute, is_doubtful

Synchronous = Literal["FULL", "NORMAL", "OFF"]

_BUSY_TIMEOUT_MS: Final = 10_000
_SWITCH_AGAIN_S: Final = 0.01
_SWITCH_LIMIT_S: Final = 1.0
_READ_ONLY: Final = "read_only"
"""Where a connection's record has whether it refuses to write."""
_FILE: Final = "file"
_LOG: Final = "log"
"""Where a connection's record has the identities of the file, and the write-ahead log, that it is to."""


class Database:
    """A database that one service owns, and no other service reads.

    `url` is an SQLAlchemy URL, such as `sqlite:///data/order.db`, or `postgresql+psycopg://...` with the
    `schema` that the service's tables are in, which is created if need be. `str` tells where it is, without
    credentials. `synchronous` is SQLite's: with FULL a commit survives a power cut. With NORMAL the latest
    may be lost in one, though the database stays sound. With OFF it survives the death of the process, which
    is all that a database can need that goes with its broker or its run. For PostgreSQL it changes nothing:
    the server can crash by itself, and the broker stay.

    Raises:
        SQLAlchemyError: it can't be opened.
    """

    def __init__(
        self,
        url: str | URL,
        tables: Iterable[Table],
        *,
        synchronous: Synchronous = "FULL",
        schema: str | None = None,
    ) -> None:
        self.tables = (*RUNTIME_TABLES, *tables)
        """What is in it."""
        parsed = make_url(url)
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        self.engine: Engine
        if self._is_sqlite:
            self._place = parsed.database or "memory"
            self.engine = _sqlite_engine(parsed, synchronous)
            self._reading: dict[str, Any] = {"read_only": True}
        else:
            self._place = server_place(parsed) + (f", schema {schema}" if schema else "")
            self.engine = postgresql_engine(parsed, schema)
            self._reading = READING
        try:
            self._create(schema)
        except SQLAlchemyError:
            self.close()
            raise

    def __str__(self) -> str:
        return self._place

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; it commits at the end, or rolls back on an error."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write_alone(self) -> Iterator[Connection]:
        """A `write` that runs beside no other `write_alone` of any instance."""
        with self.write() as connection:
            if not self._is_sqlite:
                take_turns(connection)
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view that blocks no writer; to write in it is an error."""
        with self.engine.connect().execution_options(**self._reading) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection; the database is still usable after a crash that comes first."""
        self.engine.dispose()

    def _create(self, schema: str | None) -> None:
        # Alone, since what two instances create at once is an error for one of them, even with IF NOT EXISTS.
        # An instance that starts beside another, or later, finds the tables there.
        with self.write_alone() as connection:
            if schema is not None:
                create_schema(connection, schema)
            if self._is_sqlite:
                for statement in _definitions(self.tables):
                    execute(connection, statement)
            else:
                # Where a table is there already, this asks for no right to create it.
                METADATA.create_all(connection, tables=self.tables)


@cache
def _definitions(tables: tuple[Table, ...]) -> list[str]:
    """The SQL that makes tables where they are missing; a replay does so for each of its services."""
    dialect = sqlite.dialect()
    made: list[DDLElement] = [CreateTable(table, if_not_exists=True) for table in tables]
    made += [CreateIndex(index, if_not_exists=True) for table in tables for index in table.indexes]
    return [str(one.compile(dialect=dialect)) for one in made]


def _sqlite_engine(url: URL, synchronous: Synchronous) -> Engine:
    if url.database is None:
        engine = create_engine(url)
    else:
        file = Path(url.database)
        with suppress(OSError):  # to connect will say why it can't be there
            file.touch()
        # From now on it is opened only if it is there. A file that somebody has removed would be made anew,
        # and the service go on with an empty one, as if there had never been an order.
        engine = create_engine(
            url.set(database=f"file:{quote(str(file))}", query={"mode": "rw", "uri": "true"})
        )
        event.listen(engine, "handle_error", _distrust)
    event.listen(engine, "connect", partial(_prepare_sqlite, synchronous))
    event.listen(engine, "begin", _begin_sqlite)
    if url.database is not None:
        _watch_files(engine, Path(url.database))
    return engine


def _watch_files(engine: Engine, file: Path) -> None:
    log = file.with_name(f"{file.name}-wal")
    # Before it is opened. One that is put in its place at that moment would else be noted for the one that is
    # open, and what is written go to a file that has no name any more.
    event.listen(engine, "do_connect", partial(_note, _FILE, file))
    # After the connection is prepared: only then is there a log.
    event.listen(engine, "connect", partial(_note, _LOG, log))
    event.listen(engine, "checkout", partial(_check_files, engine, file, log))


def _note(name: str, file: Path, _: object, record: Any, *__: object) -> None:  # noqa: ANN401 - the pool's record of a connection
    record.info[name] = _identity(file)


def _check_files(engine: Engine, file: Path, log: Path, _: object, record: Any, __: object) -> None:  # noqa: ANN401 - as above
    """See to it that nothing is written to a file that was removed, or replaced, since it was opened."""
    if record.info[_FILE] != _identity(file) or record.info[_LOG] != _identity(log):
        # All at once: the last to be closed saves what is in a log that was removed.
        engine.pool.dispose()
        raise InvalidatePoolError


def _identity(file: Path) -> tuple[int, int] | None:
    """What tells a file from others that may be in its place some day."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _distrust(context: ExceptionContext) -> None:
    """Open the file anew after an error that may stay with the connection although its cause is mended."""
    if is_doubtful(context.original_exception):
        context.is_disconnect = True


def _prepare_sqlite(synchronous: Synchronous, connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection is untyped
    # The driver must not begin transactions by itself: it would begin them deferred, see _begin_sqlite.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    _use_wal(connection)


def _use_wal(connection: Any) -> None:  # noqa: ANN401 - as above
    """Switch to WAL; unlike all else, that fails at once where another instance is about to do the same."""
    deadline = monotonic() + _SWITCH_LIMIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                raise
            sleep(_SWITCH_AGAIN_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails at once with SQLITE_BUSY_SNAPSHOT when another
    # writer was faster, whatever the timeout; IMMEDIATE waits for its turn before it reads.
    read_only = connection.get_execution_options().get("read_only", False)
    if connection.info.get(_READ_ONLY) is not read_only:
        execute(connection, f"PRAGMA query_only = {read_only:d}")
        connection.info[_READ_ONLY] = read_only
    execute(connection, "BEGIN" if read_only else "BEGIN IMMEDIATE")
