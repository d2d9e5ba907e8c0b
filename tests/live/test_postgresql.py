"""Real processes with their data on a real PostgreSQL server."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.live.conftest import PORTS, Lab, ready, started, until
from tests.postgres_server.server import PostgresServer

pytestmark = [pytest.mark.live, pytest.mark.postgres, pytest.mark.timeout(180)]

ORDER = {"customer_id": "alice", "item": "laptop", "quantity": 1, "price": "200"}


def schemas(postgres: PostgresServer) -> set[str]:
    """The schemas that there are on the server."""
    with psycopg.connect(postgres.url) as connection:
        return {name for (name,) in connection.execute("SELECT nspname FROM pg_namespace")}


def check_no_secrets(lab: Lab, postgres: PostgresServer) -> None:
    """Check that nothing that was printed has the password in it."""
    text = lab.text()
    assert not any(secret in text for secret in postgres.secrets), text


@pytest.mark.parametrize("mode", list(PORTS))
def test_a_mode_with_its_data_on_a_server(mode: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """Orders end, a restart of the server is waited out, and the data go with the embedded broker."""
    before = schemas(postgres)
    with ready(mode, tmp_path, DATABASE_URL=postgres.url, LOG_LEVEL="DEBUG") as lab:
        made = schemas(postgres) - before
        assert len(made) == len(PORTS[mode])
        (suffix,) = {name.removeprefix(f"{mode}_").partition("_")[2] for name in made}
        assert f", schemas {mode}_*_{suffix} (removed at the end)" in lab.text()

        def order(number: int) -> str:
            answer = httpx.post(
                f"{lab.url()}/orders", json=ORDER, headers={"Prefer": "wait=20"}, timeout=30, trust_env=False
            )
            assert answer.status_code == 201, (number, answer.text)
            return str(answer.json()["status"])

        assert order(1) == "COMPLETED"
        postgres.kill()
        answer = httpx.post(f"{lab.url()}/orders", json=ORDER, timeout=30, trust_env=False)
        assert answer.status_code == 503
        assert not any(secret in answer.text for secret in postgres.secrets)
        postgres.start()
        assert order(2) == "COMPLETED"
        (laptops,) = [row for row in lab.get("inventory", "/stock")["items"] if row["item"] == "laptop"]
        assert laptops["available"] == 98
        lab.interrupt()
        assert lab.process.wait(20) == 0
    assert schemas(postgres) == before
    check_no_secrets(lab, postgres)


def test_a_service_waits_for_its_server(postgres: PostgresServer, tmp_path: Path) -> None:
    """A service that starts before its server says so, and goes on when it is there, or ends if told to."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {
        "DATABASE_URL": postgres.url,
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "HTTP_PORT": port,
    }
    command = [sys.executable, "-m", "choreographed", "order"]
    postgres.stop()
    with started("choreographed", tmp_path, *command, **environment) as lab:
        until(lambda: "opening its database: " in lab.text())
        lab.process.send_signal(signal.SIGTERM)
        assert lab.process.wait(10) == 0
    with started("choreographed", tmp_path, *command, **environment) as lab:
        until(lambda: "opening its database: " in lab.text())
        postgres.start()
        until(lambda: "schema choreographed_order" in lab.text())
        answer = httpx.post(f"http://127.0.0.1:{port}/orders", json=ORDER, timeout=30, trust_env=False)
        assert answer.status_code == 202
        lab.process.send_signal(signal.SIGTERM)
        assert lab.process.wait(10) == 0
    check_no_secrets(lab, postgres)


def test_what_waiting_cannot_mend_ends_the_mode(postgres: PostgresServer, tmp_path: Path) -> None:
    """An option that the driver doesn't know ends the mode with one line that names the setting."""
    with started("orchestrated", tmp_path, DATABASE_URL=f"{postgres.url}?nonsense=1") as lab:
        assert lab.process.wait(30) == 78
    assert "DATABASE_URL can't be used: invalid connection option" in lab.text()
    check_no_secrets(lab, postgres)
