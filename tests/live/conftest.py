"""Whole modes as processes, started as a user starts them and watched from outside."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

T = TypeVar("T")

PROJECT = Path(__file__).parents[2]
PORTS = {
    "orchestrated": {"order": 8001, "orchestrator": 8011, "inventory": 8021, "payment": 8031},
    "choreographed": {"order": 8002, "inventory": 8022, "payment": 8032},
}
START_S = 40.0


def until(condition: Callable[[], T], *, seconds: float = 30.0, what: str = "") -> T:
    """Wait until the condition gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process, other than one that has ended and nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> list[int]:
    """The processes below this one."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*children, *(below for child in children for below in descendants(child))]


def command_line(pid: int) -> str:
    """What a process was started with."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def all_rows(get: Callable[[str, str], Any], service: str, table: str) -> list[dict[str, Any]]:
    """Every row of a table, page by page."""
    rows, path = [], f"/{table}?limit=200"
    while path:
        page = get(service, path)
        rows += page["items"]
        path = page["next"]
    return rows


@dataclass
class Lab:
    """A mode that runs: its first process, and what it prints."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        """All that was printed so far."""
        return self.log.read_text()

    def url(self, service: str = "order") -> str:
        """Where a service is."""
        return f"http://localhost:{PORTS[self.name][service]}"

    def get(self, service: str, path: str) -> Any:  # noqa: ANN401 - JSON
        """What a service answers."""
        answer = httpx.get(self.url(service) + path, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def all_rows(self, service: str, table: str) -> list[dict[str, Any]]:
        """Every row of a table."""
        return all_rows(self.get, service, table)

    def broker(self) -> str:
        """The address that the banner tells other Kafka clients."""
        found = re.search(r"^  broker +(\S+)", self.text(), re.MULTILINE)
        assert found
        return found[1]

    def data(self) -> Path:
        """The folder of the databases, as the banner tells it."""
        found = re.search(r"^  data +(\S+)", self.text(), re.MULTILINE)
        assert found
        return Path(found[1])

    def pid(self, service: str) -> int:
        """The process of a service; 0 while there is none."""
        wanted = f"-m {self.name} {service} "
        return next((pid for pid in descendants(self.process.pid) if wanted in command_line(pid)), 0)

    def wait_ready(self) -> None:
        """Wait for the banner."""
        what = f"{self.name} is ready\n{self.text()}"

        def ready() -> bool:
            assert self.process.poll() is None, self.text()
            return f"{self.name} is ready." in self.text()

        until(ready, seconds=START_S, what=what)

    def interrupt(self) -> None:
        """What a terminal does on Ctrl-C: SIGINT to the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)


def module_command(mode: str) -> list[str]:
    """The command without make."""
    return [sys.executable, "-m", mode]


def make_command(mode: str) -> list[str]:
    """`make orchestrated`, in the environment that the tests run in, which is taken for installed."""
    venv = sys.prefix
    return ["make", "--no-print-directory", "-o", f"{venv}/.run", f"VENV={venv}", mode]


has_make = pytest.mark.skipif(
    not (PROJECT / "Makefile").exists() or shutil.which("make") is None, reason="there is no make here"
)


def clean_environment(**more: str) -> dict[str, str]:
    """The variables of this process without the lab's own."""
    ours = (
        "KAFKA_",
        "HTTP_",
        "DATA_DIR",
        "DATABASE_URL",
        "TOPIC_",
        "FETCH_",
        "MAX_POLL",
        "PAYMENT_",
        "INITIAL_",
        "LOG_LEVEL",
    )
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith((*ours, "MAKE", "MFLAGS"))
    }
    return kept | more


@contextmanager
def started(mode: str, folder: Path, *command: str, **environment: str) -> Iterator[Lab]:
    """A mode, started in a process group of its own; whatever is left of it at the end is killed."""
    log = folder / f"{mode}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command or module_command(mode),
            cwd=PROJECT,
            env=clean_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Lab(mode, process, log)
    finally:
        left = [process.pid, *descendants(process.pid)]
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in left[1:]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def ready(mode: str, folder: Path, *command: str, **environment: str) -> Iterator[Lab]:
    """A mode that has shown its banner."""
    with started(mode, folder, *command, **environment) as lab:
        lab.wait_ready()
        yield lab
