"""Row locks, as PostgreSQL keeps them, over databases that have none.

`RowTable.load` reads `FOR UPDATE`: whoever needs a row that another transaction has read so waits until that
has ended. In a simulated history nobody waits; the transaction is undone, and may come later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from common.domain.inventory import Inventory
from common.errors import LabError
from common.messages import Message
from common.store.repository import Repository, Storage
from common.wiring import Wiring

S = TypeVar("S")


class WouldWaitError(LabError):
    """Another transaction has locked a row."""


@dataclass
class RowLocks:
    """The rows that the transaction under way has locked; `held` says whether locks are kept at all."""

    held: bool = True
    rows: set[str] = field(default_factory=set)
    nested: bool = False
    """Whether the rows that are read now are those of a second transaction, beside the first."""

    def take(self, rows: set[str]) -> None:
        """Lock rows.

        Raises:
            WouldWaitError: this is a second transaction, and the first has one of them.
        """
        if not self.nested:
            self.rows |= rows
        elif self.held and not self.rows.isdisjoint(rows):
            raise WouldWaitError

    def release(self) -> None:
        """The transaction has ended."""
        self.rows.clear()


def locking(wiring: Wiring, locks: RowLocks) -> Wiring:
    """The wiring, with a storage that keeps these locks."""
    return replace(
        wiring, domain=replace(wiring.domain, storage=_LockingStorage(wiring.domain.storage, locks))
    )


class _LockingStorage(Generic[S]):
    def __init__(self, storage: Storage[S], locks: RowLocks) -> None:
        self.tables = storage.tables
        self._storage = storage
        self._locks = locks

    def open(self) -> Repository[S]:
        return _LockingRepository(self._storage.open(), self._locks)


class _LockingRepository(Generic[S]):
    def __init__(self, repository: Repository[S], locks: RowLocks) -> None:
        self.state = repository.state
        self.keep = repository.keep
        self.save = repository.save
        self._repository = repository
        self._locks = locks

    def load(self, transaction: Connection, commands: Sequence[Message]) -> None:
        self._repository.load(transaction, commands)
        self._locks.take({row for command in commands for row in self._rows(command)})

    def _rows(self, command: Message) -> set[str]:
        state: Any = self._repository.state(command)
        stock = state.stock if isinstance(state, Inventory) else None
        return {command.order_id} | ({f"stock/{stock.item}"} if stock is not None else set())
