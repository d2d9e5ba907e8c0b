"""Inbox, outbox and history: what makes an effect happen exactly once over deliveries at least once.

Sources: Pat Helland, "Life beyond Distributed Transactions" (2007); Chris Richardson, "Transactional outbox"
and "Idempotent consumer" (microservices.io).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, select

from common.envelope import Outgoing
from common.store.schema import HISTORY, INBOX, OUTBOX

# Built once: for small batches, building a statement would cost as much as running it.
_MOST_VARIABLES: Final = 1_000
"""In one statement; databases have limits, and after a long outage there may be many records to forget."""
_KNOWN: Final = select(INBOX.c.message_id).where(
    INBOX.c.message_id.in_(bindparam("message_ids", expanding=True))
)
_RECEIVE: Final = INBOX.insert()
_KEEP: Final = OUTBOX.insert()
_FORGET: Final = delete(OUTBOX).where(OUTBOX.c.message_id.in_(bindparam("sent", expanding=True)))
_WRITE_DOWN: Final = HISTORY.insert()


class Change(NamedTuple):
    """A change of state, as the history keeps it."""

    order_id: str
    cause_id: str
    from_status: str
    to_status: str
    at: str


def first_seen(transaction: Connection, message_ids: Sequence[str], at: str) -> set[str]:
    """Enter the ids into the inbox and return those that were not in it."""
    known = set(transaction.scalars(_KNOWN, {"message_ids": message_ids}))
    new = dict.fromkeys(message_id for message_id in message_ids if message_id not in known)
    if new:
        rows = [{"message_id": message_id, "received_at": at} for message_id in new]
        transaction.execute(_RECEIVE, rows)
    return set(new)


def add_to_outbox(transaction: Connection, outgoing: Sequence[Outgoing]) -> None:
    """Keep records until the broker has acknowledged them."""
    if outgoing:
        transaction.execute(
            _KEEP,
            [
                {
                    "message_id": record.id,
                    "topic": record.topic,
                    "partition": record.partition,
                    "key": record.key,
                    "value": record.value,
                    "headers": [[name, value.decode()] for name, value in record.headers],
                }
                for record in outgoing
            ],
        )


def unsent(transaction: Connection, partitions: Sequence[int]) -> list[Outgoing]:
    """What an earlier run, or owner of these partitions, may have left unpublished, oldest first."""
    query = select(OUTBOX).where(OUTBOX.c.partition.in_(partitions)).order_by(OUTBOX.c.sequence)
    return [
        Outgoing(
            id=row.message_id,
            topic=row.topic,
            partition=row.partition,
            key=row.key,
            value=row.value,
            headers=tuple((name, value.encode()) for name, value in row.headers),
        )
        for row in transaction.execute(query)
    ]


def forget_sent(transaction: Connection, message_ids: Collection[str]) -> None:
    """Drop what the broker has acknowledged."""
    if message_ids:
        sent = list(message_ids)
        for start in range(0, len(sent), _MOST_VARIABLES):
            transaction.execute(_FORGET, {"sent": sent[start : start + _MOST_VARIABLES]})


def backlog(transaction: Connection) -> int:
    """How many records wait to be published or to be forgotten."""
    return transaction.scalar(select(func.count()).select_from(OUTBOX)) or 0


def add_history(transaction: Connection, changes: Sequence[Change]) -> None:
    """Write down what changed and why."""
    if changes:
        transaction.execute(_WRITE_DOWN, [change._asdict() for change in changes])


def history(transaction: Connection, order_id: str | None = None) -> list[Change]:
    """The changes of one order, or of all, oldest first."""
    columns = [HISTORY.c[name] for name in Change._fields]
    query = select(*columns).order_by(HISTORY.c.sequence)
    if order_id is not None:
        query = query.where(HISTORY.c.order_id == order_id)
    return [Change(*row) for row in transaction.execute(query)]
