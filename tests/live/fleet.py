"""Several instances of every service of a mode, each a process, on a broker and databases that they share."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.live.conftest import PORTS, PROJECT, all_rows, clean_environment, until

READY_S = 60.0


@dataclass
class Instance:
    """One process of one service."""

    service: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Whether it says that it is."""
        try:
            return httpx.get(f"{self.url}/health/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@dataclass
class Fleet:
    """The instances that there are, and how to start and kill them; it can be asked like a `Lab`."""

    name: str
    bootstrap: str
    folder: Path
    environment: Mapping[str, str]
    instances: list[Instance] = field(default_factory=list)

    def start(self, service: str) -> Instance:
        """Start one more instance of a service."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        log = self.folder / f"{service}-{len(list(self.folder.glob('*.log')))}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", self.name, service],
                cwd=PROJECT,
                env=clean_environment(
                    KAFKA_BOOTSTRAP_SERVERS=self.bootstrap, HTTP_PORT=str(port), **self.environment
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        instance = Instance(service, port, process)
        self.instances.append(instance)
        return instance

    def kill(self, service: str) -> None:
        """Kill the oldest instance of a service, by SIGKILL."""
        victim = next(one for one in self.instances if one.service == service)
        self.instances.remove(victim)
        os.kill(victim.process.pid, signal.SIGKILL)
        victim.process.wait()

    def wait_ready(self) -> None:
        """Wait until all that there are say that they are ready."""
        for instance in self.instances:
            until(instance.is_ready, seconds=READY_S, what=f"{instance.service} is ready")

    def of(self, service: str) -> list[Instance]:
        """The instances of a service."""
        return [one for one in self.instances if one.service == service]

    def logs(self) -> str:
        """What all have printed, those that are dead included."""
        return "\n".join(log.read_text() for log in sorted(self.folder.glob("*.log")))

    def broker(self) -> str:
        """The broker's address."""
        return self.bootstrap

    def get(self, service: str, path: str) -> Any:  # noqa: ANN401 - JSON
        """What the first instance of a service answers."""
        answer = httpx.get(self.of(service)[0].url + path, trust_env=False, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def all_rows(self, service: str, table: str) -> list[dict[str, Any]]:
        """Every row of a table."""
        return all_rows(self.get, service, table)


@contextmanager
def fleet(
    mode: str, bootstrap: str, folder: Path, count: int, environment: Mapping[str, str]
) -> Iterator[Fleet]:
    """So many instances of every service, ready; all that are left at the end are killed."""
    folder.mkdir()
    found = Fleet(mode, bootstrap, folder, environment)
    try:
        for service in PORTS[mode]:
            for _ in range(count):
                found.start(service)
        found.wait_ready()
        yield found
    finally:
        for instance in found.instances:
            instance.process.kill()
            instance.process.wait()
