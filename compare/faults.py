"""Faults, as scenario files name them.

They are named by a step of the domain and a boundary, not by a mode's messages, so that one file means the
same in both modes.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from common.messages import Step
from common.probe import Boundary

Service = Literal["order", "inventory", "payment", "orchestrator"]
Participant = Literal["order", "inventory", "payment"]
Always = Literal["always"]

OWNERS: Final[dict[Step, Participant]] = {
    Step.PLACE: "order",
    Step.RESERVE: "inventory",
    Step.PAY: "payment",
    Step.CANCEL: "payment",
    Step.REFUND: "payment",
    Step.RELEASE: "inventory",
    Step.COMPLETE: "order",
}
"""Who carries a step out, the same in both modes."""


class Fault(StrEnum):
    """What may go wrong."""

    CRASH = "crash"
    """The service dies, and is rebuilt from its database, at once or `seconds` later."""
    STOP = "stop"
    """The service stands still for `seconds`, without dying."""
    SLOW = "slow"
    """From there on, the service takes `seconds` more for each batch."""
    BROKER_OUTAGE = "broker_outage"
    """The broker is away for `seconds`."""
    SLOW_BROKER = "slow_broker"
    """From there on, each answer of the broker takes `seconds` more."""
    REBALANCE = "rebalance"
    """A second instance of the service joins its consumer group, and leaves `seconds` later."""
    ERROR = "error"
    """Carrying out the step fails `times` times, or `always`, with an error that may pass."""
    PERMANENT_ERROR = "permanent_error"
    """Carrying out the step fails with an error that will not pass."""
    POISON = "poison"
    """The record can't be decoded."""
    DUPLICATE = "duplicate"
    """The record is put on the broker `times` times more."""
    REPLAY = "replay"
    """The record is put on the broker once more, `seconds` after its order has ended."""
    DELAY = "delay"
    """The record comes to the broker `seconds` later; what else is told of its order on its topic waits."""
    LOSE = "lose"
    """The record never comes to the broker, though its producer believes so; nor do the next `times` - 1."""
    REORDER = "reorder"
    """The record is overtaken by the next one of another order."""
    CLOCK_SKEW = "clock_skew"
    """The service's clock is `seconds` ahead, or behind if that is below 0, from the beginning."""


OF_THE_BROKER: Final = frozenset({Fault.BROKER_OUTAGE, Fault.SLOW_BROKER})
"""They need a broker of the lab's own."""
AT_A_BOUNDARY: Final = OF_THE_BROKER | {Fault.CRASH, Fault.STOP, Fault.SLOW, Fault.REBALANCE}
"""They strike when a service comes to a boundary with the nth record of a step."""
IN_THE_DECIDER: Final = frozenset({Fault.ERROR, Fault.PERMANENT_ERROR})
"""They strike when the step is carried out."""
ON_THE_WIRE: Final = frozenset(
    {Fault.POISON, Fault.DUPLICATE, Fault.REPLAY, Fault.DELAY, Fault.LOSE, Fault.REORDER}
)
"""They strike between the nth record's producer and the broker."""

_SECONDS: Final = frozenset(
    {Fault.STOP, Fault.SLOW, Fault.REBALANCE, Fault.DELAY, Fault.CLOCK_SKEW, *OF_THE_BROKER}
)
"""They need to be told how long."""


class Which(StrEnum):
    """Which record of a step a fault strikes on the wire."""

    REQUEST = "request"
    """What makes the service carry out the step: a command, or another service's event."""
    ANSWER = "answer"
    """What the service tells of the outcome."""


class FaultSpec(BaseModel):
    """A fault: what, where and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: Fault
    step: Step | None = None
    """The step at which it strikes. The service that carries the step out is hit."""
    service: Service | None = None
    """Another service to hit: when it handles what it learns of the step."""
    instead: Participant | None = None
    """The service to hit, likewise, in a mode that has no orchestrator."""
    at: Boundary = Boundary.BEFORE
    """For what strikes at a boundary: at which."""
    record: Which = Which.REQUEST
    """For what strikes on the wire: which record of the step."""
    nth: Annotated[int, Field(ge=1, le=2000)] = 1
    """It strikes at the nth record of the step, repetitions not counted."""
    order: str | None = None
    """Only records of the orders with this name count."""
    times: Annotated[int, Field(ge=1, le=1000)] | Always = 1
    seconds: Annotated[Decimal, Field(ge=-60, le=60)] | None = None

    @property
    def duration_s(self) -> float:
        """The seconds; 0 if there are none."""
        return float(self.seconds or 0)

    @property
    def milliseconds(self) -> int:
        """The same in milliseconds."""
        return int(1000 * self.duration_s)

    def strikes_again(self, before: int) -> bool:
        """Whether it strikes once more, having struck so often before; copies are all made at once."""
        if self.fault is Fault.DUPLICATE:
            return before == 0
        return self.times == "always" or before < self.times

    @model_validator(mode="after")
    def _complete(self) -> FaultSpec:
        for fits, problem, *at in self._rules():
            if not fits:
                raise PydanticCustomError("misfit", "{problem}", {"problem": problem, "at": at})
        return self

    def _rules(self) -> list[tuple[bool, str, *tuple[str, ...]]]:
        kind = self.fault
        return [
            (
                self.step is not None or kind is Fault.CLOCK_SKEW,
                f"a {kind} strikes at a step; add `step`",
            ),
            (
                self.service is not None or kind is not Fault.CLOCK_SKEW,
                "name the `service` whose clock it is",
            ),
            (
                self.seconds is not None or kind not in _SECONDS,
                f"say how long the {kind} is; add `seconds`",
            ),
            (
                self.duration_s >= 0 or kind is Fault.CLOCK_SKEW,
                "only a clock can be behind; give a positive number",
                "seconds",
            ),
            (
                self.times != "always" or kind in {Fault.ERROR, Fault.LOSE},
                f"a {kind} can't strike always; give a number",
                "times",
            ),
            (
                self.step is not Step.PLACE or (kind in ON_THE_WIRE and self.record is Which.ANSWER),
                "only the `record: answer` of placing can be struck; take that, or another step",
                "step",
            ),
            (
                kind is not Fault.LOSE or self.step is not Step.COMPLETE or self.record is not Which.ANSWER,
                "nobody waits to hear of an order's end, so nobody would miss it; take another record",
                "record",
            ),
            (
                self.step is not Step.COMPLETE
                or not (kind is Fault.PERMANENT_ERROR or (kind is Fault.ERROR and self.times == "always")),
                "an order is completed or failed whatever it takes, so this would never end",
                "step",
            ),
            (
                kind in AT_A_BOUNDARY or self.at is Boundary.BEFORE,
                f"a {kind} doesn't strike at a boundary; leave it out",
                "at",
            ),
            (
                kind in ON_THE_WIRE or self.record is Which.REQUEST,
                f"a {kind} strikes no record on the wire; leave it out",
                "record",
            ),
            (
                self.service != "orchestrator" or self.instead is not None,
                "a mode has no orchestrator; name the service to hit there, as `instead`",
                "service",
            ),
        ]
