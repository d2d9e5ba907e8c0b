"""A real PostgreSQL server for the tests, from the system's package, with a cluster of its own on loopback.

It refuses to run as root: then it runs as the user that the package has made for it, or as nobody.
"""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

_INSTALLED = Path("/usr/lib/postgresql")
"""Where Debian keeps each version's programs; they are not on the path."""
_OLDEST = 15
"""The first that can be told to sort by the rules of a language, whatever languages the system has."""
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_USER = "lab"
_PASSWORD = "p@ss:w/rd?#%"
"""With all that means something in a URL."""
_QUOTED = "p%40ss%3Aw%2Frd%3F%23%25"

# Nothing here survives a power cut. Of many services that are opened at once, each has a connection or two.
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "400",
    "log_lock_waits": "on",
}


class UnavailableError(Exception):
    """PostgreSQL can't run on this machine; the text says what is missing."""


class PostgresServer:
    """A server that can be stopped, killed and started again, on the same port and data.

    Text is sorted as in English, unlike in SQLite: what relies on the order of bytes has to say so.
    """

    def __init__(self) -> None:
        """Make a cluster in a folder of its own; raises `UnavailableError` without the programs."""
        self._programs = _find_programs()
        self._user = _other_user() if os.geteuid() == 0 else None
        # Not below pytest's folders, which other users can't enter; and a socket's path has to be short.
        self._folder = Path(tempfile.mkdtemp(prefix="saga-lab-postgres-"))
        self._log = self._folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        self.secrets = (_PASSWORD, _QUOTED)
        self.url = f"postgresql://{_USER}:{_QUOTED}@127.0.0.1:{self._port}/postgres"
        if self._user is not None:
            shutil.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._make_cluster()

    def start(self) -> None:
        """Start it unless it runs, and wait until it lets clients in."""
        if self._process is not None:
            return
        settings = {**_OPTIONS, "port": str(self._port), "unix_socket_directories": str(self._folder)}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._folder / "data", *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C must not reach it before the tests' own clean-up does.
                start_new_session=True,
                **self._as_user(),
            )
        self._wait_until_it_lets_in(self._process)

    def stop(self) -> None:
        """Shut it down in order, throwing out its clients; it keeps its data. Does nothing if it is down."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash does: it has to recover when it starts again. Does nothing if it is down."""
        # Not SIGKILL: that ends one process of several, and the next start would meet the others.
        self._end(signal.SIGQUIT)

    def remove(self) -> None:
        """Stop it, and remove its files."""
        self.stop()
        shutil.rmtree(self._folder)

    def _make_cluster(self) -> None:
        password = self._folder / "password"
        password.write_text(_PASSWORD)
        language = ("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en")
        access = (f"--username={_USER}", "--auth=scram-sha-256", f"--pwfile={password}")
        done = subprocess.run(
            [self._programs / "initdb", "--no-sync", *language, *access, "-D", self._folder / "data"],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_START_SECONDS,
            **self._as_user(),
        )
        if done.returncode:
            shutil.rmtree(self._folder)
            raise UnavailableError(f"initdb failed: {done.stdout[-2000:]}")

    def _as_user(self) -> dict[str, Any]:
        """What a process is started with, so that it runs as the user who owns the files."""
        common = {"cwd": self._folder, "stdin": subprocess.DEVNULL}
        if self._user is None:
            return common
        return {**common, "user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": ()}

    def _wait_until_it_lets_in(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._lets_in():
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"PostgreSQL did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.02)

    def _lets_in(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=3).close()
        except psycopg.OperationalError:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with self._process as process:
            process.send_signal(how)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        self._process = None


def _find_programs() -> Path:
    """The folder of the newest version's programs."""
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += _INSTALLED.glob("*/bin")
    versions = {folder: _version(folder) for folder in folders if (folder / "initdb").exists()}
    if not versions:
        raise UnavailableError("it is not installed")
    newest = max(versions, key=lambda folder: versions[folder])
    if versions[newest] < _OLDEST:
        raise UnavailableError(f"version {_OLDEST} or newer is needed; installed is {versions[newest]}")
    return newest


def _version(folder: Path) -> int:
    done = subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, text=True)
    found = re.search(r"\d+", done.stdout)
    return int(found[0]) if found else 0


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise UnavailableError("there is no user for it to run as, and it refuses to run as root")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
