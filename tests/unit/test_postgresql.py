"""What only PostgreSQL does: rows are locked one by one, and the server is elsewhere, and may go away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError

import choreographed
import orchestrated
from common.databases import data_place, database_for, drop_schemas, schema_of
from common.domain.inventory import Stock
from common.patience import Patience
from common.services import STOCK, fill_stock
from common.settings import Settings
from common.store import postgresql
from common.store.database import Database
from common.store.postgresql import server_place, server_url
from common.store.rows import LoadedRows
from common.store.statements import Statement
from tests.postgres_server.server import PostgresServer
from tests.pump import NOW

AT: Final = NOW.isoformat()
LAPTOPS: Final = 10

Open = Callable[[], Database]


@pytest.fixture
def schema(tmp_path: Path) -> str:
    """A schema of the test's own."""
    return f"test_{sha256(str(tmp_path).encode()).hexdigest()[:16]}"


@pytest.fixture
def instance(postgres: PostgresServer, schema: str) -> Iterator[Open]:
    """Opens the database as a further instance of the inventory service; the first fills the stock."""
    with ExitStack() as opened:

        def open_() -> Database:
            database = Database(server_url(postgres.url), [STOCK.table], schema=schema)
            opened.callback(database.close)
            fill_stock(database, {"laptop": LAPTOPS})
            return database

        yield open_


def available(database: Database) -> int:
    """How many laptops nobody holds."""
    with database.read() as connection:
        found: int = connection.scalars(select(STOCK.table.c.available)).one()
    return found


def sell(database: Database, before_writing: Callable[[], object] = lambda: None) -> None:
    """Read the stock and write one less, in one transaction; `before_writing` is what happens between."""
    with database.write() as transaction:
        rows = LoadedRows(STOCK)
        rows.load(transaction, ["laptop"])
        stock = rows.get("laptop")
        assert stock is not None
        before_writing()
        rows.put(Stock("laptop", stock.available - 1))
        rows.save(transaction, AT)


def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = monotonic() + 20
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


def waiting_for_a_lock(database: Database) -> bool:
    """Whether any session waits for another's lock."""
    with database.read() as connection:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(connection.scalar(query))


def interleaved_sales(first: Database, second: Database, meanwhile: Callable[[Future[None]], None]) -> int:
    """Have `second` sell while `first` is about to; returns how many pieces are missing from the stock."""
    with ThreadPoolExecutor(1) as thread:
        sold: list[Future[None]] = []

        def sell_meanwhile() -> None:
            sold.append(thread.submit(sell, second))
            meanwhile(sold[0])

        sell(first, sell_meanwhile)
        sold[0].result()
    return LAPTOPS - available(first)


@pytest.mark.postgres
def test_a_row_that_is_read_is_locked(instance: Open) -> None:
    """An instance that would read a row waits while another is about to change it, and no update is lost."""
    first, second = instance(), instance()
    assert interleaved_sales(first, second, lambda _: until(lambda: waiting_for_a_lock(first))) == 2


@pytest.mark.postgres
def test_without_locks_an_update_is_lost(instance: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above does find what it looks for: two are sold, and one is missing from the stock."""
    columns = ", ".join(STOCK.fields)
    unlocked = Statement(f"SELECT {columns} FROM {STOCK.table.name} WHERE {STOCK.key} IN :texts")  # noqa: S608 - of names in the code
    monkeypatch.setattr(STOCK, "load", unlocked)
    first, second = instance(), instance()
    assert interleaved_sales(first, second, lambda sold: sold.result(20)) == 1


@pytest.mark.postgres
def test_a_lock_is_not_waited_for_for_ever(instance: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits too long gets an error, with nothing changed, and may try again."""
    monkeypatch.setitem(postgresql._LIMITS, "lock_timeout", "50ms")
    first, second = instance(), instance()

    def fail_to_sell() -> None:
        with pytest.raises(OperationalError, match="lock timeout"):
            sell(second)

    sell(first, fail_to_sell)
    sell(second)
    assert available(second) == LAPTOPS - 2


@pytest.mark.postgres
def test_a_frozen_instance_does_not_keep_its_locks(instance: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that stops in mid-transaction is thrown out, its change undone, and others go on."""
    monkeypatch.setitem(postgresql._LIMITS, "idle_in_transaction_session_timeout", "100ms")
    frozen, alive = instance(), instance()
    with pytest.raises(SQLAlchemyError):
        sell(frozen, lambda: sell(alive))
    assert available(alive) == LAPTOPS - 1
    sell(frozen)
    assert available(alive) == LAPTOPS - 2


@pytest.mark.postgres
def test_a_frozen_instance_does_not_keep_others_from_starting(
    instance: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn to create tables is given up with the transaction that has taken it."""
    monkeypatch.setitem(postgresql._LIMITS, "idle_in_transaction_session_timeout", "100ms")
    frozen = instance()
    with pytest.raises(SQLAlchemyError), frozen.write_alone():  # which can't commit any more
        assert available(instance()) == LAPTOPS


@pytest.mark.postgres
@pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill], ids=["stopped", "crashed"])
def test_a_restart_of_the_server_costs_no_error(
    instance: Open, postgres: PostgresServer, end: Callable[[PostgresServer], None]
) -> None:
    """No connection from before is in the way, whether somebody has tried one meanwhile or not."""
    database = instance()
    with database.read(), database.read(), database.read():  # so that there are several
        pass
    end(postgres)
    postgres.start()
    sell(database)
    end(postgres)
    with pytest.raises(OperationalError):
        sell(database)
    postgres.start()
    for _ in range(5):
        sell(database)
    assert available(database) == LAPTOPS - 6


@pytest.mark.postgres
def test_a_restart_costs_the_transaction_that_it_meets(instance: Open, postgres: PostgresServer) -> None:
    """What was not committed is gone, and the next try has its effect once."""
    database = instance()

    def restart() -> None:
        postgres.kill()
        postgres.start()

    with pytest.raises(OperationalError):
        sell(database, restart)
    sell(database)
    assert available(database) == LAPTOPS - 1


@pytest.mark.postgres
async def test_a_service_goes_on_by_itself_when_the_server_is_back(
    instance: Open, postgres: PostgresServer
) -> None:
    """As a service waits for its database, so it goes on, with nobody helping."""
    database = instance()
    failed = asyncio.Event()

    async def attempt() -> None:
        try:
            await asyncio.to_thread(sell, database)
        except OperationalError:
            failed.set()
            raise

    await asyncio.to_thread(postgres.stop)
    selling = asyncio.create_task(Patience("inventory").insist("selling", attempt))
    await failed.wait()
    await asyncio.to_thread(postgres.start)
    await selling
    assert available(database) == LAPTOPS - 1


def columns(database: Database, query: str) -> Sequence[Any]:
    """The first column of what a query finds."""
    with database.read() as connection:
        return connection.scalars(text(query)).all()


@pytest.mark.postgres
def test_no_service_sees_anothers_tables(postgres: PostgresServer) -> None:
    """Each service of each mode has a schema of its own, and sees nothing outside it."""
    settings = Settings(database_url=SecretStr(postgres.url))
    services = [*orchestrated.MODE.services, *choreographed.MODE.services]
    visible = "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE "
    visible += "pg_table_is_visible(pg_class.oid) AND relkind = 'r' AND nspname != 'pg_catalog'"
    tables = {}
    for wiring in services:
        database = database_for(wiring, settings)
        assert columns(database, "SELECT current_schemas(false)") == [[f"{wiring.mode}_{wiring.name}"]]
        tables[str(wiring)] = set(columns(database, visible))
        assert str(database).endswith(f", schema {wiring.mode}_{wiring.name}")
        database.close()
    for wiring in services:
        own = {table.name for table in wiring.domain.storage.tables}
        others = {name for one in services for name in (table.name for table in one.domain.storage.tables)}
        assert own <= tables[str(wiring)]
        assert not tables[str(wiring)] & (others - own)
        assert ("idempotency" in tables[str(wiring)]) == (wiring.name == "order")


@pytest.mark.postgres
def test_what_a_run_leaves_is_removed(postgres: PostgresServer) -> None:
    """The schemas of a run whose broker was embedded go with it, and no others."""
    settings = Settings(database_url=SecretStr(postgres.url))
    mode = orchestrated.MODE
    lasting = database_for(mode.services[0], settings)
    for wiring in mode.services:
        database_for(wiring, settings, "run1").close()
    assert len(columns(lasting, "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%run1'")) == 4
    drop_schemas(mode, settings, "run1")
    drop_schemas(mode, settings, "run1")
    assert columns(lasting, "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%run1'") == []
    assert columns(lasting, "SELECT current_schema()") == [schema_of(mode.services[0])]
    lasting.close()
    drop_schemas(mode, Settings(), "run1")


@pytest.mark.postgres
def test_transactions_are_what_they_should_be(instance: Open, schema: str, postgres: PostgresServer) -> None:
    """Whatever the server's defaults: a write reads what was committed last, and a read has one view."""
    database = instance()
    shown = ("transaction_isolation", "transaction_read_only")
    kind = "SELECT concat_ws(', ', " + ", ".join(f"current_setting('{name}')" for name in shown) + ")"
    assert columns(database, kind) == ["repeatable read, on"]
    with database.write() as transaction:
        assert transaction.scalar(text(kind)) == "read committed, off"
        assert transaction.scalar(text("SHOW synchronous_commit")) == "on"
        assert transaction.scalar(text("SHOW lock_timeout")) == "10s"
        assert transaction.scalar(text("SHOW application_name")) == schema
    quick = Database(server_url(postgres.url), [], synchronous="OFF", schema=schema)
    assert columns(quick, "SHOW synchronous_commit") == ["on"], "the server may crash, and the broker stay"
    quick.close()


@pytest.mark.postgres
def test_a_user_with_few_rights(instance: Open, schema: str, postgres: PostgresServer) -> None:
    """Who may not create a schema can use one that is there; where none is, that is an error."""
    guest = f"guest_{schema}"
    with instance().write() as transaction:
        transaction.execute(text(f"CREATE ROLE {guest} LOGIN PASSWORD 'guest'"))
        transaction.execute(text(f"CREATE SCHEMA {guest} AUTHORIZATION {guest}"))
    url = server_url(postgres.url).set(username=guest, password="guest")
    database = Database(url, [STOCK.table], schema=guest)
    fill_stock(database, {"laptop": 1})
    assert available(database) == 1
    database.close()
    with pytest.raises(ProgrammingError, match="permission denied for database"):
        Database(url, [], schema="another")


@pytest.mark.postgres
def test_errors_tell_no_password(postgres: PostgresServer) -> None:
    """Neither a wrong password, nor a server or a database that isn't there, brings the password to light."""
    right = server_url(postgres.url)
    for wrong in (right.set(password="wrong"), right.set(port=1), right.set(database="none")):
        with pytest.raises(OperationalError) as failure:
            Database(wrong, [])
        shown = f"{failure.value} {failure.value!r} {failure.value.orig!r}"
        assert not any(secret in shown for secret in (*postgres.secrets, "wrong"))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:p@host:1/lab", "host:1, database lab"),
        ("postgres://u:p%40%2F@host/lab", "host:5432, database lab"),
        ("postgresql+psycopg://host", "host:5432, database of the user"),
        ("postgresql://u@[::1]:5433/lab?sslmode=require", "::1:5433, database lab"),
        ("postgresql:///lab?host=/run/postgresql", "/run/postgresql:5432, database lab"),
    ],
)
def test_server_urls(url: str, place: str) -> None:
    """The usual forms are understood, and what is shown of them holds no credentials."""
    assert server_url(url).drivername == "postgresql+psycopg"
    assert server_place(server_url(url)) == f"PostgreSQL at {place}"


@pytest.mark.parametrize(
    "url",
    [
        "secret",
        "sqlite:///secret.db",
        "mysql://u:secret@host/lab",
        "postgresql+psycopg2://u:secret@host/lab",
        "postgresql://u:secret@host:secret/lab",
        "postgresql://u:p@secret@host/lab",
        "postgresql:///secret",
        "postgresql://",
    ],
)
def test_what_is_no_server_url(url: str) -> None:
    """What can't be used is refused before it is tried, and the error repeats nothing of it."""
    with pytest.raises(ValueError, match=r"should be|needs") as error:
        server_url(url)
    assert "secret" not in str(error.value)


def test_where_the_data_are() -> None:
    """A person is told which server and schemas, and whether they last."""
    settings = Settings(database_url=SecretStr("postgresql://u:secret@host/lab"))
    place = data_place(choreographed.MODE, settings, Path("unused"))
    assert place == "PostgreSQL at host:5432, database lab, schemas choreographed_*"
    place = data_place(choreographed.MODE, settings, Path("unused"), "run1")
    assert place.endswith("choreographed_*_run1 (removed at the end)")
    assert "secret" not in repr(settings)
