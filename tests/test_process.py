"""The command line of a mode and of one service: arguments, settings, exit codes, start and stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

import httpx
import pytest
from sqlalchemy import select

import choreographed
import orchestrated
from common.banner import banner
from common.databases import data_place
from common.errors import ConfigurationError
from common.ports import bind
from common.process import main
from common.recovery import Recovery
from common.services import ORDERS, STOCK, fill_stock
from common.settings import Settings, describe_settings, is_address, load_settings
from common.store.database import Database
from common.supervisor import _data_dir
from tests.running import NOWHERE, until

PROJECT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These tests are free of what the tester's environment sets, and leave nothing in the project."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names the services and every setting with its default."""
    with pytest.raises(SystemExit) as end:
        main(orchestrated.MODE, ["--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert "{order,orchestrator,inventory,payment}" in shown
    for name in Settings.model_fields:
        assert name.upper() in shown
    assert '(default: {"laptop": 100, "phone": 100, "headphones": 100})' in describe_settings()


@pytest.mark.parametrize("arguments", [["orders"], ["order", "payment"], ["--port", "1"], ["orchestrator"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line ends with code 64, and is told on stderr."""
    with pytest.raises(SystemExit) as end:
        main(choreographed.MODE, arguments)
    assert end.value.code == 64
    assert "python -m choreographed: " in capsys.readouterr().err


def test_a_service_alone_needs_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a broker's address, one service alone is told what to set."""
    assert main(orchestrated.MODE, ["order"]) == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("orchestrated: a service alone needs a broker: set KAFKA_BOOTSTRAP_SERVERS=")


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost", "KAFKA_BOOTSTRAP_SERVERS: Input should be HOST:PORT"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:9092,b:65536", "KAFKA_BOOTSTRAP_SERVERS: "),
        ("TOPIC_PARTITIONS", "0", "TOPIC_PARTITIONS: "),
        ("HTTP_PORT", "http", "HTTP_PORT: "),
        ("PAYMENT_LIMIT", "1.001", "PAYMENT_LIMIT: "),
        ("INITIAL_STOCK", "laptop=1", "INITIAL_STOCK: not JSON"),
        ("INITIAL_STOCK", '{"laptop": -1}', "INITIAL_STOCK['laptop']: "),
        ("LOG_LEVEL", "loud", "LOG_LEVEL: "),
        ("DATABASE_URL", "mysql://u:secret@host/lab", "DATABASE_URL: Input should be postgresql://USER:"),
        ("DATABASE_URL", "postgresql://u:secret@host:secret/lab", "DATABASE_URL: Input should be postgresql"),
        ("DATABASE_URL", "postgresql://u:p@secret@host/lab", "DATABASE_URL: Input needs percent-encoding"),
    ],
)
def test_bad_settings(
    name: str, value: str, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that can't be used is named, in one line, before anything starts."""
    monkeypatch.setenv(name, value)
    assert main(choreographed.MODE, []) == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"choreographed: bad setting in the environment: {fault}")
    assert "secret" not in line


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the environment; an empty one counts as not set, and money becomes cents."""
    monkeypatch.setenv("HTTP_PORT", "")
    monkeypatch.setenv("PAYMENT_LIMIT", "19.99")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:9092,[::1]:9092")
    settings = load_settings()
    assert settings.http_port is None
    assert settings.rules.payment_limit_cents == 19_99
    assert settings.kafka_bootstrap_servers == "a:9092,[::1]:9092"


def test_patience_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting of the services' patience has its place, and by default all are as they were made."""
    assert load_settings().recovery == Recovery()
    names = ["RETRY_FIRST_DELAY", "RETRY_MAX_DELAY", "RETRY_TRIES", "UNDO_TRIES"]
    names += ["STEP_TIMEOUT", "ORDER_TIMEOUT", "DEADLINE_TRIES", "DEDUPE_WINDOW_HOURS"]
    for number, name in enumerate(names, 2):
        monkeypatch.setenv(name, str(number))
    assert load_settings().recovery == Recovery(2, 3, 4, 5, 6, 7, 8, 9 * 3600)


def test_a_secret_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The database's URL is shown nowhere: not with the settings, nor when another of them is wrong."""
    monkeypatch.setenv("DATABASE_URL", "postgres://u:secret@host/lab")
    settings = load_settings()
    assert settings.database_server is not None
    assert settings.database_server.password == "secret"
    assert "secret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    assert "secret" not in f"{error.value} {error.value.__cause__} {error.value.__cause__!r}"
    with pytest.raises(SystemExit):
        main(orchestrated.MODE, ["--help"])
    assert "secret" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["a:1", "a.b-c:65535", "127.0.0.1:9092", "[::1]:9092", "[fe80::1]:09092"])
def test_addresses(text: str) -> None:
    """A host and a port, and an IPv6 address in brackets."""
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a:", ":1", "a:0", "a:65536", "a:100000", "::1:9092", "[::1]", "[x]:1", "a b:1", "a:1\n"],
)
def test_no_addresses(text: str) -> None:
    """Neither a lone host or port, nor a port that can't be."""
    assert not is_address(text)


@pytest.mark.parametrize(
    ("broker", "data_dir", "shown"),
    [
        ("a:1", None, "data"),
        ("a:1", "own", "own"),
        (None, "own", "own/embedded-"),
        (None, None, "(removed at the end)"),
    ],
)
def test_where_a_modes_data_is(broker: str | None, data_dir: str | None, shown: str, tmp_path: Path) -> None:
    """Data lasts as long as the broker does, and the banner tells where it is."""
    settings = Settings(kafka_bootstrap_servers=broker, data_dir=Path(data_dir) if data_dir else None)
    with _data_dir(settings, temporary=broker is None) as folder:
        assert folder.is_dir()
        place = data_place(choreographed.MODE, settings, folder)
        told = banner(choreographed.MODE, settings, broker or "", place)
        assert f"  data    {folder}" in told
        assert shown in told
    lasts = folder.exists()
    assert lasts == folder.is_relative_to(tmp_path) == (broker is not None or data_dir is not None)


def test_a_data_folder_that_cannot_be(tmp_path: Path) -> None:
    """A file in the place of the data's folder is told as a wrong setting."""
    (tmp_path / "data").touch()
    with (
        pytest.raises(ConfigurationError, match="DATA_DIR data can't be used: File exists"),
        _data_dir(Settings(kafka_bootstrap_servers="a:1"), temporary=False),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "fault"), [("no.such.host.invalid", "HTTP_HOST"), ("192.0.2.1", "can't be bound")]
)
def test_addresses_of_others(host: str, fault: str, free_port: int) -> None:
    """An address that isn't this machine's is told as such."""
    with pytest.raises(ConfigurationError, match=fault):
        bind(host, free_port, "mend it")


def test_stock_is_filled_once(tmp_path: Path) -> None:
    """Items without a row get one; rows that are there keep what they have."""
    database = Database(f"sqlite:///{tmp_path}/inventory.db", [STOCK.table])
    fill_stock(database, {"laptop": 5})
    fill_stock(database, {"laptop": 100, "phone": 7})
    with database.read() as connection:
        rows = connection.execute(select(STOCK.table.c.item, STOCK.table.c.available)).all()
    assert dict(map(tuple, rows)) == {"laptop": 5, "phone": 7}
    database.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_one_service(number: signal.Signals, free_port: int, tmp_path: Path) -> None:
    """A service alone is up before its broker is, ends at once when it is told to, and leaves its data."""
    environment = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": NOWHERE,
        "HTTP_PORT": str(free_port),
        "PYTHONPATH": str(PROJECT),
    }
    command = [sys.executable, "-m", "orchestrated", "order"]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}", trust_env=False) as client:

        async def up() -> bool:
            assert process.returncode is None
            try:
                return (await client.get("/health/live")).status_code == 200
            except httpx.TransportError:
                return False

        await until(up)
        assert (await client.get("/health/ready")).status_code == 503
        order = {"customer_id": "cust-1", "item": "laptop", "quantity": 1, "price": 200}
        assert (await client.post("/orders", json=order)).status_code == 202
        waiting = asyncio.create_task(client.post("/orders", json=order, headers={"Prefer": "wait=30"}))

        async def taken() -> bool:
            return bool((await client.get("/orders")).json()["total"] == 2)

        await until(taken)
        before = monotonic()
        process.send_signal(number)
        assert (await waiting).status_code == 202
        output, log = await process.communicate()
    assert monotonic() - before < 3
    assert (process.returncode, output) == (0, b"")
    lines = log.decode().splitlines()
    assert f"data in {tmp_path}/data/orchestrated" in lines[0]
    assert all("order" in line for line in lines), "each line is one entry, with the service's name"
    database = Database(f"sqlite:///{tmp_path}/data/orchestrated/order.db", [ORDERS.table])
    with database.read() as connection:
        assert len(connection.execute(select(ORDERS.table)).all()) == 2
    database.close()
