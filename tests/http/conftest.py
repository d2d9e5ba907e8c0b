"""Services with their HTTP applications: alone without a broker, or a whole mode on the embedded one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from uvicorn import Config, Server

import choreographed
import orchestrated
from common.domain.order import Order
from common.embedded import EmbeddedBroker, embedded_broker
from common.envelope import Outgoing
from common.http.app import create_app
from common.ports import bind
from common.runner import Runner
from common.services import ORDERS
from common.store.schema import IDEMPOTENCY, OUTBOX
from common.wiring import Mode
from orchestrated.orchestrator import SAGAS
from tests.brokers import Embedded
from tests.pump import open_core, pages
from tests.running import NOWHERE, PARTITIONS, new_runner, running_mode, stored_order


def app_of(runner: Runner, closing: asyncio.Event | None = None) -> FastAPI:
    """The application, as the service's process makes it."""
    return create_app(runner, [SAGAS], closing)


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that gets a 500 as an answer, as any other client does."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://lab") as client:
        yield client


@dataclass
class OrderService:
    """An order service whose broker is away: it takes orders, and none of them ends."""

    runner: Runner
    app: FastAPI
    client: httpx.AsyncClient

    def counts(self) -> tuple[int, int, int]:
        """How many orders, records in the outbox and idempotency keys there are."""
        with self.runner.core.database.read() as connection:
            orders, keys = (
                connection.scalar(select(func.count()).select_from(table)) or 0
                for table in (ORDERS.table, IDEMPOTENCY)
            )
            outbox = connection.scalar(select(func.sum(OUTBOX.c.records))) or 0
        return orders, int(outbox), keys

    def told(self) -> list[Outgoing]:
        """What waits for the broker."""
        return [record for page in pages(self.runner.core, range(PARTITIONS)) for record in page]

    def order(self, order_id: str) -> Order:
        """An order as it is stored."""
        found = stored_order(self.runner.core, order_id)
        assert found is not None
        return found


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[OrderService]:
    """The orchestrated order service, with nobody at its broker's address."""
    runner = new_runner(open_core(orchestrated.MODE.service("order"), tmp_path), NOWHERE)
    app = app_of(runner)
    runner.start()
    async with client_of(app) as client:
        yield OrderService(runner, app, client)
    await runner.stop()


@dataclass
class ServedMode:
    """All services of a mode, in this process, with a client for each."""

    broker: EmbeddedBroker
    runners: dict[str, Runner]
    clients: dict[str, httpx.AsyncClient]

    def __getitem__(self, name: str) -> httpx.AsyncClient:
        return self.clients[name]


@pytest.fixture(params=[orchestrated.MODE, choreographed.MODE], ids=lambda mode: mode.name)
async def mode(
    request: pytest.FixtureRequest, embedded: EmbeddedBroker, tmp_path: Path
) -> AsyncIterator[ServedMode]:
    """Each mode in turn, on an embedded broker, with 100 laptops in stock."""
    async with AsyncExitStack() as stack:
        running = running_mode(request.param, tmp_path, Embedded(embedded), sole_instance=True)
        runners = await stack.enter_async_context(running)
        clients = {
            name: await stack.enter_async_context(client_of(app_of(runner)))
            for name, runner in runners.items()
        }
        yield ServedMode(embedded, runners, clients)


@contextmanager
def served(mode: Mode, folder: Path) -> Iterator[dict[str, str]]:
    """All services of a mode behind real sockets, in a thread; by service, its URL."""
    urls: dict[str, str] = {}
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        loop.run_until_complete(_serve(mode, folder, urls, stop, ready.set))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        yield urls
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _serve(
    mode: Mode, folder: Path, urls: dict[str, str], stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    async with (
        embedded_broker() as broker,
        running_mode(mode, folder, Embedded(broker), sole_instance=True) as runners,
        asyncio.TaskGroup() as group,
    ):
        servers = []
        for name, runner in runners.items():
            socket = bind("127.0.0.1", 0, "")
            server = Server(Config(app_of(runner), lifespan="off", log_config=None))
            servers.append(server)
            urls[name] = f"http://127.0.0.1:{socket.getsockname()[1]}"
            group.create_task(server.serve(sockets=[socket]))
        ready()
        await stop.wait()
        for server in servers:
            server.should_exit = True
