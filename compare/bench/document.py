"""The document that `--json` writes; its JSON Schema is `docs/bench.schema.json`."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from compare.bench.spec import Measured, Quantile
from compare.recording import Frozen

SCHEMA_VERSION: Final = 1
"""Raised by a change that can break a reader; fields may be added without."""


class Machine(Frozen):
    """What all was measured on."""

    processor: str
    processors: int = Field(description="that this process may use")
    memory: int = Field(description="bytes")
    system: str
    load: float = Field(description="load average over a minute, just before the first measurement")


class SettingsUsed(Frozen):
    """What was the same for all subjects."""

    broker: str = Field(description="`embedded` (a fresh one for each measurement), or the addresses given")
    partitions: int
    fetch_max_wait_ms: int
    max_poll_records: int
    database: str = Field(description="`SQLite`, or the PostgreSQL server's version and settings")
    durability: str = Field(description="FULL: a commit survives a power cut; NORMAL: the last few may not")
    processes: bool = Field(description="each service in a process of its own, or all in one")
    instances: int = Field(description="of each service")
    orders: int = Field(description="in the closed loop, at most")
    concurrency: int = Field(description="orders under way in the closed loop")
    seconds: float = Field(description="that a phase places orders for, at most")
    declined: float = Field(description="share of the orders whose payment is declined")
    items: int = Field(description="that the orders are spread over")
    warm_up: int = Field(description="orders before the first phase, not counted")
    repeats: int = Field(description="that were to be done; there may have been time for fewer")


class Peer(Frozen):
    """Another framework: what it is, and what it promises."""

    name: str
    title: str
    versions: dict[str, str]
    guarantees: dict[str, str]
    settings: dict[str, str] = Field(description="what is not its default")


class Run(Frozen):
    """One phase of one measurement; each measurement is a process of its own."""

    subject: str
    repeat: int = Field(description="from 1; all subjects take turns in each")
    measured: Measured


class Interval(Frozen):
    """A median over repeats, and an interval for it by order statistics."""

    repeats: int
    median: Quantile
    low: Quantile = Field(description="none with a single repeat")
    high: Quantile
    confidence: float = Field(description="with which the interval holds the true median, at least")


class Figure(Frozen):
    """One number about one subject in one phase; there is none where a run's invariants failed."""

    subject: str
    phase: str
    metric: str
    unit: str
    value: Interval
    share_of_limit: Interval | None = Field(
        description="of the raw relay's in the same repeat; none where that has no such number, or a share "
        "says nothing"
    )


class Ratio(Frozen):
    """What a mode's number is of the other's in the same repeat, over the repeats."""

    subject: str
    base: str = Field(description="the mode whose number it is divided by")
    phase: str
    metric: str
    value: Interval


class BenchDocument(Frozen):
    """All that a benchmark has to say."""

    schema_version: Literal[1] = SCHEMA_VERSION
    begun: str = Field(description="RFC 3339, UTC")
    seconds: float = Field(description="that all took")
    command: str
    machine: Machine
    versions: dict[str, str]
    settings: SettingsUsed
    peers: tuple[Peer, ...]
    verdict: Literal["valid", "invalid", "unknown"]
    figures: tuple[Figure, ...]
    ratios: tuple[Ratio, ...] = Field(description="of the modes, if both were measured")
    runs: tuple[Run, ...]
