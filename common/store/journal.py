"""Inbox, outbox, retries and history: what makes an effect happen exactly once over deliveries at least once.

Sources: Pat Helland, "Life beyond Distributed Transactions" (2007); Chris Richardson, "Transactional outbox"
and "Idempotent consumer" (microservices.io).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec import to_builtins
from msgspec.msgpack import Decoder, encode
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from common.envelope import Headers, Outgoing
from common.store.schema import COUNTERS, HISTORY, IDEMPOTENCY, RETRIES
from common.store.statements import Statement, delete_from, insert_into

_INSERT: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
"""By dialect: the insert that can say what to do about a row that is there already."""
_RECEIVE: Final = Statement(
    "INSERT INTO inbox (received_at, message_id) SELECT ?, elements.value FROM json_each(?) AS elements "
    "WHERE true ON CONFLICT DO NOTHING RETURNING message_id",
    "INSERT INTO inbox (received_at, message_id) SELECT ?, unnest(?::text[]) "
    "ON CONFLICT DO NOTHING RETURNING message_id",
)
_UNRECEIVE: Final = Statement(delete_from("inbox", "message_id"))
_PUT_ASIDE: Final = {name: insert(RETRIES).on_conflict_do_nothing() for name, insert in _INSERT.items()}
_KEEP: Final = Statement(insert_into("outbox", ("partition", "records", "content")) + " RETURNING sequence")
_FORGET: Final = Statement("DELETE FROM outbox WHERE sequence = ?")
_BACKLOG: Final = Statement("SELECT coalesce(sum(records), 0) FROM outbox WHERE sequence NOT IN :numbers")
_UNSENT: Final = Statement(
    "SELECT sequence, content FROM outbox "
    "WHERE partition IN :numbers AND sequence > ? AND sequence <= ? AND sequence NOT IN :numbers "
    "ORDER BY sequence LIMIT ?"
)
_LATEST: Final = Statement("SELECT coalesce(max(sequence), 0) FROM outbox")
_COUNTS: Final = Statement("SELECT name, total FROM counters")
_OLD: Final = Statement(
    "SELECT message_id FROM inbox WHERE message_id < ? AND received_at < ? "
    "AND NOT EXISTS (SELECT 1 FROM retries WHERE inbox_key = message_id) LIMIT ?"
)
_WRITE_DOWN: Final = Statement(
    insert_into("history", ("order_id", "cause_id", "from_status", "to_status", "at"))
)
NO_PARCEL: Final = 2**63 - 1
"""A number that none will have."""
_PARCEL: Final = Decoder(list[Outgoing])


class Change(NamedTuple):
    """A change of state, as the history keeps it."""

    order_id: str
    cause_id: str
    from_status: str
    to_status: str
    at: str


class Retry(NamedTuple):
    """A record that could not be processed yet."""

    inbox_key: str
    order_id: str
    due_at: str
    tries: int
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def first_seen(transaction: Connection, message_ids: Sequence[str], at: str) -> set[str]:
    """Enter the ids into the inbox and return those that were not in it.

    In one statement: of two instances that are given the same message, the second waits for the first one's
    transaction, and then finds the id there.
    """
    if not message_ids:
        return set()
    return {message_id for (message_id,) in _RECEIVE.run(transaction, at, sorted(set(message_ids)))}


def forget_received(transaction: Connection, message_ids: Sequence[str]) -> None:
    """Take ids out of the inbox, for messages that had no effect after all and may come again."""
    if message_ids:
        _UNRECEIVE.run(transaction, list(message_ids))


def add_to_outbox(transaction: Connection, outgoing: Sequence[Outgoing]) -> None:
    """Keep records until the broker has acknowledged them, and note the parcel that each of them is in."""
    parcels: dict[int, list[Outgoing]] = {}
    for record in outgoing:
        parcels.setdefault(record.partition, []).append(record)
    for partition, records in parcels.items():
        [(sequence,)] = _KEEP.run(transaction, partition, len(records), encode(records))
        for record in records:
            record.parcel = sequence


def latest_parcel(transaction: Connection) -> int:
    """The highest number of a parcel in the outbox; 0 if it is empty."""
    [(latest,)] = _LATEST.run(transaction)
    return int(latest)


def unsent(  # noqa: PLR0913 - the last two have defaults, and are named where they are given
    transaction: Connection,
    partitions: Sequence[int],
    after: int,
    most: int,
    *,
    until: int = NO_PARCEL,
    without: Collection[int] = (),
) -> list[Outgoing]:
    """What an earlier run, or owner of these partitions, may have left unpublished, oldest first.

    It is in whole parcels, `most` at most, of those after number `after`, up to `until`, and `without` those.
    """
    found = []
    for sequence, content in _UNSENT.run(transaction, list(partitions), after, until, list(without), most):
        for record in _PARCEL.decode(content):
            record.parcel = sequence
            found.append(record)
    return found


def forget_sent(transaction: Connection, parcels: Collection[int]) -> None:
    """Drop what the broker has acknowledged."""
    _FORGET.run_for(transaction, [(parcel,) for parcel in sorted(parcels)])


def backlog(transaction: Connection, without: Collection[int]) -> int:
    """How many records wait to be published, in all parcels but those."""
    [(waiting,)] = _BACKLOG.run(transaction, list(without))
    return int(waiting)


def add_history(transaction: Connection, changes: Sequence[Change]) -> None:
    """Write down what changed and why."""
    # As plain text: the driver takes much longer to find out that an enumeration's member is one.
    _WRITE_DOWN.run_for(transaction, to_builtins(changes))


def history(transaction: Connection, order_id: str | None = None) -> list[Change]:
    """The changes of one order, or of all, oldest first."""
    columns = [HISTORY.c[name] for name in Change._fields]
    query = select(*columns).order_by(HISTORY.c.sequence)
    if order_id is not None:
        query = query.where(HISTORY.c.order_id == order_id)
    return [Change(*row) for row in transaction.execute(query)]


def add_retries(transaction: Connection, retries: Sequence[Retry]) -> None:
    """Keep records to be processed again when they are due; one that waits already is not kept twice."""
    if retries:
        rows = [{**retry._asdict(), "headers": _stored(retry.headers)} for retry in retries]
        transaction.execute(_PUT_ASIDE[transaction.dialect.name], rows)


def take_retries(transaction: Connection, partitions: Sequence[int], at: str, most: int) -> list[Retry]:
    """Take out the records of these partitions that are due, in the order in which they came in each."""
    due = (
        select(RETRIES)
        .where(RETRIES.c.partition.in_(partitions), RETRIES.c.due_at <= at)
        .order_by(RETRIES.c.due_at)
        .limit(most)
        .with_for_update()
    )
    taken = [Retry(**{**row._asdict(), "headers": _revived(row.headers)}) for row in transaction.execute(due)]
    if taken:
        keys = [retry.inbox_key for retry in taken]
        transaction.execute(delete(RETRIES).where(RETRIES.c.inbox_key.in_(keys)))
    return sorted(taken, key=lambda retry: (retry.topic, retry.partition, retry.offset))


def add_counts(transaction: Connection, counts: Mapping[str, int]) -> None:
    """Add to the counters."""
    if counts:
        add = _INSERT[transaction.dialect.name](COUNTERS)
        sums = add.on_conflict_do_update(
            index_elements=[COUNTERS.c.name], set_={"total": COUNTERS.c.total + add.excluded.total}
        )
        transaction.execute(sums, [{"name": name, "total": more} for name, more in sorted(counts.items())])


def counts(transaction: Connection) -> dict[str, int]:
    """The counters by name."""
    return dict(_COUNTS.run(transaction))


def clean_up(transaction: Connection, received_before: str, first_id: str, most: int) -> int:
    """Forget up to `most` messages that came before a time, and return how many it were.

    Ids begin with the time of their order, so with `first_id`, the lowest id of an order from that time, the
    primary key narrows the search down, and no further index has to be kept up to date for each message. What
    is still to be tried again stays known.
    """
    ids = [message_id for (message_id,) in _OLD.run(transaction, first_id, received_before, most)]
    forget_received(transaction, ids)
    return len(ids)


def claim_key(transaction: Connection, row: Mapping[str, Any]) -> bool:
    """Enter an idempotency key; whether it was not there before."""
    insert = _INSERT[transaction.dialect.name](IDEMPOTENCY).on_conflict_do_nothing()
    return transaction.scalar(insert.returning(IDEMPOTENCY.c.key), row) is not None


def forget_keys(transaction: Connection, claimed_before: str) -> None:
    """Forget idempotency keys from before a time."""
    transaction.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.claimed_at < claimed_before))


def _stored(headers: Headers) -> list[list[str]]:
    # Headers are bytes, and those of a foreign record need not be text: Latin-1 maps every byte to itself.
    # Nor need they have a value; such a header is kept as an empty one.
    return [[name, (value or b"").decode("latin-1")] for name, value in headers]


def _revived(stored: Sequence[Sequence[Any]]) -> Headers:
    return tuple((name, value.encode("latin-1")) for name, value in stored)
