"""Other frameworks that carry out the same saga: what each is and guarantees, without importing any of them.

They are measured beside the modes, and are no modes: nothing else in the lab knows of them. `docs/peers.md`
tells how each is written, and what was set.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from common.errors import ConfigurationError
from compare.peers.processes import Program, find_program
from compare.peers.topics import TOPICS

if TYPE_CHECKING:
    from compare.peers.peer import Peer, Terms

INSTALL: Final = "install the extra: `make peers`, or `pip install '.[peers]'` beside the sources"
_VERSION_S: Final = 20


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a framework promises of a saga, in words; what is here is true as it is set up here."""

    durability: str
    """What an order that was accepted survives."""
    recovery: str
    """What becomes of the orders under way when the process that carries them out is killed (SIGKILL)."""
    effect: str
    """How often a step takes effect."""


@dataclass(frozen=True, slots=True)
class Description:
    """A peer."""

    name: str
    title: str
    maker: str
    """Where its class is: `module:class`."""
    packages: tuple[str, ...]
    """What has to be installed of PyPI."""
    guarantees: Guarantees
    settings: Mapping[str, str]
    """What was set that is not the framework's default."""
    program: Program | None = None
    topics: frozenset[str] = frozenset()
    """What has to be on the broker, with the run and a dot before each; none: it uses no broker."""
    postgresql: bool | None = None
    """True: it runs only where a PostgreSQL server is set; False: only where none is; None: on both."""

    def missing(self) -> str | None:
        """What keeps it from running on this machine, and how to mend that; None if nothing does."""
        try:
            self.versions()
        except ConfigurationError as error:
            return str(error)
        return None

    def unfit(self, *, with_server: bool) -> str | None:
        """Why it can't use the database that is set, and how to mend that; None if it can."""
        if self.postgresql in {None, with_server}:
            return None
        mend = "set DATABASE_URL" if self.postgresql else "leave DATABASE_URL out"
        return f"it needs {'PostgreSQL' if self.postgresql else 'SQLite'}: {mend}"

    def versions(self) -> dict[str, str]:
        """The versions of all that it needs, by name.

        Raises:
            ConfigurationError: something isn't installed; the text says how to mend it.
        """
        found = {package: _installed(package) for package in self.packages}
        if self.program is not None:
            found[self.program.name] = _version_of(self.program)
        return found


TEMPORAL_SERVER: Final = Program("temporal", "TEMPORAL_CLI", INSTALL)
RESTATE_SERVER: Final = Program(
    "restate-server",
    "RESTATE_SERVER",
    "`npm install --prefix DIRECTORY @restatedev/restate-server` puts it into DIRECTORY/node_modules/.bin",
)

_AT_LEAST_ONCE: Final = (
    "a step is tried at least once, and repeated if its outcome wasn't recorded; the effect is once because "
    "the services' deciders are idempotent"
)
_TEMPORAL: Final = Guarantees(
    durability="a workflow is in the server's SQLite file when its start is acknowledged",
    recovery="the server, started again on the same file, hands the workflows to the next worker, which "
    "replays their histories; a step that was under way is repeated when its time is up",
    effect=_AT_LEAST_ONCE,
)
_DBOS: Final = Guarantees(
    durability="a workflow is in DBOS's system database when its start returns",
    recovery="the next process with the same databases goes on after the last recorded step of each workflow",
    effect="exactly once: a step's outcome is recorded by the transaction that carries it out",
)
_RAISED: Final = "history.transferProcessorMaxPollRPS 10000 in place of 20"
_TUNED: Final = {
    "dynamic configuration": _RAISED,
    "server's SQLite": "journal_mode wal, synchronous as the lab's (by default: delete, full)",
}
_WORKER: Final = {"worker": "one, on one task queue, keeping 10000 workflows in memory in place of 1000"}

PEERS: Final = {
    peer.name: peer
    for peer in (
        Description(
            "temporal",
            "Temporal, development server as it comes",
            "compare.peers.temporal:Temporal",
            ("temporalio",),
            _TEMPORAL,
            {**_WORKER, "server": "state in a file, in place of memory"},
            program=TEMPORAL_SERVER,
        ),
        Description(
            "temporal-tuned",
            "Temporal, development server with its pace raised",
            "compare.peers.temporal:TunedTemporal",
            ("temporalio",),
            _TEMPORAL,
            {**_WORKER, **_TUNED},
            program=TEMPORAL_SERVER,
        ),
        Description(
            "temporal-local",
            "Temporal, tuned, with local activities",
            "compare.peers.temporal:LocalTemporal",
            ("temporalio",),
            Guarantees(
                _TEMPORAL.durability,
                "as with other activities, but steps are recorded several at a time: all since the last "
                "record are repeated",
                _AT_LEAST_ONCE,
            ),
            {**_WORKER, **_TUNED},
            program=TEMPORAL_SERVER,
        ),
        Description(
            "dbos-sqlite",
            "DBOS on SQLite",
            "compare.peers.dbos:SQLiteDBOS",
            ("dbos",),
            _DBOS,
            {
                "system database": "SQLite in the lab's journal mode, synchronous as the lab's "
                "(by default: delete, full)",
                "max_executor_threads": "4",
            },
            postgresql=False,
        ),
        Description(
            "dbos-postgresql",
            "DBOS on PostgreSQL",
            "compare.peers.dbos:PostgreSQLDBOS",
            ("dbos",),
            _DBOS,
            {"max_executor_threads": "16", "isolation of steps": "READ COMMITTED, with the rows locked"},
            postgresql=True,
        ),
        Description(
            "restate",
            "Restate, one node",
            "compare.peers.restate:Restate",
            ("restate-sdk", "hypercorn", "httpx"),
            Guarantees(
                durability="an invocation is in the server's log when it is accepted; the log waits for the "
                "disk with durability FULL only",
                recovery="the server, started again on the same folder, repeats the invocations at the same "
                "address, which skip the steps in their journals",
                effect=_AT_LEAST_ONCE,
            ),
            {
                "log": "rocksdb-disable-wal-fsync, unless durability is FULL (by default, it is off)",
                "Hypercorn": "no limits to streams and requests of a connection, as Restate documents it",
            },
            program=RESTATE_SERVER,
        ),
        Description(
            "faststream",
            "FastStream on Kafka, without guarantees",
            "compare.peers.faststream:FastStream",
            ("faststream", "aiokafka"),
            Guarantees(
                durability="an order is in the database when it is accepted; whether its event ever reaches "
                "the broker is left to luck",
                recovery="none: an order that a crash interrupts stays as it is",
                effect="at most once for most, as offsets are committed before a message is handled; what it "
                "does to the database and what it tells may differ",
            ),
            {"max_workers": "16 of each subscriber", "fetch_max_wait_ms": "as the modes'"},
            topics=frozenset(TOPICS.values()),
        ),
    )
}
"""All peers, by name."""


def make_peer(name: str, terms: Terms) -> Peer:
    """A peer, not started; its framework is imported now.

    Raises:
        ConfigurationError: there is no such peer, or what it needs isn't there; the text says how to mend it.
    """
    description = PEERS.get(name)
    if description is None:
        raise ConfigurationError(f"there is no peer {name!r}: choose from {', '.join(PEERS)}")
    description.versions()
    if (unfit := description.unfit(with_server=terms.server is not None)) is not None:
        raise ConfigurationError(f"{name}: {unfit}")
    module, _, kind = description.maker.partition(":")
    peer: Peer = getattr(import_module(module), kind)(terms)
    return peer


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise ConfigurationError(f"{package} is not installed: {INSTALL}") from None


def _version_of(program: Program) -> str:
    found = find_program(program)
    try:
        done = subprocess.run(  # noqa: S603 - a program that the user has named, or has on the path
            [found, "--version"], check=True, capture_output=True, text=True, timeout=_VERSION_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(f"{found} doesn't tell its version ({error}): {program.mend}") from error
    return done.stdout.strip().removeprefix(program.name).removeprefix(" version").strip()
