"""The services' databases in the tests, of either kind: one is known by its name and a folder.

On PostgreSQL a folder is a name only, and need not exist: with the database's name, it stands for a schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from shutil import copytree
from typing import Any, Final, Protocol

import pytest
from sqlalchemy import Connection, Engine, Table, inspect, text
from sqlalchemy.engine.interfaces import DBAPIConnection

from common.store.database import Database
from common.store.postgresql import postgresql_engine, server_url


@contextmanager
def each_connection(engine: Engine, act: Callable[[Any], None]) -> Iterator[None]:
    """Have something done with each connection of an engine as soon as it is open; all are opened anew.

    Not by a listener: to add or remove one while another thread connects is an error in that thread.
    """
    connect = engine.dialect.connect

    def supervised(*arguments: Any, **options: Any) -> DBAPIConnection:  # noqa: ANN401 - passed on as they are
        connection = connect(*arguments, **options)
        act(connection)
        return connection

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine.dialect, "connect", supervised)
            engine.dispose()
            yield
    finally:
        engine.dispose()


class Databases(Protocol):
    """A kind of database. What is opened survives the death of a process, but no power cut."""

    def open(self, name: str, folder: Path, tables: Iterable[Table]) -> Database:
        """Open a database, be it new or not; the caller closes it."""

    def copy(self, source: Path, target: Path) -> None:
        """Copy all databases of a folder as they are at this moment, as if every process died now."""


class SQLiteFiles:
    """Files in the folder."""

    def open(self, name: str, folder: Path, tables: Iterable[Table]) -> Database:
        folder.mkdir(parents=True, exist_ok=True)
        return Database(f"sqlite:///{folder / name}.db", tables, synchronous="OFF")

    def copy(self, source: Path, target: Path) -> None:
        copytree(source, target)


SQLITE: Final = SQLiteFiles()


class PostgresSchemas:
    """Schemas on one server; `url` is what a user would set."""

    def __init__(self, url: str) -> None:
        self._url = server_url(url)

    def open(self, name: str, folder: Path, tables: Iterable[Table]) -> Database:
        return Database(self._url, tables, synchronous="OFF", schema=f"{name}_{_key(folder)}")

    def copy(self, source: Path, target: Path) -> None:
        engine = postgresql_engine(self._url, None)
        with engine.begin() as connection:
            for schema in inspect(connection).get_schema_names():
                name, _, key = schema.rpartition("_")
                if key == _key(source):
                    _copy_schema(connection, schema, f"{name}_{_key(target)}")
        engine.dispose()


def _copy_schema(connection: Connection, source: str, target: str) -> None:
    connection.execute(text(f"CREATE SCHEMA {target}"))
    for table in inspect(connection).get_table_names(source):
        # A column that numbers itself goes on with the source's numbers, which is no matter.
        connection.execute(text(f"CREATE TABLE {target}.{table} (LIKE {source}.{table} INCLUDING ALL)"))
        connection.execute(text(f"INSERT INTO {target}.{table} TABLE {source}.{table}"))


def _key(folder: Path) -> str:
    return sha256(str(folder).encode()).hexdigest()[:16]
