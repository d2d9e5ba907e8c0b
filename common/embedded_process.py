"""The child process of the embedded broker; `common.embedded` says what it is, and starts it.

It talks in lines of JSON. Its first line on stdout is the greeting `{"bootstrap": "127.0.0.1:PORT",
"fallback": null or why the control functions are missing}`, or `{"error": "..."}` if there can be no broker.
After that each line on stdin is a command `{"id": n, "do": NAME, ...arguments}`, answered by `{"id": n,
"error": null or "..."}`. The end of stdin ends the process.

It is run by its path, not as a module, and so imports nothing of the project: it works from any folder, and
it starts in the time that the interpreter takes.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NoReturn, Protocol

# librdkafka creates topics that it is asked about with this many partitions, and has no setting for it.
_DEFAULT_PARTITIONS = 4

_BROKER_ID = 1
_PRODUCER = 0
_TOPIC_ALREADY_EXISTS = 36
_REBALANCE_DELAY_MS = 1
_KNOCK_SECONDS = 0.005
_ERROR_TEXT_BYTES = 512
_OUT_OF_REACH = "librdkafka's control functions are out of reach here"

_HANDLE = ctypes.c_void_p
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "rd_kafka_conf_new": (_HANDLE, ()),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        (_HANDLE, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t),
    ),
    "rd_kafka_new": (_HANDLE, (ctypes.c_int, _HANDLE, ctypes.c_char_p, ctypes.c_size_t)),
    "rd_kafka_err2str": (ctypes.c_char_p, (ctypes.c_int,)),
    "rd_kafka_mock_cluster_new": (_HANDLE, (_HANDLE, ctypes.c_int)),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, (_HANDLE,)),
    "rd_kafka_mock_topic_create": (ctypes.c_int, (_HANDLE, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (_HANDLE, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, (_HANDLE, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, (_HANDLE, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_rtt": (ctypes.c_int, (_HANDLE, ctypes.c_int32, ctypes.c_int)),
}


class RefusedError(Exception):
    """A command, or the start itself, can't be carried out; the text goes to the parent."""


class LibraryError(Exception):
    """The control functions of librdkafka can't be reached through ctypes."""


class _Cluster(Protocol):
    """What a command can ask of either kind of cluster; every method may raise `RefusedError`."""

    bootstrap: str

    def create_topic(self, name: str, partitions: int) -> None: ...
    def down(self) -> None: ...
    def up(self) -> None: ...
    def set_round_trip(self, milliseconds: int) -> None: ...


class _ControlledCluster:
    """A cluster made by librdkafka's own functions, which choose partition counts and inject faults."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._topics: dict[str, int] = {}
        self._cluster = library.rd_kafka_mock_cluster_new(_silent_handle(library), 1)
        if not self._cluster:
            raise RefusedError("librdkafka could not open a loopback port for its built-in cluster")
        # The first join of a group otherwise waits 3 s for further members, which it can't serve anyway.
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, _REBALANCE_DELAY_MS)
        self.bootstrap = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, partitions: int) -> None:
        with self._awake():
            code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if code == _TOPIC_ALREADY_EXISTS and self._topics.get(name) == partitions:
            return
        self._check(code, f"topic {name!r} with {partitions} partitions")
        self._topics[name] = partitions

    def down(self) -> None:
        with self._awake():
            code = self._library.rd_kafka_mock_broker_set_down(self._cluster, _BROKER_ID)
        self._check(code, "broker down")

    def up(self) -> None:
        self._check(self._library.rd_kafka_mock_broker_set_up(self._cluster, _BROKER_ID), "broker up")

    def set_round_trip(self, milliseconds: int) -> None:
        with self._awake():
            code = self._library.rd_kafka_mock_broker_set_rtt(self._cluster, _BROKER_ID, milliseconds)
        self._check(code, f"round trip of {milliseconds} ms")

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        """Keep the cluster's thread from sleeping on a command.

        It looks for commands after serving a connection, or else once a second: so knock until it has looked.
        """
        done = threading.Event()
        knocker = threading.Thread(target=self._knock, args=(done,), daemon=True)
        knocker.start()
        try:
            yield
        finally:
            done.set()
            knocker.join()

    def _knock(self, done: threading.Event) -> None:
        host, _, port = self.bootstrap.rpartition(":")
        while not done.wait(_KNOCK_SECONDS):
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                pass

    def _check(self, code: int, what: str) -> None:
        if code:
            raise RefusedError(f"{what}: {self._library.rd_kafka_err2str(code).decode()}")


class _PlainCluster:
    """The fallback: the cluster that a client opens for itself by a setting, with no control functions."""

    def __init__(self) -> None:
        try:
            # Imported here because it takes longer than all the rest, and the other cluster does without it.
            from confluent_kafka import Producer  # noqa: PLC0415
        except ImportError as error:
            raise RefusedError(f"confluent-kafka can't be imported ({error}): install it") from error
        self._client = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        (broker,) = self._client.list_topics(timeout=10).brokers.values()
        self.bootstrap = f"{broker.host}:{broker.port}"

    def create_topic(self, name: str, partitions: int) -> None:
        if partitions != _DEFAULT_PARTITIONS:
            raise RefusedError(
                f"topic {name!r} can't have {partitions} partitions, since {_OUT_OF_REACH}: "
                f"use {_DEFAULT_PARTITIONS}, or a broker named by KAFKA_BOOTSTRAP_SERVERS"
            )
        self._client.list_topics(name, timeout=10)

    def down(self) -> None:
        self._refuse("go down")

    def up(self) -> None:
        self._refuse("come up")

    def set_round_trip(self, milliseconds: int) -> None:
        self._refuse(f"answer after {milliseconds} ms")

    def _refuse(self, what: str) -> NoReturn:
        raise RefusedError(f"the broker can't {what}, since {_OUT_OF_REACH}")


def _silent_handle(library: ctypes.CDLL) -> int:
    """A client handle that logs nothing: the cluster lives in it, and needs it for nothing else."""
    text = ctypes.create_string_buffer(_ERROR_TEXT_BYTES)
    conf = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(conf, b"log_level", b"0", text, len(text))
    handle: int | None = library.rd_kafka_new(_PRODUCER, conf, text, len(text))
    if handle is None:
        raise RefusedError(f"librdkafka could not start: {text.value.decode()}")
    return handle


def _library_candidates(package: Path) -> Iterator[Path]:
    """Where wheels keep librdkafka: a folder of repaired libraries, or (linked in) the extension itself."""
    for folder in (package.parent / "confluent_kafka.libs", package / ".dylibs"):
        yield from sorted(folder.glob("*rdkafka*"))
    # Looking a symbol up in the extension also searches what it is linked against, such as a system library.
    yield from filter(Path.exists, (package / f"cimpl{suffix}" for suffix in EXTENSION_SUFFIXES))


def _open_library() -> ctypes.CDLL:
    """The first candidate that has every function needed, with their signatures declared."""
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise LibraryError("confluent-kafka is not installed")
    for path in _library_candidates(Path(spec.origin).parent):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
            return library
    raise LibraryError("no library of confluent-kafka has librdkafka's control functions")


def _open_cluster(*, controlled: bool) -> tuple[_Cluster, str | None]:
    """The cluster, and why it is the fallback if it is."""
    if not controlled:
        return _PlainCluster(), "asked for"
    try:
        return _ControlledCluster(_open_library()), None
    except LibraryError as error:
        return _PlainCluster(), str(error)


def _carry_out(cluster: _Cluster, command: dict[str, Any]) -> None:
    match command:
        case {"do": "create_topics", "names": names, "partitions": partitions}:
            for name in names:
                cluster.create_topic(name, partitions)
        case {"do": "down"}:
            cluster.down()
        case {"do": "up"}:
            cluster.up()
        case {"do": "set_round_trip", "milliseconds": milliseconds}:
            cluster.set_round_trip(milliseconds)
        case _:
            raise RefusedError(f"unknown command {command}")


def _answer(cluster: _Cluster, command: dict[str, Any]) -> dict[str, Any]:
    try:
        _carry_out(cluster, command)
    except RefusedError as error:
        return {"id": command["id"], "error": str(error)}
    return {"id": command["id"], "error": None}


def _say(message: dict[str, Any]) -> None:
    # Unbuffered: what a closed pipe refuses would otherwise be written once more, and complained of, at exit.
    os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def _serve(*, controlled: bool) -> None:
    try:
        cluster, fallback = _open_cluster(controlled=controlled)
    except RefusedError as error:
        _say({"error": str(error)})
        return
    _say({"bootstrap": cluster.bootstrap, "fallback": fallback})
    for line in sys.stdin:
        _say(_answer(cluster, json.loads(line)))


def main() -> None:
    """Serve until stdin ends."""
    # Both signals may reach a whole process group; the parent, which still needs the broker to stop in order,
    # ends this process by closing its stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError):
        _serve(controlled="--plain" not in sys.argv)


if __name__ == "__main__":
    main()
