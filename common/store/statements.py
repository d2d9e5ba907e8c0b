"""The statements of every batch: plain SQL, built once, and run for all rows of the batch at once.

SQLAlchemy describes the tables and keeps the connections. But its own handling of a statement's parameters
costs several times what the database does with them, so these few go past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec.json import encode
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

_ELEMENTS: Final = "(SELECT value FROM json_each(?))"
_MARKS: Final = {
    "sqlite": {":texts": _ELEMENTS, ":numbers": _ELEMENTS},
    "postgresql": {
        "?": "%s",
        ":texts": "(SELECT unnest(%s::text[]))",
        ":numbers": "(SELECT unnest(%s::bigint[]))",
    },
}
"""By dialect: how it says what stands in a statement for a parameter, or for all elements of a list."""


class Statement:
    """SQL with `?` for each parameter, or `:texts` or `:numbers` for the elements of a list of those.

    `postgresql` is how that one says it, if not in the same way.
    """

    def __init__(self, sql: str, postgresql: str | None = None) -> None:
        texts = {"sqlite": sql, "postgresql": postgresql or sql}
        for dialect, marks in _MARKS.items():
            for mark, meaning in marks.items():
                texts[dialect] = texts[dialect].replace(mark, meaning)
        self._texts = texts

    def run(self, transaction: Connection, *parameters: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 - what a column holds
        """Run it once, and return the rows that it finds."""
        name = transaction.dialect.name
        if name == "sqlite":
            parameters = tuple(encode(one).decode() if type(one) is list else one for one in parameters)
        return execute(transaction, self._texts[name], parameters)

    def run_for(self, transaction: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Run it for each of these rows; for none, it does nothing."""
        if rows:
            execute(transaction, self._texts[transaction.dialect.name], rows, many=True)


def execute(
    connection: Connection, text: str, parameters: Sequence[Any] = (), *, many: bool = False
) -> list[tuple[Any, ...]]:
    """Run SQL as the driver takes it, and return the rows that it finds.

    Raises:
        DBAPIError: as SQLAlchemy itself would raise it; a connection that is broken is not used again.
    """
    cursor = connection.connection.cursor()
    found: list[tuple[Any, ...]] = []
    try:
        if many:
            cursor.executemany(text, parameters)
        else:
            cursor.execute(text, parameters)
            if cursor.description:
                found += cursor.fetchall()
        cursor.close()
    except connection.dialect.loaded_dbapi.Error as error:
        broken = connection.dialect.is_disconnect(error, connection.connection, cursor) or is_doubtful(error)
        if broken:
            connection.invalidate(error)
        raise DBAPIError.instance(
            text, None, error, connection.dialect.loaded_dbapi.Error,
            connection_invalidated=broken, dialect=connection.dialect,
        ) from error  # fmt: skip
    return found


def is_doubtful(error: BaseException | None) -> bool:
    """Whether it is an error that may stay with an SQLite connection although its cause is mended."""
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN"))


# The names below are those of tables and columns in this code, never data.


def insert_into(table: str, columns: Sequence[str]) -> str:
    """The SQL that adds a row."""
    names, marks = ", ".join(map(quoted, columns)), ", ".join("?" for _ in columns)
    return f"INSERT INTO {quoted(table)} ({names}) VALUES ({marks})"  # noqa: S608 - see above


def select_from(table: str, columns: Sequence[str], key: str) -> str:
    """The SQL that finds the rows whose key is in a list."""
    names = ", ".join(map(quoted, columns))
    return f"SELECT {names} FROM {quoted(table)} WHERE {quoted(key)} IN :texts"  # noqa: S608 - see above


def update(table: str, columns: Sequence[str], key: str) -> str:
    """The SQL that changes the row with a key, which is the last parameter."""
    changes = ", ".join(f"{quoted(column)} = ?" for column in columns)
    return f"UPDATE {quoted(table)} SET {changes} WHERE {quoted(key)} = ?"  # noqa: S608 - see above


def delete_from(table: str, key: str) -> str:
    """The SQL that removes the rows whose key is in a list."""
    return f"DELETE FROM {quoted(table)} WHERE {quoted(key)} IN :texts"  # noqa: S608 - see above


def quoted(name: str) -> str:
    """A name as SQL has it, though it may be one of its words."""
    return f'"{name}"'
