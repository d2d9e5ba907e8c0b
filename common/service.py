"""One service in this process: its database, its runner and its HTTP server, from start to stop.

HTTP is up as soon as the database is, whether the broker is there or not: orders are taken and kept in the
outbox meanwhile, and `/health/ready` says what is being waited for. On SIGINT, SIGTERM, or the death of the
supervisor, requests that wait come to an end, the batch in flight is finished, and the process ends within
two seconds or so.

The supervisor tells a service about its circumstances by two variables that are not for operators:
- `SAGA_LAB_SUPERVISED=1`: end when stdin does, since then the supervisor is gone;
- `SAGA_LAB_EMBEDDED=RUN`: the broker is the embedded one, and lives no longer than this run, so named.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from uvicorn import Config, Server

from common.core import Core
from common.databases import database_for
from common.errors import ConfigurationError
from common.http.app import create_app
from common.logs import configure_logs
from common.patience import Patience, StoppingError, short
from common.ports import bind
from common.publisher import KafkaPublisher
from common.runner import BrokerLink, Runner
from common.services import STOCK, fill_stock
from common.settings import Settings
from common.store.database import Database
from common.store.rows import RowTable
from common.wiring import Wiring

log = logging.getLogger(__name__)

SUPERVISED: Final = "SAGA_LAB_SUPERVISED"
EMBEDDED: Final = "SAGA_LAB_EMBEDDED"

_REQUESTS_LIMIT_S: Final = 1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _QuietServer(Server):
    """uvicorn's server, without its own handling of signals: it would send them to this process once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    wiring: Wiring, tables: Sequence[RowTable[Any]], settings: Settings, bootstrap_servers: str
) -> None:
    """Run the service until it is told to stop.

    Raises:
        LabError: it can't start, or can't go on.
    """
    supervised = SUPERVISED in os.environ
    configure_logs(settings.log_level, None if supervised else wiring.name)
    port = settings.http_port or wiring.port
    # First of all: whoever started it twice should hear of that at once.
    with bind(settings.http_host, port, "stop it or set HTTP_PORT") as socket:
        closing = asyncio.Event()
        patience = Patience(str(wiring))
        servers: list[Server] = []

        def stop() -> None:
            closing.set()
            patience.stop()
            for server in servers:
                server.should_exit = True

        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop)
        parent = await _watch_parent(stop) if supervised else None
        try:
            opening = partial(asyncio.to_thread, _open_database, wiring, settings)
            database = await patience.insist("opening its database", opening)
        except StoppingError:
            if parent is not None:
                parent.close()
            return
        runner = _runner(wiring, settings, bootstrap_servers, database)
        server = _server(runner, tables, closing, settings)
        servers.append(server)
        url = f"http://{settings.http_host}:{port}"
        log.info("%s: HTTP on %s, broker %s, data in %s", wiring, url, bootstrap_servers, database)
        working = runner.start()
        working.add_done_callback(lambda _: stop())
        await server.serve(sockets=[socket])
        await runner.stop()
        if parent is not None:
            parent.close()
        working.result()
        log.info("%s: stopped", wiring)


def _open_database(wiring: Wiring, settings: Settings) -> Database:
    try:
        database = database_for(wiring, settings, os.environ.get(EMBEDDED))
    except ProgrammingError as error:
        # The server is there, and refuses: rights or an option of the URL are missing. Waiting mends nothing.
        raise ConfigurationError(f"DATABASE_URL can't be used: {short(error)}") from error
    if STOCK.table in wiring.domain.storage.tables:
        try:
            fill_stock(database, settings.initial_stock)
        except SQLAlchemyError:
            database.close()
            raise
    return database


def _runner(wiring: Wiring, settings: Settings, bootstrap_servers: str, database: Database) -> Runner:
    link = BrokerLink(
        bootstrap_servers=bootstrap_servers,
        partitions=settings.topic_partitions,
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        max_poll_records=settings.max_poll_records,
        sole_instance=EMBEDDED in os.environ,
    )
    core = Core(wiring, settings.rules, database, recovery=settings.recovery)
    return Runner(core, link, KafkaPublisher(bootstrap_servers))


def _server(
    runner: Runner, tables: Sequence[RowTable[Any]], closing: asyncio.Event, settings: Settings
) -> Server:
    config = Config(
        create_app(runner, tables, closing),
        # The runner outlives the server, whose last requests may still submit to it.
        lifespan="off",
        log_config=None,
        access_log=settings.log_level == "DEBUG",
        server_header=False,
        timeout_graceful_shutdown=_REQUESTS_LIMIT_S,
    )
    return _QuietServer(config)


class _UntilEnd(asyncio.Protocol):
    """Calls `stop` at the end of what it is connected to."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    def connection_lost(self, _: Exception | None) -> None:
        self._stop()


async def _watch_parent(stop: Callable[[], None]) -> asyncio.BaseTransport:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: _UntilEnd(stop), sys.stdin)
    return transport
