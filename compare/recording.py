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


class Recording(Frozen):
    """One scenario in one mode, from the first order to the last record."""

    mode: str
    trace: tuple[TraceRecord, ...]
    changes: tuple[StateChange, ...]
    orders: tuple[OrderEnd, ...]
    stock: dict[str, int] = Field(description="pieces of each item that nobody holds")
    stray_records: int = Field(description="records on these topics that are of no order of the scenario")
    duplicates_dropped: int = Field(description="records that the services' inboxes removed")
    ignored_commands: int = Field(description="commands that a decider had nothing to say to")
    unreadable_records: int
    unfinished: str | None = Field(description="why the replay ended before all was over; none if it was")
    wall_s: float = Field(description="seconds from the first order to the end of the last record's effects")
