"""What a replay leaves behind: the records that crossed the broker, the changes of state, and the final rows.

It knows nothing of checks, metrics or reports, which all read it (as Maelstrom's journal knows no viewers).
The models are the `--json` document's: a change that breaks readers raises `compare.result.SCHEMA_VERSION`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from common.messages import Step


class Frozen(BaseModel):
    """A part of the result document."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kind(StrEnum):
    """Whether a record tells somebody to do something, or that something has happened."""

    COMMAND = "command"
    EVENT = "event"


class Nature(StrEnum):
    """What a record is in the story: each has its own colour and sign."""

    COMMAND = "command"
    EVENT = "event"
    COMPENSATION = "compensation"
    FAILURE = "failure"


class TraceRecord(Frozen):
    """One record, as the observer read it from the broker."""

    order_id: str
    topic: str = Field(description="without the prefix that keeps runs apart")
    partition: int
    offset: int
    at_ms: float = Field(description="milliseconds from the placing of the order to the decision (ce_time)")
    type: str
    kind: Kind
    step: Step
    nature: Nature
    producer: str = Field(description="the service that told it")
    id: str
    causation_id: str
    cause: str | None = Field(description="the type of the record that caused it; none for the first")
    hop: int = Field(description="records in its causal chain, itself included")
    size: int = Field(description="bytes of key, value and headers")
    duplicate: bool = Field(description="an earlier record of this trace has the same id")
    attempt: int = Field(
        1, description="how often it had been told, this time included; above 1, it was asked for again"
    )
    poisoned: bool = Field(default=False, description="its body can't be read; all else is from its headers")
    body: dict[str, Any]


class StateChange(Frozen):
    """A row of a service's history."""

    order_id: str
    service: str
    at_ms: float
    cause_id: str = Field(description="the id of the message that caused it; the order id for the first")
    from_status: str
    to_status: str


class OrderEnd(Frozen):
    """An order as its databases have it when all is over."""

    number: int = Field(description="from 1, in the order of the scenario")
    order_id: str
    spec: int = Field(description="which of the scenario's `orders` it is of, from 0")
    status: str
    reason: str | None
    reservation: str | None
    quantity_held: int
    payment: str | None
    amount_cents: int
    saga: str | None = Field(description="the saga's state; none in the choreographed mode")
    placed_ms: float | None = Field(
        None, description="milliseconds from the first order's placing to its own; none if it never was"
    )


class Strike(Frozen):
    """A fault that struck."""

    fault: int = Field(description="which of the scenario's `faults` it is, from 0")
    kind: str = Field(description="as in the scenario file, such as `crash`")
    service: str | None = Field(description="the service that was hit; none for the broker")
    boundary: str | None = Field(description="the boundary at which it was hit, if it was at one")
    order_id: str | None = Field(
        description="the order whose record it struck at; none if it was at no record"
    )
    record_id: str | None = Field(None, description="the id of the record that it struck on the wire")
    record_type: str | None = Field(None, description="the type of that record")
    at_ms: float = Field(description="milliseconds from the first order's placing")
    over_ms: float | None = Field(
        description="when it was over: what had died was rebuilt, what was held was let go"
    )


class DeadLetterSeen(Frozen):
    """A dead letter, as the observer read it from the broker."""

    topic: str = Field(description="of the dead letters, without the prefix that keeps runs apart")
    partition: int
    offset: int
    at_ms: float = Field(description="milliseconds from the placing of the order to giving the record up")
    order_id: str
    id: str = Field(description="of the record that was given up")
    type: str
    step: Step | None = Field(description="the step that was given up; none if nothing is known of it")
    service: str = Field(description="the service that gave it up, with its mode")
    reason: str = Field(description="`unreadable`, `newer_schema` or `failed`")
    error: str
    tries: int


class Requested(Frozen):
    """What a customer or an operator asked for while the scenario ran, and what came of it."""

    order_id: str
    what: str = Field(description="`cancel` or `retry_compensation`")
    accepted: bool = Field(description="whether the order could still take it; if not, HTTP answers 409")
    at_ms: float = Field(description="milliseconds from the first order's placing")


class Recording(Frozen):
    """One scenario in one mode, from the first order to the last record."""

    mode: str
    trace: tuple[TraceRecord, ...]
    changes: tuple[StateChange, ...]
    orders: tuple[OrderEnd, ...]
    stock: dict[str, int] = Field(description="pieces of each item that nobody holds")
    stray_records: int = Field(description="records on these topics that are of no order of the scenario")
    unknown_records: int = Field(
        0, description="records of the scenario's orders, but of no type that the lab knows"
    )
    strays: tuple[str, ...] = Field((), description="what and where the first of both are")
    counts: dict[str, dict[str, int]] = Field(
        description="by service: duplicates dropped, retries, dead letters, deadlines passed, and so on"
    )
    dead_letters: tuple[DeadLetterSeen, ...] = ()
    strikes: tuple[Strike, ...] = ()
    not_applicable: tuple[str, ...] = Field(
        (),
        description="faults without a counterpart in this mode, and what is hit instead; or without a strike",
    )
    requested: tuple[Requested, ...] = ()
    unfinished: str | None = Field(description="why the replay ended before all was over; none if it was")
    wall_s: float = Field(description="seconds from the first order to the end of the last record's effects")

    @property
    def lost(self) -> dict[str, Strike]:
        """By id: the records that a fault removed, and that have not come to the broker later either."""
        seen = {record.id for record in self.trace}
        return {
            strike.record_id: strike
            for strike in reversed(self.strikes)
            if strike.kind == "lose" and strike.record_id is not None and strike.record_id not in seen
        }

    @property
    def duplicates_dropped(self) -> int:
        """Records that the services' inboxes removed."""
        return self.total("duplicate")

    def total(self, count: str) -> int:
        """A count over all services."""
        return sum(counted.get(count, 0) for counted in self.counts.values())
