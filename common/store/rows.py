"""Domain rows: frozen structs on one side, a table derived from them on the other.

A batch loads the rows that it touches in one query per table and writes the changed ones back in at most
three statements, however many records it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any, Final, Generic, TypeVar, get_args, get_type_hints

from msgspec import Struct, convert, to_builtins
from msgspec.json import decode, encode
from msgspec.structs import fields
from sqlalchemy import JSON, BigInteger, Column, Connection, Table
from sqlalchemy.types import TypeEngine

from common.store.schema import METADATA
from common.store.statements import Statement, delete_from, insert_into, quoted, select_from, update
from common.store.types import TEXT

R = TypeVar("R", bound=Struct)

_STAMPS: Final = ("created_at", "updated_at")


class RowTable(Generic[R]):
    """The table of a struct: a column per field, the first being the primary key, and two time stamps.

    The struct has to be `array_like`: rows are sequences, and are converted as such, whole batches at a time.
    """

    def __init__(self, row_type: type[R], name: str) -> None:
        self.row_type = row_type
        self.fields = tuple(field.name for field in fields(row_type))
        self.key, *rest = self.fields
        plain = {field: _without_none(hint) for field, hint in get_type_hints(row_type).items()}
        types = {field: _sql_type(plain[field]) for field in self.fields}
        self.table = Table(
            name,
            METADATA,
            Column(self.key, TEXT, primary_key=True),
            *(Column(field, types[field]) for field in rest),
            *(Column(stamp, TEXT, nullable=False) for stamp in _STAMPS),
        )
        self._lists = [index for index, field in enumerate(self.fields) if isinstance(types[field], JSON)]
        # Locked in key order, so that two instances of a service can't block each other for good (PostgreSQL;
        # SQLite's write transaction has locked the whole database already).
        find = select_from(name, self.fields, self.key)
        self.load = Statement(find, f"{find} ORDER BY {quoted(self.key)} FOR UPDATE")
        self.add = Statement(insert_into(name, (*self.fields, *_STAMPS)))
        self.change = Statement(update(name, (*rest, "updated_at"), self.key))
        self.remove = Statement(delete_from(name, self.key))

    def rows(self, stored: Sequence[Sequence[Any]]) -> list[R]:
        """Build the structs from what the database has in the columns of `fields`."""
        if self._lists:
            stored = [self._revived(row) for row in stored]
        return convert(stored, list[self.row_type])  # type: ignore[name-defined] # a type that is a value

    def columns(self, rows: Sequence[R]) -> list[list[Any]]:
        """What the database is to have for each row in the columns of `fields`."""
        columns: list[list[Any]] = to_builtins(rows)
        for index in self._lists:
            for row in columns:
                row[index] = encode(row[index]).decode()
        return columns

    def _revived(self, row: Sequence[Any]) -> list[Any]:
        revived = list(row)
        for index in self._lists:
            # PostgreSQL's driver has read it already.
            if isinstance(revived[index], str):
                revived[index] = decode(revived[index])
        return revived


class LoadedRows(Generic[R]):
    """The rows of one table that one batch touches."""

    def __init__(self, table: RowTable[R]) -> None:
        self._table = table
        self._key = table.key
        self._stored: dict[str, R] = {}
        self._changed: dict[str, R] = {}
        self._dropped: set[str] = set()

    def load(self, transaction: Connection, keys: Iterable[str]) -> None:
        """Load and lock the rows with these keys; a key without a row is no error."""
        wanted = sorted(set(keys))
        if wanted:
            for row in self._table.rows(self._table.load.run(transaction, wanted)):
                self._stored[getattr(row, self._key)] = row

    def get(self, key: str) -> R | None:
        """The row as the batch has it so far."""
        if key in self._dropped:
            return None
        return self._changed.get(key) or self._stored.get(key)

    def put(self, row: R) -> None:
        """Keep a row to be written when the batch is saved."""
        key = getattr(row, self._key)
        if self.get(key) != row:
            self._changed[key] = row
            self._dropped.discard(key)

    def drop(self, key: str) -> None:
        """Have a row removed when the batch is saved, if there is one."""
        if self._changed.pop(key, None) is not None or key in self._stored:
            self._dropped.add(key)

    def save(self, transaction: Connection, at: str) -> None:
        """Write what has changed."""
        added = [row for key, row in self._changed.items() if key not in self._stored]
        changed = [row for key, row in self._changed.items() if key in self._stored]
        self._table.add.run_for(transaction, [(*row, at, at) for row in self._table.columns(added)])
        self._table.change.run_for(
            transaction, [(*rest, at, key) for key, *rest in self._table.columns(changed)]
        )
        if dropped := sorted(self._dropped & self._stored.keys()):
            self._table.remove.run(transaction, dropped)


def _without_none(annotation: Any) -> Any:  # noqa: ANN401 - annotations have no common type
    members = get_args(annotation)
    return next(one for one in members if one is not NoneType) if NoneType in members else annotation


def _sql_type(kind: Any) -> TypeEngine[Any]:  # noqa: ANN401 - an annotation
    if kind is int:
        return BigInteger()
    if isinstance(kind, type) and issubclass(kind, str):
        return TEXT
    return JSON()
