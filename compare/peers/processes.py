"""A framework's server as a child process, which ends with this one even if that is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import ConfigurationError, LabError

_GUARD: Final = """\
exec 3<&0
"$@" 3<&- </dev/null & server=$!
(read -r _ <&3; kill -KILL 0) & watch=$!
wait $server; code=$?
kill -KILL $watch; exit $code
"""
"""Run a command until it ends, or until standard input does, which the system closes if the parent is killed.

Everything is in one process group, for what is on the path may be a script that starts the server proper. It
is killed, not asked: nothing of it is needed any more, and to outlive that is what these servers promise.
"""
_START_S: Final = 60.0
_PAUSE_S: Final = 0.05
_STOP_S: Final = 10.0
_SHOWN: Final = 2_000
"""Characters of a server's log that an error quotes."""


class PeerError(LabError):
    """A framework, or its server, doesn't start or can't go on."""


class Server:
    """A server that was started; what it says is in a file."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self._name = name
        self._process = process
        self._log = log
        self.group = process.pid
        """The process group that it is in, with all that it has started."""

    @classmethod
    async def start(
        cls, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
    ) -> Server:
        """Start a server in a folder, where its log will be, too; `environment` is added to this process's.

        Raises:
            OSError: it can't be started.
        """
        name = Path(command[0]).name
        log = folder / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", _GUARD, "sh", *command,
                stdin=PIPE, stdout=output, stderr=output, cwd=folder,
                env={**os.environ, **(environment or {})},
                # A group to be killed as a whole; and Ctrl-C must not reach it before our own clean-up.
                start_new_session=True,
            )  # fmt: skip
        return cls(name, process, log)

    async def ready(self, attempt: Callable[[], Awaitable[object]], *errors: type[Exception]) -> None:
        """Repeat an attempt until it raises none of these errors.

        Raises:
            PeerError: the server has ended, or a minute has passed.
        """
        deadline = asyncio.get_running_loop().time() + _START_S
        while True:
            try:
                await attempt()
            except errors as error:
                self.check()
                if asyncio.get_running_loop().time() > deadline:
                    raise PeerError(f"{self._name} isn't ready in {_START_S:g} s: {error!r}") from error
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    def check(self) -> None:
        """Return at once, or raise a PeerError if it has ended."""
        if self._process.returncode is not None:
            raise PeerError(f"{self._name} has ended: {self._last_words()}")

    async def stop(self) -> None:
        """Kill it, with all that it has started."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        async with asyncio.timeout(_STOP_S):
            await self._process.wait()

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-_SHOWN:].strip() or "it said nothing"


@dataclass(frozen=True, slots=True)
class Program:
    """A server that a framework needs, and where to get it."""

    name: str
    variable: str
    """The environment variable that may say where it is."""
    mend: str
    """How to install it."""


def find_program(program: Program) -> Path:
    """A program by its environment variable, beside this Python, or on the path.

    Raises:
        ConfigurationError: it is in none of these places; the text says how to mend it.
    """
    if given := os.environ.get(program.variable):
        if os.access(given, os.X_OK):
            return Path(given).resolve()
        raise ConfigurationError(
            f"{program.variable} is {given}, which is no program: correct it, or leave it out"
        )
    beside = Path(sys.executable).with_name(program.name)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(program.name)
    if found is None:
        raise ConfigurationError(
            f"{program.name} is not on the path: {program.mend}; or set {program.variable} to it"
        )
    return Path(found)


def free_ports(count: int) -> list[int]:
    """So many TCP ports of loopback that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            with suppress(OSError):
                one.close()
