"""What is PostgreSQL's own: how a server is named, how a session is set up, and a schema for each service."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from sqlalchemy import URL, Connection, create_engine, event, func, inspect, make_url, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.schema import CreateSchema, DropSchema

READING: Final = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""A view that stays as it is, however many statements look at it; a write in it is an error."""

_SCHEMES: Final = ("postgresql", "postgresql+psycopg", "postgres")
_PORT: Final = 5432

_CONNECT: Final[dict[str, str | int]] = {
    # An HTTP client, and a service that is to stop, wait for it.
    "connect_timeout": 3,
    # A server whose machine is gone says nothing any more: half a minute, in place of the system's two hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_LIMITS: Final = {
    # As long as SQLite waits. Whoever gives up tries again, and tells the log what it is waiting for.
    "lock_timeout": "10s",
    # An instance that is frozen, or cut off, in mid-transaction would keep its locks for ever. A live one
    # computes between two statements, for a fraction of a second.
    "idle_in_transaction_session_timeout": "30s",
    # A statement may wait for many locks, one by one.
    "statement_timeout": "60s",
}
_MOST_CONNECTIONS: Final = 5
"""Of one instance, opened when needed. A server permits 100 by default; both modes have seven services."""
_CONNECTION_WAIT_S: Final = 10
_ONE_AT_A_TIME: Final = 0x5A6A_1AB0
"""The number of the advisory lock."""


def server_url(text: str) -> URL:
    """What a user calls the server, as SQLAlchemy does.

    Raises:
        ValueError: it is no such URL; the error's text quotes nothing of it, as it may hold a password.
    """
    if text.count("@") > 1:
        # The rest of the password would be taken for the host's name, and end up in the log.
        raise ValueError("needs percent-encoding in user or password: %40 is @")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in _SCHEMES or not (url.host or "host" in url.query):
        # Not `from` the error: it quotes what it can't read.
        raise ValueError("should be postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    return url.set(drivername="postgresql+psycopg")


def server_place(url: URL) -> str:
    """Where the server is and which database of it is meant, without any credentials."""
    host = url.host or url.query["host"]
    return f"PostgreSQL at {host}:{url.port or _PORT}, database {url.database or 'of the user'}"


def postgresql_engine(url: URL, schema: str | None) -> Engine:
    """Connections to a server, whose sessions see the tables of one schema only."""
    engine = create_engine(
        url,
        connect_args={
            "fallback_application_name": schema or "saga-lab",
            **{name: value for name, value in _CONNECT.items() if name not in url.query},
        },
        isolation_level="READ COMMITTED",
        # One more round trip. Without, the first to use the database after a restart of the server would get
        # an error, though the server is back.
        pool_pre_ping=True,
        pool_size=_MOST_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_CONNECTION_WAIT_S,
    )
    settings = dict(_LIMITS)
    if schema is not None:
        settings["search_path"] = engine.dialect.identifier_preparer.quote_identifier(schema)
    event.listen(engine, "connect", partial(_prepare, settings))
    return engine


def take_turns(connection: Connection) -> None:
    """Wait until no other transaction is past this line, and keep others from it until this one has ended."""
    connection.execute(select(func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))


def create_schema(connection: Connection, schema: str) -> None:
    """Create the schema if it isn't there; the transaction has taken its turn.

    It is looked for first: `IF NOT EXISTS` would ask for the right to create it even where it exists.
    """
    if not inspect(connection).has_schema(schema):
        connection.execute(CreateSchema(schema))


def drop_schema(connection: Connection, schema: str) -> None:
    """Remove the schema with all that is in it, if it is there."""
    connection.execute(DropSchema(schema, cascade=True, if_exists=True))


def _prepare(settings: dict[str, str], connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection is untyped
    # Not in a transaction, whose rollback would take the settings back. Not as options of the connection
    # either, which those in the user's URL would displace and which poolers refuse.
    connection.autocommit = True
    columns = ", ".join("set_config(%s, %s, false)" for _ in settings)
    connection.execute(f"SELECT {columns}", [part for item in settings.items() for part in item])
    connection.autocommit = False
