"""One service in this process: its database, its runner and its HTTP server, from start to stop.

HTTP is up at once, whether the broker is there or not: orders are taken and kept in the outbox meanwhile, and
`/health/ready` says what is being waited for. On SIGINT, SIGTERM, or the death of the supervisor, requests
that wait come to an end, the batch in flight is finished, and the process ends within two seconds or so.

The supervisor tells a service about its circumstances by two variables that are not for operators:
- `SAGA_LAB_SUPERVISED=1`: end when stdin does, since then the supervisor is gone;
- `SAGA_LAB_EMBEDDED=1`: the broker is the embedded one, and lives no longer than this run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from uvicorn import Config, Server

from common.core import Core
from common.errors import ConfigurationError
from common.http.app import create_app
from common.logs import configure_logs
from common.ports import bind
from common.publisher import KafkaPublisher
from common.runner import BrokerLink, Runner
from common.services import ORDERS, STOCK, fill_stock
from common.settings import DEFAULT_DATA_DIR, Settings
from common.store.database import Database
from common.store.rows import RowTable
from common.store.schema import IDEMPOTENCY
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
        folder = _data_folder(wiring, settings)
        runner = _runner(wiring, settings, bootstrap_servers, folder)
        closing = asyncio.Event()
        server = _server(runner, tables, closing, settings)
        url = f"http://{settings.http_host}:{port}"
        log.info("%s: HTTP on %s, broker %s, data in %s", wiring, url, bootstrap_servers, folder)

        def stop() -> None:
            closing.set()
            server.should_exit = True

        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop)
        parent = await _watch_parent(stop) if supervised else None
        working = runner.start()
        working.add_done_callback(lambda _: stop())
        await server.serve(sockets=[socket])
        await runner.stop()
        if parent is not None:
            parent.close()
        working.result()
        log.info("%s: stopped", wiring)


def _data_folder(wiring: Wiring, settings: Settings) -> Path:
    # Never a temporary one: the broker keeps the group's offsets, and what is consumed doesn't come again.
    root = settings.data_dir or DEFAULT_DATA_DIR
    folder = root.resolve() / wiring.mode
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"DATA_DIR {root} can't be used: {error.strerror}") from error
    return folder


def _runner(wiring: Wiring, settings: Settings, bootstrap_servers: str, folder: Path) -> Runner:
    embedded = EMBEDDED in os.environ
    own = wiring.domain.storage.tables
    database = Database(
        f"sqlite:///{folder / wiring.name}.db",
        [*own, IDEMPOTENCY] if ORDERS.table in own else own,
        synchronous="OFF" if embedded else "FULL",
    )
    if STOCK.table in own:
        fill_stock(database, settings.initial_stock)
    link = BrokerLink(
        bootstrap_servers=bootstrap_servers,
        partitions=settings.topic_partitions,
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        max_poll_records=settings.max_poll_records,
        sole_instance=embedded,
    )
    return Runner(Core(wiring, settings.rules, database), link, KafkaPublisher(bootstrap_servers))


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
