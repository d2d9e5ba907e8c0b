"""What the judge says: verdicts, findings, and the histories that show what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pydantic import Field

from compare.recording import Frozen


class Verdict(StrEnum):
    """Whether something holds; also the process's exit code, see `compare.cli`."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class Evidence(StrEnum):
    """What a line of a history is taken from."""

    RECORD = "record"
    """A record that the observer read."""
    LOST = "lost"
    """A record that was told, and that a fault kept from the broker."""
    DEAD_LETTER = "dead_letter"
    CHANGE = "change"
    """A change of state in the history of a service's database."""
    ROW = "row"
    """What a service's database has in the end."""
    OTHER = "other"
    """What is of no order."""


class HistoryLine(Frozen):
    """One thing that was told or stored."""

    evidence: Evidence
    order_id: str | None = Field(description="none if it is of no order, as the stock of an item")
    at_ms: float | None = Field(description="milliseconds from placing the order; none if it is of the end")
    where: str = Field(description="the service, and on the broker the topic, partition and offset")
    what: str = Field(description="the record with its body, the change, or the row")


class Finding(Frozen):
    """What one check has found."""

    check: str
    verdict: Verdict
    faults: tuple[str, ...] = ()
    history: tuple[HistoryLine, ...] = Field(
        (), description="the shortest history that shows the first of the faults"
    )


def verdict_of(findings: Iterable[Finding | Verdict]) -> Verdict:
    """One invalid makes all invalid; else one unknown makes all unknown."""
    verdicts = {one if isinstance(one, Verdict) else one.verdict for one in findings}
    for worst in (Verdict.INVALID, Verdict.UNKNOWN):
        if worst in verdicts:
            return worst
    return Verdict.VALID if verdicts else Verdict.UNKNOWN
