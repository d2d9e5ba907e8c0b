"""Deadlines, and all the tables that every service has beside its domain's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, Index, Table, select

from common.envelope import MOST_ATTEMPTS, Cause
from common.store.rows import RowTable
from common.store.schema import COUNTERS, HISTORY, INBOX, OUTBOX, RETRIES
from common.store.statements import Statement, insert_into, quoted


class Deadline(Struct, frozen=True, array_like=True):
    """What a service waits for about one order, until when, and how to ask for it again.

    The cause is that of what is outstanding: what is sealed with it once more keeps its identity.
    """

    order_id: str
    partition: int
    due_at: str | None
    """RFC 3339, UTC; None while an operator is waited for."""
    tries: int
    """How often it has been asked for since the order's status has changed."""
    final: int
    """1 if there are no tries left when it is due."""
    attempt: int
    """Of what was asked for last."""
    cause_id: str
    correlation_id: str
    trace_id: str

    def again(self) -> Cause:
        """The cause of the next attempt."""
        attempt = min(self.attempt + 1, MOST_ATTEMPTS)
        return Cause(self.cause_id, self.correlation_id, self.trace_id, self.partition, attempt)


DEADLINES: Final = RowTable(Deadline, "deadlines")
Index("deadlines_by_time", DEADLINES.table.c.due_at)

_RETRIED: Final = select(RETRIES.c.order_id).where(RETRIES.c.order_id == DEADLINES.table.c.order_id).exists()
"""Whether a retry is about to go on with the order of a deadline."""

_COLUMNS: Final = (*DEADLINES.fields, "created_at", "updated_at")
_CHANGED: Final = ", ".join(
    f"{quoted(column)} = excluded.{quoted(column)}"
    for column in _COLUMNS
    if column not in {DEADLINES.key, "created_at"}
)
_SET: Final = Statement(
    f"{insert_into('deadlines', _COLUMNS)} ON CONFLICT ({quoted(DEADLINES.key)}) DO UPDATE SET {_CHANGED}"
)
_NEXT_DUE: Final = Statement(
    "SELECT min(due_at) FROM ("
    "SELECT * FROM (SELECT due_at FROM deadlines WHERE due_at IS NOT NULL AND partition IN :numbers "
    "AND NOT EXISTS (SELECT 1 FROM retries WHERE retries.order_id = deadlines.order_id) "
    "ORDER BY due_at LIMIT 1) AS deadline UNION ALL "
    "SELECT * FROM (SELECT due_at FROM retries WHERE partition IN :numbers ORDER BY due_at LIMIT 1) AS retry"
    ") AS found"
)

RUNTIME_TABLES: Final[tuple[Table, ...]] = (INBOX, OUTBOX, HISTORY, RETRIES, COUNTERS, DEADLINES.table)


class Deadlines:
    """The deadlines of the orders that one batch is about.

    Most commands set or drop one, whatever was there, so only those that ask for it have it loaded. It needs
    no lock of its own: whoever touches it has locked, or is adding, the domain's row of the same order.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Deadline] = {}
        self._set: dict[str, Deadline | None] = {}
        """None where it is to be dropped."""

    def load(self, transaction: Connection, order_ids: Iterable[str]) -> None:
        """Load those of these orders that there are."""
        wanted = sorted(set(order_ids))
        if wanted:
            found = DEADLINES.rows(DEADLINES.load.run(transaction, wanted))
            self._loaded |= {deadline.order_id: deadline for deadline in found}

    def get(self, order_id: str) -> Deadline | None:
        """The deadline of an order as the batch has it so far, if that was loaded or set."""
        return self._set[order_id] if order_id in self._set else self._loaded.get(order_id)

    def put(self, deadline: Deadline) -> None:
        """Set an order's deadline when the batch is saved."""
        self._set[deadline.order_id] = deadline

    def drop(self, order_id: str) -> None:
        """Have an order wait for nothing any more when the batch is saved."""
        self._set[order_id] = None

    def save(self, transaction: Connection, at: str) -> None:
        """Write what is set."""
        kept = [deadline for _, deadline in sorted(self._set.items()) if deadline is not None]
        _SET.run_for(transaction, [(*row, at, at) for row in DEADLINES.columns(kept)])
        if dropped := sorted(order_id for order_id, deadline in self._set.items() if deadline is None):
            DEADLINES.remove.run(transaction, dropped)


def due_deadlines(transaction: Connection, partitions: Sequence[int], at: str, most: int) -> list[Deadline]:
    """The deadlines that have passed; not those of orders that a retry is about to go on with.

    They are not locked here, or two transactions could wait for each other: all lock an order's row first. So
    whether a deadline still stands has to be looked at again when it is.
    """
    table = DEADLINES.table
    query = (
        select(*(table.c[field] for field in DEADLINES.fields))
        .where(table.c.due_at <= at, table.c.partition.in_(partitions), ~_RETRIED)
        .order_by(table.c.due_at)
        .limit(most)
    )
    return DEADLINES.rows(list(map(tuple, transaction.execute(query))))


def next_due(transaction: Connection, partitions: Sequence[int]) -> str | None:
    """When the first of all deadlines and retries is due; None if there are none."""
    [(due,)] = _NEXT_DUE.run(transaction, list(partitions), list(partitions))
    return None if due is None else str(due)
