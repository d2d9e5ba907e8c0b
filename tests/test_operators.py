"""What operators see of trouble with a database or the broker, and that all goes on by itself afterwards."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

import choreographed
import common.patience
import common.runner
import common.watch
from common.core import Core
from common.embedded import EmbeddedBroker
from common.runner import Runner
from common.services import ORDERS
from tests.brokers import Embedded
from tests.databases import PostgresSchemas, each_connection
from tests.http.conftest import app_of, client_of
from tests.http.test_orders import LAPTOP
from tests.http.test_problems import check_problem
from tests.postgres_server.server import PostgresServer
from tests.pump import NOW, open_core, order_id, place_order
from tests.running import PARTITIONS, asking, ended, new_runner, running_mode, until
from tests.test_runner import impatient

ORDER = choreographed.MODE.service("order")


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have services look after their surroundings every 50 ms, in place of every 5 s."""
    monkeypatch.setattr(common.watch, "_LOOK_EVERY_S", 0.05)


@asynccontextmanager
async def serving(core: Core, embedded: EmbeddedBroker) -> AsyncIterator[tuple[Runner, httpx.AsyncClient]]:
    """An order service that is ready, and a client of it."""
    await embedded.create_topics(choreographed.MODE.all_topics, PARTITIONS)
    runner = new_runner(core, embedded.bootstrap, sole_instance=True)
    runner.start()
    try:
        async with client_of(app_of(runner)) as client:
            await until_ready(client)
            yield runner, client
    finally:
        await runner.stop()


async def until_ready(client: httpx.AsyncClient) -> None:
    """Wait until a service says that it is ready."""

    async def ready() -> bool:
        return (await client.get("/health/ready")).status_code == 200

    await until(ready)


async def until_in_trouble(client: httpx.AsyncClient, database: str = "") -> dict[str, Any]:
    """Wait until a service says that it is not ready, and this of its database; all that it says."""

    async def checks() -> dict[str, Any] | None:
        answer = await client.get("/health/ready")
        found = {} if answer.status_code == 200 else dict(answer.json()["checks"])
        return found if database in found.get("database", "") else None

    found = await until(checks)
    assert found is not None
    return found


def words(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of database and broker, without times and without names of files."""
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [re.sub(r"(?<=after )[\d.]+|/\S*(?=/)|127\.0\.0\.1:\d+", "_", line) for line in lines]


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Another process that has the database to itself."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()


async def test_a_locked_database(
    embedded: EmbeddedBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Orders are refused, reads go on, health names the database, and the log has two lines, not hundreds."""
    async with serving(impatient(open_core(ORDER, tmp_path)), embedded) as (_, client):
        with held(tmp_path / "order.db"):
            refused = [await client.post("/orders", json=LAPTOP) for _ in range(20)]
            checks = await until_in_trouble(client)
            assert (await client.get("/orders")).json()["total"] == 0
        for answer in refused:
            check_problem(answer, 503)
            assert answer.headers["Retry-After"] == "1"
        assert "database is locked" in checks["database"]
        assert checks["broker"] == "ok"
        await until_ready(client)
        assert (await client.post("/orders", json=LAPTOP)).status_code == 202
    first, last = words(caplog)
    assert re.fullmatch(
        r"choreographed/order: the database _/order.db can't be used \(.*: database is locked\); "
        "it is tried again until it can",
        first,
    )
    assert last == "choreographed/order: the database _/order.db is back after _ s"


async def test_a_write_that_hangs(
    embedded: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits behind it is sent away after a while, with nothing changed; the first is served."""
    monkeypatch.setattr(common.runner, "_SUBMIT_LIMIT_S", 0.2)
    async with serving(open_core(ORDER, tmp_path), embedded) as (_, client):
        with held(tmp_path / "order.db"):
            waiting = [asyncio.create_task(client.post("/orders", json=LAPTOP)) for _ in range(5)]
            done, hanging = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 4:
                more, hanging = await asyncio.wait(hanging, timeout=5, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        statuses = [(await task).status_code for task in waiting]
        assert set(statuses) <= {202, 503}
        await until_ready(client)
        assert (await client.get("/orders")).json()["total"] == statuses.count(202)


@contextmanager
def full(core: Core) -> Iterator[None]:
    """A database that can't grow any more."""
    # It can't be less than there are.
    with each_connection(core.database.engine, lambda new: new.execute("PRAGMA max_page_count = 1")):
        yield


async def test_a_full_disk(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    """Orders are refused from when they don't fit any more, all at once or not at all."""
    async with serving(open_core(ORDER, tmp_path), embedded) as (runner, client):
        with full(runner.core):
            placed = 0
            while (answer := await client.post("/orders", json=LAPTOP)).status_code == 202:
                placed += 1
            check_problem(answer, 503)
            assert answer.headers["Retry-After"] == "1"
            assert (await client.get("/orders")).json()["total"] == placed
        await until_ready(client)
        assert (await client.post("/orders", json=LAPTOP)).status_code == 202
        assert (await client.get("/orders")).json()["total"] == placed + 1


async def test_a_full_disk_in_mid_saga(
    embedded: EmbeddedBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A service that can't write what it has consumed waits, says why, and goes on when there is room."""
    async with running_mode(choreographed.MODE, tmp_path, Embedded(embedded), sole_instance=True) as runners:
        inventory, orders = runners["inventory"], runners["order"]
        with full(inventory.core):
            number = 0
            async with client_of(app_of(inventory)) as client:
                while (checks := (await inventory.readiness())).database is None:
                    number += 1
                    await orders.submit(asking(place_order(number)))
                    await inventory.progress(0.1)
                assert "database or disk is full" in str(checks.database)
                assert checks.broker is None
                assert (await client.get("/stock")).json()["total"] == 1
        for placed_number in range(1, number + 1):
            await ended(orders, order_id(placed_number))
        await until(_ready(inventory))
    told = [line for line in words(caplog) if "/inventory: " in line]
    assert len(told) == 2
    assert "inventory.db can't be used (writing: database or disk is full)" in told[0]
    assert "inventory.db is back after _ s" in told[1]


def _ready(runner: Runner) -> Any:  # noqa: ANN401 - a condition to wait for
    async def ready() -> bool:
        return (await runner.readiness()).ready

    return ready


async def test_a_database_that_is_gone(
    embedded: EmbeddedBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is removed is not made anew; when it is back, the service goes on with what is in it."""
    folder, away = tmp_path / "here", tmp_path / "away"
    async with serving(open_core(ORDER, folder), embedded) as (_, client):
        placed = (await client.post("/orders", json=LAPTOP)).json()
        folder.rename(away)
        check_problem(await client.post("/orders", json=LAPTOP), 503)
        check_problem(await client.get("/orders"), 503)
        checks = await until_in_trouble(client)
        assert "unable to open database file" in checks["database"]
        assert checks["broker"] == "ok"
        assert not folder.exists()
        away.rename(folder)
        await until_ready(client)
        assert [row["order_id"] for row in (await client.get("/orders")).json()["items"]] == [
            placed["order_id"]
        ]
        assert (await client.post("/orders", json=LAPTOP)).status_code == 202
    assert len(words(caplog)) == 2


async def test_a_database_that_is_restored(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    """Another file in the place of one that is lost is used from then on; an empty one never is."""
    folder, backup = tmp_path / "here", tmp_path / "backup.db"
    async with serving(open_core(ORDER, folder), embedded) as (runner, client):
        await client.post("/orders", json=LAPTOP)
        with runner.core.database.read() as connection:
            connection.exec_driver_sql("PRAGMA query_only = 0")
            connection.commit()
            connection.connection.driver_connection.execute("VACUUM INTO ?", [str(backup)])  # type: ignore[union-attr] # there is one
        await client.post("/orders", json=LAPTOP)
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "order.db").touch()
        await until_in_trouble(client, "no such table")
        backup.rename(folder / "order.db")
        await until_ready(client)
        assert (await client.get("/orders")).json()["total"] == 1
        assert (await client.post("/orders", json=LAPTOP)).status_code == 202


def test_a_database_that_is_restored_while_it_is_opened(tmp_path: Path) -> None:
    """What was opened is a file without a name by then: it is let go at once, not written to for good."""
    file, backup = tmp_path / "order.db", tmp_path / "backup" / "order.db"
    restored = open_core(ORDER, backup.parent)
    with restored.database.write() as transaction:
        restored.submit(transaction, [(place_order(1), 0)], NOW)
    restored.database.close()
    core = open_core(ORDER, tmp_path)

    def restore(_: object) -> None:
        if backup.exists():
            backup.rename(file)

    with each_connection(core.database.engine, restore), core.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(ORDERS.table)) == 1


def test_a_log_that_is_gone(tmp_path: Path) -> None:
    """A write-ahead log that somebody removes between two transactions takes nothing with it.

    Within one it can't be helped: SQLite says that to remove the log of a database in use corrupts it.
    """
    core = open_core(ORDER, tmp_path)
    for number in range(1, 21):
        with core.database.write() as transaction:
            core.submit(transaction, [(place_order(number), 0)], NOW)
        (tmp_path / "order.db-wal").unlink()
        with core.database.read() as connection:
            assert connection.scalar(select(func.count()).select_from(ORDERS.table)) == number
    core.database.close()
    core = open_core(ORDER, tmp_path)
    with core.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    core.database.close()


@pytest.mark.timeout(120)
async def test_a_broker_that_is_away_for_long(
    embedded: EmbeddedBroker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outage is told when it begins, now and then while it lasts, and at its end; then all goes on."""
    monkeypatch.setattr(common.patience, "_REMIND_EVERY_S", 1.0)
    async with running_mode(choreographed.MODE, tmp_path, Embedded(embedded), sole_instance=True) as runners:
        orders = runners["order"]
        async with client_of(app_of(orders)) as client:
            await until_ready(client)
            await embedded.down()
            checks = await until_in_trouble(client)
            assert checks["database"] == "ok"
            assert (await client.post("/orders", json=LAPTOP)).status_code == 202

            async def reminded() -> bool:
                return sum("/order: " in line and "still" in line for line in words(caplog)) >= 3

            await until(reminded)
            await embedded.up()
            await until_ready(client)
            answer = await client.post("/orders", json=LAPTOP, headers={"Prefer": "wait=20"})
            assert answer.json()["status"] == "COMPLETED"
            assert (await client.get("/orders?status=COMPLETED")).json()["total"] == 2
            for runner in runners.values():
                await until(_ready(runner))
    for name in runners:
        first, *still, last = [line for line in words(caplog) if f"/{name}: " in line]
        assert f"{name}: the broker _ can't be used (" in first
        assert all(f"{name}: the broker _ can't be used after _ s, still (" in line for line in still)
        assert len(still) < 20
        assert last == f"choreographed/{name}: the broker _ is back after _ s"


@pytest.mark.postgres
@pytest.mark.timeout(120)
async def test_a_database_server_that_is_gone(
    postgres: PostgresServer, embedded: EmbeddedBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With PostgreSQL it is the same: refused, said, and forgotten once the server is back."""
    core = open_core(ORDER, tmp_path, PostgresSchemas(postgres.url))
    async with serving(core, embedded) as (_, client):
        await asyncio.to_thread(postgres.stop)
        check_problem(await client.post("/orders", json=LAPTOP), 503)
        checks = await until_in_trouble(client)
        assert (checks["database"] == "ok", checks["broker"]) == (False, "ok")
        await asyncio.to_thread(postgres.start)
        await until_ready(client)
        assert (await client.post("/orders", json=LAPTOP)).status_code == 202
    first, *_, last = words(caplog)
    assert "the database PostgreSQL at" in first
    assert last.endswith(" is back after _ s")
