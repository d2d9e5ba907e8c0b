"""How the state that a decider works on is put together from rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct
from sqlalchemy import Connection, Table

from common.domain.inventory import Inventory, Reservation, Stock
from common.messages import Message, ReserveInventory
from common.store.rows import LoadedRows, RowTable

S = TypeVar("S")
R = TypeVar("R", bound=Struct)


class Repository(Protocol[S]):
    """The states that one batch touches."""

    def load(self, transaction: Connection, commands: Sequence[Message]) -> None:
        """Load all that these commands touch."""

    def state(self, command: Message) -> S:
        """The state that this command meets."""

    def keep(self, state: S) -> None:
        """Keep what a decider made of a state."""

    def save(self, transaction: Connection, at: str) -> None:
        """Write what has changed; `at` is the time, RFC 3339."""


class Storage(Protocol[S]):
    """A service's domain tables, and the way to open a repository over them for one batch."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of the domain's rows."""

    def open(self) -> Repository[S]:
        """A repository for one batch."""


class RowPerOrder(Generic[R]):
    """A service whose state is one row per order, or None before it."""

    def __init__(self, rows: RowTable[R]) -> None:
        self._rows = rows
        self.tables = (rows.table,)

    def open(self) -> Repository[R | None]:
        """A repository for one batch."""
        return _SingleRows(self._rows)


class _SingleRows(Generic[R]):
    def __init__(self, rows: RowTable[R]) -> None:
        self._rows = LoadedRows(rows)

    def load(self, transaction: Connection, commands: Sequence[Message]) -> None:
        self._rows.load(transaction, (command.order_id for command in commands))

    def state(self, command: Message) -> R | None:
        return self._rows.get(command.order_id)

    def keep(self, state: R | None) -> None:
        if state is not None:
            self._rows.put(state)

    def save(self, transaction: Connection, at: str) -> None:
        self._rows.save(transaction, at)


class StockRoom:
    """The Inventory service's two tables: the free stock by item, and the reservations by order."""

    def __init__(self, stock: RowTable[Stock], reservations: RowTable[Reservation]) -> None:
        self._stock = stock
        self._reservations = reservations
        self.tables = (stock.table, reservations.table)

    def open(self) -> Repository[Inventory]:
        """A repository for one batch."""
        return _Inventories(self._stock, self._reservations)


class _Inventories:
    def __init__(self, stock: RowTable[Stock], reservations: RowTable[Reservation]) -> None:
        self._stock = LoadedRows(stock)
        self._reservations = LoadedRows(reservations)

    def load(self, transaction: Connection, commands: Sequence[Message]) -> None:
        self._reservations.load(transaction, (command.order_id for command in commands))
        items = (self._item(command) for command in commands)
        self._stock.load(transaction, (item for item in items if item is not None))

    def state(self, command: Message) -> Inventory:
        item = self._item(command)
        return Inventory(
            stock=self._stock.get(item) if item is not None else None,
            reservation=self._reservations.get(command.order_id),
        )

    def keep(self, state: Inventory) -> None:
        if state.stock is not None:
            self._stock.put(state.stock)
        if state.reservation is not None:
            self._reservations.put(state.reservation)

    def save(self, transaction: Connection, at: str) -> None:
        self._stock.save(transaction, at)
        self._reservations.save(transaction, at)

    def _item(self, command: Message) -> str | None:
        """The item that a command is about; a release names none, the reservation does."""
        held = self._reservations.get(command.order_id)
        if held is not None:
            return held.item
        return command.item if isinstance(command, ReserveInventory) else None
