"""Real processes, started as a user starts them: orders, crashes, and the end of it all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.checks import check_conserved, check_records
from tests.live.conftest import (
    PORTS,
    PROJECT,
    Lab,
    alive,
    clean_environment,
    descendants,
    has_make,
    make_command,
    ready,
    started,
    until,
)

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

MODES = list(PORTS)
CRASHES = [(mode, service) for mode in MODES for service in PORTS[mode]]
ORDERS = 120
SEED = (
    'curl -X POST {url}/orders -H "Content-Type: application/json" -d '
    r'"{{\"customer_id\": \"{customer}\", \"item\": \"laptop\", \"quantity\": 1, \"price\": {price}}}"'
)


def order_body(number: int) -> dict[str, Any]:
    """Orders of all kinds in turn: paid, too dear, not to be had, too many, and of several pieces."""
    kind = number % 5
    return {
        "customer_id": f"cust-{number}",
        "item": ["laptop", "phone", "unicorn", "headphones", "phone"][kind],
        "quantity": [1, 1, 1, 1000, 2][kind],
        "price": ["200", "500.01", "10", "0.10", "250.00"][kind],
    }


def place(lab: Lab, number: int) -> str:
    """Place an order as a client does that tries again: the key makes that safe."""
    headers = {"Idempotency-Key": f"live-{number}"}

    def post() -> str | None:
        try:
            answer = httpx.post(
                f"{lab.url()}/orders", json=order_body(number), headers=headers, timeout=5, trust_env=False
            )
        except httpx.TransportError:
            return None
        return str(answer.json()["order_id"]) if answer.status_code == 202 else None

    return until(post, what=f"order {number} is taken") or ""


def wait_for_ends(lab: Lab, count: int) -> list[dict[str, Any]]:
    """Wait until all orders have ended."""

    def all_ended() -> bool:
        try:
            return bool(lab.get("order", "/orders?status=PENDING&limit=1")["total"] == 0)
        except httpx.TransportError:
            return False

    until(all_ended, seconds=60, what="every order has ended")
    orders = lab.all_rows("order", "orders")
    assert len(orders) == count
    return orders


@has_make
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("mode", MODES)
def test_as_the_readme_says(mode: str, tmp_path: Path) -> None:
    """`make` starts the mode, and the first lines that a reader copies from its banner do what they say."""
    with ready(mode, tmp_path, *make_command(mode)) as lab:
        for customer, price in (("cust-1", 200), ("cust-2", 600)):
            line = SEED.format(url=lab.url(), customer=customer, price=price)
            assert line in lab.text()
            subprocess.run(line, shell=True, check=True, capture_output=True)  # noqa: S602 - the line as it is copied
        wait_for_ends(lab, 2)
        shown = subprocess.run(
            ["curl", f"{lab.url()}/orders"], check=True, capture_output=True, text=True
        ).stdout
        assert '\n      "status": "COMPLETED"' in shown
        assert '\n      "status": "FAILED"' in shown


@pytest.mark.parametrize(("mode", "victim"), CRASHES, ids=["-".join(crash) for crash in CRASHES])
def test_a_crash_loses_nothing(mode: str, victim: str, tmp_path: Path) -> None:
    """When a service is killed in mid-flight, every order still ends, and nothing is lost or done twice."""
    with ready(mode, tmp_path) as lab:
        with ThreadPoolExecutor(8) as clients:
            placing = [clients.submit(place, lab, number) for number in range(ORDERS)]
            until(lambda: sum(order.done() for order in placing) > ORDERS // 3, what="a third is placed")
            os.kill(lab.pid(victim), signal.SIGKILL)
            order_ids = {order.result() for order in placing}
        assert len(order_ids) == ORDERS
        orders = wait_for_ends(lab, ORDERS)
        assert {order["status"] for order in orders} == {"COMPLETED", "FAILED"}
        check_conserved(lab, orders)
        check_records(lab, order_ids)
        assert re.search(
            rf"{victim} +\| process \d+ was killed by SIGKILL; it is started again in 0.5 s", lab.text()
        )


def test_both_modes_at_once(tmp_path: Path) -> None:
    """Both modes run side by side, each on a broker of its own."""
    with ready("orchestrated", tmp_path) as first, ready("choreographed", tmp_path) as second:
        for lab in (first, second):
            order_ids = {place(lab, number) for number in range(5)}
            check_conserved(lab, wait_for_ends(lab, 5))
            check_records(lab, order_ids)
        assert first.broker() != second.broker()


@pytest.mark.parametrize("arguments", [(), ("order",)], ids=["the mode", "one service"])
def test_a_port_that_is_taken(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """A port that is taken is told at once, in one line that says what to do."""
    with socket.create_server(("127.0.0.1", 8001)):
        command = [sys.executable, "-m", "orchestrated", *arguments]
        done = subprocess.run(
            command,
            env=clean_environment(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", DATA_DIR=str(tmp_path)),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert line.startswith("orchestrated: port 8001 on 127.0.0.1 is taken by another process; stop it")


@pytest.mark.parametrize("mode", MODES)
def test_ctrl_c(mode: str, tmp_path: Path) -> None:
    """Ctrl-C ends everything within seconds, cleanly, and leaves neither process nor data."""
    with ready(mode, tmp_path) as lab:
        place(lab, 0)
        processes, data = descendants(lab.process.pid), lab.data()
        assert len(processes) == len(PORTS[mode]) + 1
        assert data.exists()
        lab.interrupt()
        assert lab.process.wait(10) == 0
        assert not any(map(alive, processes))
        assert not data.exists()
        assert "Traceback" not in lab.text()
        assert lab.text().count(": stopped") == len(PORTS[mode])


@has_make
def test_ctrl_c_under_make(tmp_path: Path) -> None:
    """Ctrl-C under `make` leaves no process either."""
    with ready("choreographed", tmp_path, *make_command("choreographed")) as lab:
        processes = descendants(lab.process.pid)
        lab.interrupt()
        lab.process.wait(10)
        until(lambda: not any(map(alive, processes)), what="all processes have ended")
        assert "Traceback" not in lab.text()


def test_an_early_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C while the services are still starting ends everything, too."""
    with started("orchestrated", tmp_path) as lab:
        until(lambda: lab.pid("order"), what="a service is being started")
        processes = descendants(lab.process.pid)
        lab.interrupt()
        assert lab.process.wait(10) == 0
        until(lambda: not any(map(alive, processes)), what="all processes have ended")


def test_no_orphans(tmp_path: Path) -> None:
    """When the supervisor itself is killed, everything that it has started ends by itself."""
    with ready("orchestrated", tmp_path) as lab:
        processes = descendants(lab.process.pid)
        lab.process.kill()
        lab.process.wait()
        until(lambda: not any(map(alive, processes)), seconds=10, what="all processes have ended")


def test_the_brokers_death(tmp_path: Path) -> None:
    """When the embedded broker dies, so does the mode, and says why."""
    with ready("choreographed", tmp_path) as lab:
        services = {lab.pid(service) for service in PORTS["choreographed"]}
        (broker,) = set(descendants(lab.process.pid)) - services
        os.kill(broker, signal.SIGKILL)
        assert lab.process.wait(20) == 78
        assert "choreographed: the embedded broker was killed by SIGKILL" in lab.text()
        assert not any(map(alive, services))


def test_data_of_ones_own(tmp_path: Path) -> None:
    """With DATA_DIR and the embedded broker, each run has a new folder there, which stays."""
    folder = tmp_path / "data"
    with ready("choreographed", tmp_path, DATA_DIR=str(folder)) as lab:
        place(lab, 0)
        data = lab.data()
        assert data.parent == folder
    assert sorted(path.name for path in (data / "choreographed").glob("*.db")) == [
        "inventory.db",
        "order.db",
        "payment.db",
    ]
