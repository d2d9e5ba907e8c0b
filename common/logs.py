"""The log of a process: one line per entry on stderr, with time, level and service."""

from __future__ import annotations

import logging
from typing import Final

_QUIET: Final = {
    # It tells of every failed try to connect; the runner says once what it waits for.
    "aiokafka": logging.CRITICAL,
    # Its start and stop are told by the process itself.
    "uvicorn": logging.WARNING,
}


def configure_logs(level: str, service: str | None) -> None:
    """Log to stderr; at DEBUG, the libraries and each request too.

    `service` is left out where somebody else puts it before each line.
    """
    name = f" {service}" if service else ""
    logging.basicConfig(level=level, format=f"%(asctime)s %(levelname)-7s{name} %(message)s")
    if level != "DEBUG":
        for name, quiet in _QUIET.items():
            logging.getLogger(name).setLevel(quiet)
