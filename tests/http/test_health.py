"""Health: alive as long as the loop turns, ready when broker and database are."""

from __future__ import annotations

import asyncio

import httpx
import pytest

import common.http.health
from tests.http.conftest import OrderService, ServedMode
from tests.http.test_orders import LAPTOP
from tests.http.test_problems import check_problem
from tests.running import until


async def test_alive_without_a_broker(service: OrderService) -> None:
    """A service is alive, but not ready, while its broker is away."""
    assert (await service.client.get("/health/live")).json() == {"status": "live"}
    problem = check_problem(await service.client.get("/health/ready"), 503)
    assert problem["checks"]["database"] == "ok"
    assert problem["checks"]["broker"] == "not connected yet"


async def test_ready_follows_the_broker(mode: ServedMode) -> None:
    """A service is ready, is not when the broker goes, and is again when it comes back."""
    client = mode["payment"]

    async def ready() -> httpx.Response | None:
        answer = await client.get("/health/ready")
        return answer if answer.status_code == 200 else None

    async def not_ready() -> bool:
        return await ready() is None

    answer = await until(ready)
    assert answer is not None
    assert answer.json()["checks"] == {"database": "ok", "broker": "ok", "outbox": "ok", "backlog": 0}
    await mode.broker.down()
    await until(not_ready)
    await mode.broker.up()
    await until(ready)


async def test_too_long_an_outbox(service: OrderService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that takes more than it can pass on says so."""
    monkeypatch.setattr(common.http.health, "MAX_BACKLOG", 1)
    await asyncio.gather(*(service.client.post("/orders", json=LAPTOP) for _ in range(2)))
    checks = check_problem(await service.client.get("/health/ready"), 503)["checks"]
    assert (checks["backlog"], checks["outbox"]) == (2, "more than 1 records wait")


async def test_reads_do_not_wait_for_writes(service: OrderService) -> None:
    """Orders and health can be looked at while a write takes long."""
    await service.client.post("/orders", json=LAPTOP)
    with service.runner.core.database.write():
        async with asyncio.timeout(5):
            assert (await service.client.get("/orders")).json()["total"] == 1
            check_problem(await service.client.get("/health/ready"), 503)
