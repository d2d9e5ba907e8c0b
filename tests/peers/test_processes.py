"""Servers as child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from common.errors import ConfigurationError
from compare.peers.processes import PeerError, Program, Server, find_program, free_ports

ROOT: Final = Path(__file__).parents[2]
SLEEPER: Final = "import time; print('up', flush=True); time.sleep(1000)"
PROGRAM: Final = Program("no-such-server", "NO_SUCH_SERVER", "`install it`")
PARENT: Final = """
import asyncio, sys
from pathlib import Path
from compare.peers.processes import Server

async def main():
    server = await Server.start([sys.executable, "-c", sys.argv[2]], Path(sys.argv[1]))
    print(server.group, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


class NotYetError(Exception):
    pass


def text_in(log: Path) -> Callable[[], Awaitable[None]]:
    """What `ready` repeats: fail until a server has said something."""

    async def look() -> None:
        if not read(log):
            raise NotYetError

    return look


def read(file: Path) -> str:
    """What is in a file."""
    return file.read_text()


def group_is_empty(group: int) -> bool:
    """Whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


async def until_empty(group: int) -> None:
    """Wait until no process of a group is left."""
    async with asyncio.timeout(20):
        while not group_is_empty(group):  # noqa: ASYNC110 - of processes that are nobody's children any more
            await asyncio.sleep(0.02)


async def test_a_server_is_stopped_with_all_that_it_has_started(tmp_path: Path) -> None:
    """A script's own children end with it."""
    script = f'{sys.executable} -c "{SLEEPER}" & wait'
    server = await Server.start(["/bin/sh", "-c", script], tmp_path)
    await server.ready(text_in(tmp_path / "sh.log"), NotYetError)
    server.check()
    group = server.group
    await server.stop()
    await until_empty(group)
    with pytest.raises(PeerError, match="has ended"):
        server.check()


async def test_a_server_ends_with_its_parent(tmp_path: Path) -> None:
    """Even a parent that is killed leaves no server behind."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), SLEEPER, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    group = int(await parent.stdout.readline())
    assert not group_is_empty(group)
    parent.send_signal(signal.SIGKILL)
    await parent.communicate()
    await until_empty(group)


async def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    """Whoever waits for it is told its last words, and not left to wait."""
    server = await Server.start([sys.executable, "-c", "print('no room'); exit(3)"], tmp_path)
    log = tmp_path / f"{Path(sys.executable).name}.log"

    async def never() -> None:
        raise NotYetError

    with pytest.raises(PeerError, match="has ended: no room"):
        await server.ready(never, NotYetError)
    assert read(log) == "no room\n"
    await server.stop()


def test_a_program_that_is_nowhere_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, and which variable may name it."""
    monkeypatch.delenv(PROGRAM.variable, raising=False)
    with pytest.raises(
        ConfigurationError, match="no-such-server is not on the path: `install it`; or set NO_"
    ):
        find_program(PROGRAM)


def test_a_program_is_found_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the variable names is taken, or refused if it is no program."""
    monkeypatch.setenv(PROGRAM.variable, sys.executable)
    assert find_program(PROGRAM) == Path(sys.executable).resolve()
    monkeypatch.setenv(PROGRAM.variable, __file__ + ".missing")
    with pytest.raises(ConfigurationError, match=r"NO_SUCH_SERVER is .*missing, which is no program"):
        find_program(PROGRAM)


def test_a_program_beside_python_is_found() -> None:
    """What is installed into the environment counts though it isn't activated."""
    name = Path(sys.executable).name
    assert find_program(Program(name, "NO_SUCH_VARIABLE", "")) == Path(sys.executable)


def test_free_ports_differ_and_are_free() -> None:
    """Each of them can be listened at."""
    ports = free_ports(4)
    assert len(set(ports)) == 4
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))
