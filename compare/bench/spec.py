"""What the process of a measurement is told, and what it tells: the lines between it and the command."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field
from sqlalchemy import URL

from common.runner import BrokerLink
from common.store.postgresql import server_url
from compare.bench.load import Load
from compare.recording import Frozen

Durability = Literal["NORMAL", "FULL"]

Verdict = Literal["valid", "invalid", "unknown", "left out"]
VALID: Final = "valid"
INVALID: Final = "invalid"
UNKNOWN: Final = "unknown"
LEFT_OUT: Final = "left out"

CLOSED: Final = "closed"
IDLE: Final = "idle"


_LATER: Final = "-c synchronous_commit=off"


def server_for(database_url: str, durability: Durability) -> URL:
    """The PostgreSQL server, for sessions of this durability: with NORMAL, its log is written a moment later.

    Raises:
        ValueError: it is no such URL.
    """
    url = server_url(database_url)
    if durability == "FULL":
        return url
    given = url.query.get("options", ())
    options = " ".join([*([given] if isinstance(given, str) else given), _LATER])
    return url.update_query_dict({"options": options})


class Conditions(Frozen):
    """What is the same for every subject."""

    bootstrap_servers: str
    partitions: int
    fetch_max_wait_ms: int
    max_poll_records: int
    sole_instance: bool = Field(description="no consumer groups: each service takes all partitions")
    durability: Durability
    database_url: str | None = Field(description="a PostgreSQL server; SQLite without one")
    processes: bool = Field(
        description="each service in a process of its own, but for the first Order service"
    )
    instances: int = Field(ge=1, description="of each service; several need processes")
    broker_pid: int | None = Field(description="the broker's process, if it is on this machine and known")

    @property
    def server(self) -> URL | None:
        """The PostgreSQL server, for sessions of this durability; None for SQLite."""
        return None if self.database_url is None else server_for(self.database_url, self.durability)

    def link(self, prefix: str) -> BrokerLink:
        """The way to the broker, with topics and groups of a measurement's own."""
        return BrokerLink(
            bootstrap_servers=self.bootstrap_servers,
            partitions=self.partitions,
            fetch_max_wait_ms=self.fetch_max_wait_ms,
            max_poll_records=self.max_poll_records,
            sole_instance=self.sole_instance,
            prefix=prefix,
        )


class Phase(Frozen):
    """One way of placing orders: so many under way at a time, or so many per second."""

    name: str
    concurrency: int | None = Field(None, ge=1, description="closed loop: orders under way")
    rate: float | None = Field(None, gt=0, description="open loop: orders per second")
    orders: int = Field(ge=1, description="to place, at most")
    seconds: float = Field(
        gt=0, description="in which orders are placed; then those under way are waited for"
    )
    below: float | None = Field(
        None, description="leave it out if the rate is more than this share of what the closed loop sustained"
    )


class Hops(Frozen):
    """Records on the longest causal path from the first record of an order to its end."""

    completed: int = Field(description="of an order that is COMPLETED")
    declined: int = Field(description="of one whose payment is declined")


class Spec(Frozen):
    """One measurement: a subject, in a process of its own, and the phases that it goes through."""

    subject: str
    run: str = Field(description="tells its topics, groups and schemas from those of others")
    folder: Path = Field(description="for its files")
    load: Load
    warm_up: int = Field(ge=0, description="orders before the first phase, which no figure knows of")
    phases: tuple[Phase, ...]
    conditions: Conditions
    drain_s: float = Field(
        description="for which orders under way are waited for when an open loop has placed its last"
    )
    settle_s: float = Field(description="for which rest is waited for, after that")
    sample_every: int = Field(0, description="orders between two samples of cost and memory; 0 for none")
    hops: Hops | None = Field(None, description="of its orders, where that is known")


NOT_ENDED: Final = "not ended"
Quantile = float | Literal["not ended"] | None
"""Seconds; or that the order at this rank had not ended; None if too few orders are above it to tell."""


class Quantiles(Frozen):
    """How long orders took, in seconds; those that did not end count as longer than all others."""

    orders: int
    p50: Quantile
    p90: Quantile
    p99: Quantile
    p999: Quantile


class Sample(Frozen):
    """How things stood at one moment of a phase."""

    ended: int
    seconds: float = Field(description="since the phase began")
    cpu_s: float = Field(description="processor seconds since the phase began")
    memory: int = Field(description="bytes resident, of all processes of the subject")


class Measured(Frozen):
    """What came of one phase."""

    phase: Phase
    verdict: Verdict
    faults: tuple[str, ...] = Field(description="why there is no figure, unless the verdict is valid")
    placed: int
    ended: int
    declined: int = Field(description="of those that have ended")
    unended: int = Field(description="orders that had not ended when the phase was over")
    seconds: float = Field(description="from the first order placed to the last end")
    latency: Quantiles | None = Field(description="from the intended start of each order to its end")
    compensated: Quantiles | None = Field(description="the same, of orders whose payment was declined")
    lag_s: float = Field(description="by which the latest order was placed after its intended start")
    cpu_s: float = Field(
        description="processor seconds of all processes of the subject, load generator included"
    )
    broker_cpu_s: float | None = Field(description="processor seconds of the broker, if it is known")
    memory: int = Field(description="bytes resident at the peak, of all processes of the subject")
    records: int | None
    bytes: int | None
    commits: int | None
    hops: int | None = Field(
        description="records on the longest causal path of each order placed, together; none if not known"
    )
    samples: tuple[Sample, ...] = ()

    @classmethod
    def nothing(cls, phase: Phase, verdict: Verdict, why: str) -> Measured:
        """Of a phase that was not gone through, for this reason."""
        return cls(
            phase=phase,
            verdict=verdict,
            faults=(why,),
            placed=0,
            ended=0,
            declined=0,
            unended=0,
            seconds=0.0,
            latency=None,
            compensated=None,
            lag_s=0.0,
            cpu_s=0.0,
            broker_cpu_s=None,
            memory=0,
            records=None,
            bytes=None,
            commits=None,
            hops=None,
        )

    @property
    def per_second(self) -> float | None:
        """Sagas that ended per second; None if none did."""
        return self.ended / self.seconds if self.ended and self.seconds else None
