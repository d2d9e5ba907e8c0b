"""Domain rows: frozen dataclasses on one side, a table derived from them on the other.

A batch loads the rows that it touches in one query per table and writes the changed ones back in at most two
statements, however many records it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from enum import StrEnum
from types import NoneType
from typing import Any, Final, Generic, TypeVar, get_args, get_type_hints

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    Column,
    Connection,
    Table,
    bindparam,
    select,
)
from sqlalchemy.types import TypeEngine

from common.store.schema import METADATA
from common.store.types import TEXT

R = TypeVar("R")

_STAMPS: Final = ("created_at", "updated_at")


class RowTable(Generic[R]):
    """The table of a dataclass: a column per field, the first being the primary key, and two time stamps."""

    def __init__(self, row_type: type[R], name: str) -> None:
        self.row_type = row_type
        self.key, *rest = (field.name for field in fields(row_type))  # type: ignore[arg-type] # R is a dataclass
        plain = {field: _without_none(hint) for field, hint in get_type_hints(row_type).items()}
        self._revive = {field: _reviver(kind) for field, kind in plain.items() if kind not in {int, str}}
        self.table = Table(
            name,
            METADATA,
            Column(self.key, TEXT, primary_key=True),
            *(Column(field, _sql_type(plain[field])) for field in rest),
            *(Column(stamp, TEXT, nullable=False) for stamp in _STAMPS),
        )
        # The statements are built once: for small batches, building them would cost as much as running them.
        key = self.table.c[self.key]
        # Locked in key order, so that two instances of a service can't block each other for good (PostgreSQL;
        # SQLite's write transaction has locked the whole database already).
        wanted = key.in_(bindparam("wanted", expanding=True))
        self.load = select(self.table).where(wanted).order_by(key).with_for_update()
        self.add = self.table.insert()
        changed: dict[str, BindParameter[Any]] = {name: bindparam(name) for name in (*rest, "updated_at")}
        self.change = self.table.update().where(key == bindparam("which")).values(changed)
        self.remove = self.table.delete().where(key.in_(bindparam("unwanted", expanding=True)))

    def row(self, stored: Mapping[str, Any]) -> R:
        """Build the dataclass from a database row; text becomes the enumeration it was, a list a tuple."""
        values = {name: value for name, value in stored.items() if name not in _STAMPS}
        for name, revive in self._revive.items():
            if values[name] is not None:
                values[name] = revive(values[name])
        return self.row_type(**values)

    def values(self, row: R) -> dict[str, Any]:
        """The columns of a row, without its time stamps."""
        return {field.name: getattr(row, field.name) for field in fields(row)}  # type: ignore[arg-type] # as above


class LoadedRows(Generic[R]):
    """The rows of one table that one batch touches."""

    def __init__(self, table: RowTable[R]) -> None:
        self._table = table
        self._stored: dict[str, R] = {}
        self._changed: dict[str, R] = {}
        self._dropped: set[str] = set()

    def load(self, transaction: Connection, keys: Iterable[str]) -> None:
        """Load and lock the rows with these keys; a key without a row is no error."""
        wanted = sorted(set(keys))
        if not wanted:
            return
        for stored in transaction.execute(self._table.load, {"wanted": wanted}):
            row = self._table.row(stored._asdict())
            self._stored[getattr(row, self._table.key)] = row

    def get(self, key: str) -> R | None:
        """The row as the batch has it so far."""
        if key in self._dropped:
            return None
        return self._changed.get(key) or self._stored.get(key)

    def put(self, row: R) -> None:
        """Keep a row to be written when the batch is saved."""
        key = getattr(row, self._table.key)
        if self.get(key) != row:
            self._changed[key] = row
            self._dropped.discard(key)

    def drop(self, key: str) -> None:
        """Have a row removed when the batch is saved, if there is one."""
        if self._changed.pop(key, None) is not None or key in self._stored:
            self._dropped.add(key)

    def save(self, transaction: Connection, at: str) -> None:
        """Write what has changed."""
        added = [key for key in self._changed if key not in self._stored]
        updated = [key for key in self._changed if key in self._stored]
        if added:
            stamps = {"created_at": at, "updated_at": at}
            rows = [self._table.values(self._changed[key]) | stamps for key in added]
            transaction.execute(self._table.add, rows)
        if updated:
            transaction.execute(self._table.change, [self._update(key, at) for key in updated])
        dropped = sorted(self._dropped & self._stored.keys())
        if dropped:
            transaction.execute(self._table.remove, {"unwanted": dropped})

    def _update(self, key: str, at: str) -> dict[str, Any]:
        values = self._table.values(self._changed[key])
        return {"which": values.pop(self._table.key), **values, "updated_at": at}


def _without_none(annotation: Any) -> Any:  # noqa: ANN401 - annotations have no common type
    members = get_args(annotation)
    return next(one for one in members if one is not NoneType) if NoneType in members else annotation


def _reviver(kind: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - an annotation
    return kind if isinstance(kind, type) and issubclass(kind, StrEnum) else tuple


def _sql_type(kind: Any) -> TypeEngine[Any]:  # noqa: ANN401 - an annotation
    if kind is int:
        return BigInteger()
    if isinstance(kind, type) and issubclass(kind, str):
        return TEXT
    return JSON()
