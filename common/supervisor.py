"""A whole mode on one machine: each service in a process of its own, and a broker if none is set.

Each child leads a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone, which stops
the children in order. Each has a pipe from the supervisor as its stdin: that closes however the supervisor
ends, even by SIGKILL, and the child ends with it. A child that crashes is started again; one that ends with
EX_CONFIG says that this would be of no use, and the embedded broker's memory is gone with it, so both end the
whole mode.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import monotonic
from typing import Any, Final, cast

from sqlalchemy.exc import SQLAlchemyError

from common.banner import banner, until_ready
from common.databases import data_place, drop_schemas
from common.embedded import EmbeddedBroker, embedded_broker
from common.errors import BrokerError, ConfigurationError
from common.patience import short
from common.ports import bind
from common.service import EMBEDDED, SUPERVISED
from common.settings import Settings
from common.wiring import Mode, Wiring

EX_CONFIG: Final = 78
"""The exit code of a process that starting again can't mend (BSD's sysexits)."""

_EMBEDDED_FETCH_MS: Final = 10
"""The embedded broker holds an empty fetch for the whole time: a compromise between latency and idle CPU."""
_FIRST_RESTART_S: Final = 0.5
_LAST_RESTART_S: Final = 10.0
_HEALTHY_S: Final = 30.0
"""How long a service must have run for its next crash to count as its first."""
_STOP_LIMIT_S: Final = 5.0
_LONGEST_LINE: Final = 1024 * 1024
_COLOURS: Final = (36, 33, 32, 35)

Show = Callable[[str], None]


@dataclass
class _Child:
    """A service's process, and the next one when it has crashed."""

    wiring: Wiring
    environment: dict[str, str]
    show: Show
    _process: Process | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _last_words: str = field(default="", init=False)

    async def run(self) -> None:
        """Keep the service running until `stop`.

        Raises:
            ConfigurationError: the service says that it can't run.
        """
        delay = _FIRST_RESTART_S
        while not self._stopping.is_set():
            started = monotonic()
            pid, code = await self._run_once()
            if self._stopping.is_set():
                return
            if code == EX_CONFIG:
                raise ConfigurationError(f"the {self.wiring.name} service can't run: {self._last_words}")
            if monotonic() - started > _HEALTHY_S:
                delay = _FIRST_RESTART_S
            self.show(f"process {pid} {_ending(code)}; it is started again in {delay:g} s")
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            delay = min(2 * delay, _LAST_RESTART_S)

    async def stop(self) -> None:
        """Ask the process to stop, and kill it if it takes too long."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await process.wait()
        except TimeoutError:
            self.show(f"process {process.pid} doesn't stop, and is killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End the process by force."""
        self._stopping.set()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _run_once(self) -> tuple[int, int]:
        """Run one process to its end, passing its lines on; its id, and its exit code or minus its signal."""
        # -P, if this process has it: the working directory is no place to import from.
        path = ["-P"] if sys.flags.safe_path else []
        command = [sys.executable, *path, "-m", self.wiring.mode, self.wiring.name]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            limit=_LONGEST_LINE,
            env=self.environment,
            start_new_session=True,
        )
        self._process = process
        if self._stopping.is_set():  # while it was being started
            self.kill()
        async for line in cast("asyncio.StreamReader", process.stdout):
            self._last_words = line.decode(errors="replace").rstrip()
            self.show(self._last_words)
        return process.pid, await process.wait()


@dataclass
class _Asked:
    """Whether the user has asked for the end, by Ctrl-C or SIGTERM; a second time means at once."""

    children: list[_Child]
    once: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self.once.is_set():
            for child in self.children:
                child.kill()
        self.once.set()


async def supervise(mode: Mode, settings: Settings) -> int:
    """Run all services of a mode until the user asks for the end; returns the exit code 0.

    Raises:
        LabError: a port is taken, the broker died or can't be started, or a service can't run.
    """
    for wiring in mode.services:
        bind(settings.http_host, wiring.port, "stop it: perhaps the mode is running already").close()
    children: list[_Child] = []
    asked = _Asked(children)
    async with _broker(mode, settings) as (address, embedded):
        run = secrets.token_hex(4) if embedded is not None else None
        with _data_dir(settings, temporary=run is not None) as folder, _schemas(mode, settings, run):
            children += _children(mode, _environment(settings, address, folder, run))
            data = data_place(mode, settings, folder, run)
            await _run_all(children, embedded, asked, _announce(mode, settings, address, data))
    _show(f"{mode.name}: all services have stopped")
    return 0


async def _run_all(
    children: list[_Child],
    embedded: EmbeddedBroker | None,
    asked: _Asked,
    welcome: Coroutine[None, None, None],
) -> None:
    """Run the services until the user asks for the end, or one of them, or the broker, can't go on."""
    announcing = asyncio.create_task(welcome)
    running = [asyncio.create_task(child.run()) for child in children]
    others: list[asyncio.Task[Any]] = [asyncio.create_task(asked.once.wait())]
    if embedded is not None:
        others.append(asyncio.create_task(_until_broker_dies(embedded)))
    try:
        done, _ = await asyncio.wait([*others, *running], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (announcing, *others):
            task.cancel()
        await asyncio.gather(*(child.stop() for child in children))
        # Their last lines are still to be shown.
        await asyncio.wait(running)
    for task in done:
        task.result()


async def _announce(mode: Mode, settings: Settings, address: str, data: str) -> None:
    await until_ready(settings.http_host, [wiring.port for wiring in mode.services])
    _show(banner(mode, settings, address, data))


async def _until_broker_dies(broker: EmbeddedBroker) -> None:
    code = await broker.exited()
    raise BrokerError(
        f"the embedded broker {_ending(code)}, and all topics with it: start the mode again, "
        "or set KAFKA_BOOTSTRAP_SERVERS to a broker that keeps its data"
    )


@asynccontextmanager
async def _broker(mode: Mode, settings: Settings) -> AsyncIterator[tuple[str, EmbeddedBroker | None]]:
    """The address of the broker that is set, or of one that is embedded for the length of the block."""
    if settings.kafka_bootstrap_servers is not None:
        yield settings.kafka_bootstrap_servers, None
        return
    async with embedded_broker() as broker:
        await broker.create_topics(mode.all_topics, settings.topic_partitions)
        yield broker.bootstrap, broker


@contextmanager
def _data_dir(settings: Settings, *, temporary: bool) -> Iterator[Path]:
    """The folder of the databases; a new one if they are to be as temporary as the broker."""
    lasting = settings.lasting_data_dir
    if lasting is None or settings.database_url is not None:
        with TemporaryDirectory(prefix="saga-lab-", ignore_cleanup_errors=True) as temporary_folder:
            yield Path(temporary_folder)
        return
    try:
        root = lasting.resolve()
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix="embedded-", dir=root)) if temporary else root
    except OSError as error:
        raise ConfigurationError(f"DATA_DIR {lasting} can't be used: {error.strerror}") from error
    yield folder


@contextmanager
def _schemas(mode: Mode, settings: Settings, run: str | None) -> Iterator[None]:
    """Remove what the run leaves on the PostgreSQL server, if it is to be as temporary as the broker."""
    try:
        yield
    finally:
        if run is not None:
            try:
                drop_schemas(mode, settings, run)
            except SQLAlchemyError as error:
                _show(f"{mode.name}: its schemas, *_{run}, could not be removed: {short(error)}")


def _environment(settings: Settings, address: str, folder: Path, run: str | None) -> dict[str, str]:
    """What the services are told; each has its own HTTP port by default."""
    environment = {name: value for name, value in os.environ.items() if name != "HTTP_PORT"}
    environment |= {"KAFKA_BOOTSTRAP_SERVERS": address, "DATA_DIR": str(folder), SUPERVISED: "1"}
    if run is not None:
        environment[EMBEDDED] = run
        if "fetch_max_wait_ms" not in settings.model_fields_set:
            environment["FETCH_MAX_WAIT_MS"] = str(_EMBEDDED_FETCH_MS)
    return environment


def _children(mode: Mode, environment: dict[str, str]) -> list[_Child]:
    width = max(len(wiring.name) for wiring in mode.services)
    return [
        _Child(wiring, environment, _prefixed(wiring.name.ljust(width), colour))
        for wiring, colour in zip(mode.services, _COLOURS, strict=False)
    ]


def _prefixed(name: str, colour: int) -> Show:
    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))
    prefix = f"{name} |" if plain else f"\x1b[{colour}m{name} |\x1b[0m"
    return lambda line: _show(f"{prefix} {line}")


def _show(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the terminal is its place


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
