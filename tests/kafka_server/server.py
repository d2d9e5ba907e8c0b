"""A real Apache Kafka broker for the tests: one KRaft node from its published jars, on loopback.

It needs Java 17 or newer, and Maven the first time: the jars are resolved once for each state of `pom.xml`
beside this file, into a cache folder at the root of the repository.
"""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

_POM = Path(__file__).with_name("pom.xml")
_CACHE = Path(__file__).parents[2] / ".cache" / "kafka"
_CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
_OLDEST_JAVA = 17
_RESOLVE_SECONDS = 600
_START_SECONDS = 90.0
_STOP_SECONDS = 30.0
# Fast to start and stop rather than fast to run.
_JVM = (
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)

# The broker's session is short because a broker that was killed can't register anew before it has expired.
_SETTINGS = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=200
"""


class UnavailableError(Exception):
    """Kafka can't run on this machine; the text says what is missing."""


class KafkaServer:
    """A broker that can be stopped, killed and started again, on the same port and data."""

    def __init__(self, folder: Path) -> None:
        """Prepare a broker with its files in `folder`; raises `UnavailableError` without Java or jars."""
        self._java = _find_java()
        self._classpath = f"{_resolve_jars()}{os.sep}*"
        self._settings = folder / "server.properties"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port, controller_port = _free_ports(2)
        self.bootstrap = f"127.0.0.1:{self._port}"
        text = _SETTINGS.format(port=self._port, controller_port=controller_port, data=folder / "data")
        self._settings.write_text(text)
        self._format()

    def start(self) -> None:
        """Start it unless it runs, and wait until it accepts connections."""
        if self._process is not None:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._settings)),
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C must not reach it before the tests' own clean-up does.
                start_new_session=True,
            )
        self._wait_until_it_listens(self._process)

    def stop(self) -> None:
        """Shut it down in order; it keeps its data. Does nothing if it is down."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does; it keeps what it had stored. Does nothing if it is down."""
        self._end(signal.SIGKILL)

    def _format(self) -> None:
        arguments = ("format", "--standalone", "-t", _CLUSTER_ID, "-c", str(self._settings))
        subprocess.run(
            self._command("kafka.tools.StorageTool", *arguments),
            check=True,
            capture_output=True,
            timeout=_START_SECONDS,
        )

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [self._java, *_JVM, "-cp", self._classpath, program, *arguments]

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not _accepts(self._port):
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"Kafka did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with self._process as process:
            os.killpg(process.pid, how)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self._process = None


def _find_java() -> str:
    java = shutil.which("java")
    if java is None:
        raise UnavailableError(f"Java {_OLDEST_JAVA} or newer is not installed")
    banner = subprocess.run([java, "-version"], check=True, capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < _OLDEST_JAVA:
        raise UnavailableError(
            f"Java {_OLDEST_JAVA} or newer is needed; installed is: {banner.splitlines()[0]}"
        )
    return java


def _resolve_jars() -> Path:
    """The folder of the jars; it appears all at once, so that what is there is complete."""
    jars = _CACHE / hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]
    if not jars.exists():
        unfinished = jars.with_name(f"{jars.name}-{os.getpid()}")
        _copy_dependencies(unfinished)
        unfinished.rename(jars)
    return jars


def _copy_dependencies(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise UnavailableError("Maven is not installed, and the jars of Kafka are not in the cache")
    goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}")
    done = subprocess.run(
        [maven, "-q", "-B", "-f", str(_POM), *goal],
        check=False,
        capture_output=True,
        text=True,
        timeout=_RESOLVE_SECONDS,
    )
    if done.returncode:
        raise UnavailableError(f"Maven could not resolve the jars of Kafka: {done.stdout[-500:]}")


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on; all are held until the last is chosen, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
