"""What a benchmark was run on, and with which versions of what."""

from __future__ import annotations

import os
import platform
import sqlite3
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil
from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError

from common import __version__
from common.errors import ConfigurationError
from common.patience import short
from common.store.postgresql import postgresql_engine
from compare.bench.document import Machine

_PACKAGES: Final = ("aiokafka", "confluent-kafka", "msgspec", "psutil", "psycopg", "sqlalchemy")
_CPU_INFO: Final = Path("/proc/cpuinfo")
_SERVER: Final = ("server_version", "fsync", "synchronous_commit")


def machine() -> Machine:
    """This machine, as it is now."""
    return Machine(
        processor=_processor(),
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        load=os.getloadavg()[0],
    )


def versions() -> dict[str, str]:
    """What the figures may depend on, by name."""
    found = {"saga-lab": __version__, "Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def database(server: URL | None) -> str:
    """The kind of database, and what a PostgreSQL server says of itself in a session like the services'.

    Raises:
        ConfigurationError: the server can't be reached.
    """
    if server is None:
        return "SQLite"
    engine = postgresql_engine(server, None)
    try:
        with engine.connect() as connection:
            said = {name: connection.scalar(text(f"SHOW {name}")) for name in _SERVER}
    except SQLAlchemyError as error:
        raise ConfigurationError(f"DATABASE_URL can't be used: {short(error)}") from error
    finally:
        engine.dispose()
    return "PostgreSQL " + ", ".join(
        [str(said["server_version"]), *(f"{name} {said[name]}" for name in _SERVER[1:])]
    )


def _processor() -> str:
    """The processor's name, which Python knows on some systems only."""
    with suppress(OSError):
        for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"
