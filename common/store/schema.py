"""The tables, described once for every database that SQLAlchemy speaks to."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table

from common.store.types import TEXT

METADATA: Final = MetaData()

INBOX: Final = Table(
    "inbox",
    METADATA,
    Column("message_id", TEXT, primary_key=True),
    Column("received_at", TEXT, nullable=False),
    # The ids are the table: without a separate rowid, one index is written in place of two.
    sqlite_with_rowid=False,
)
"""The ids of the messages whose effect is in the database; what is here already is a duplicate."""

OUTBOX: Final = Table(
    "outbox",
    METADATA,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("records", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False),
    # Numbers are never given twice, so a row that is forgotten late can't be mistaken for a newer one.
    sqlite_autoincrement=True,
)
"""What is decided but perhaps not yet published: parcels of so many records, each with all that one
transaction tells on one partition (of whatever topic). A parcel is deleted once the broker has acknowledged
all of it."""

HISTORY: Final = Table(
    "history",
    METADATA,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("order_id", TEXT, nullable=False),
    Column("cause_id", TEXT, nullable=False),
    Column("from_status", TEXT, nullable=False),
    Column("to_status", TEXT, nullable=False),
    Column("at", TEXT, nullable=False),
    Index("history_by_order", "order_id"),
)
"""Every change of state, with the message that caused it and the time (RFC 3339, UTC)."""

IDEMPOTENCY: Final = Table(
    "idempotency",
    METADATA,
    Column("key", TEXT, primary_key=True),
    Column("fingerprint", TEXT, nullable=False),
    Column("order_id", TEXT, nullable=False),
    Column("answered", Integer, nullable=False),
    Column("claimed_at", TEXT, nullable=False),
    Index("idempotency_by_age", "claimed_at"),
)
"""Which order an `Idempotency-Key` led to, what was asked with it, and the answer: 102 while open."""

RETRIES: Final = Table(
    "retries",
    METADATA,
    Column("inbox_key", TEXT, primary_key=True),
    Column("order_id", TEXT, nullable=False),
    Column("due_at", TEXT, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("topic", TEXT, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", JSON, nullable=False),
    Index("retries_by_order", "order_id"),
)
"""Records that could not be processed yet, how often that was tried, and when it will be again."""

COUNTERS: Final = Table(
    "counters",
    METADATA,
    Column("name", TEXT, primary_key=True),
    Column("total", BigInteger, nullable=False),
)
"""What the service has counted, so that a crash doesn't take the count with it."""
