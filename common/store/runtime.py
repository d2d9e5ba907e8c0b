"""Deadlines, and all the tables that every service has beside its domain's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, Index, Table, select

from common.envelope import MOST_ATTEMPTS, Cause
from common.store.rows import RowTable
from common.store.schema import COUNTERS, HISTORY, INBOX, OUTBOX, RETRIES
from common.store.statements import Statement


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

_NEXT_DUE: Final = Statement(
    "SELECT min(due_at) FROM ("
    "SELECT * FROM (SELECT due_at FROM deadlines WHERE due_at IS NOT NULL AND partition IN :numbers "
    "AND NOT EXISTS (SELECT 1 FROM retries WHERE retries.order_id = deadlines.order_id) "
    "ORDER BY due_at LIMIT 1) AS deadline UNION ALL "
    "SELECT * FROM (SELECT due_at FROM retries WHERE partition IN :numbers ORDER BY due_at LIMIT 1) AS retry"
    ") AS found"
)

RUNTIME_TABLES: Final[tuple[Table, ...]] = (INBOX, OUTBOX, HISTORY, RETRIES, COUNTERS, DEADLINES.table)


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
