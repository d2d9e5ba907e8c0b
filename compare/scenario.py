"""Scenarios: which orders are placed on which stock, and what is expected of both modes alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from common.domain.order import OrderStatus
from common.messages import Reason
from common.recovery import Recovery
from compare.faults import FaultSpec
from compare.simulation.actions import parse_action

MAX_ORDERS: Final = 2_000
"""Times `deliveries`: what the embedded broker can hold, whichever mode has more records per topic."""


class Ending(StrEnum):
    """How an order may end."""

    COMPLETED = OrderStatus.COMPLETED.value
    FAILED = OrderStatus.FAILED.value
    COMPENSATION_FAILED = OrderStatus.COMPENSATION_FAILED.value
    """Not an end for good, but nothing moves until an operator has the undo tried again."""


def _misfit(problem: str, *at: int | str) -> PydanticCustomError:
    """An error at a place within the model that is checked: what is there doesn't fit the rest."""
    return PydanticCustomError("misfit", "{problem}", {"problem": problem, "at": at})


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _exact(value: object) -> object:
    """YAML's numbers come as int or Decimal; a float has lost its last digit already."""
    if not isinstance(value, int | Decimal | str) or isinstance(value, bool):
        message = "give a price as an exact number, such as 199.99"
        raise ValueError(message)  # noqa: TRY004 - pydantic turns ValueError into a validation error
    return value


def _action(text: str) -> str:
    return str(parse_action(text))


def _whole(value: object) -> object:
    if isinstance(value, bool):
        message = "give a whole number"
        raise ValueError(message)  # noqa: TRY004 - as above
    return value


Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Pieces = Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(_whole)]
Price = Annotated[Decimal, Field(gt=0, le=1_000_000, decimal_places=2), BeforeValidator(_exact)]


class ExpectedOrder(_Model):
    """What is expected of one order: how it ends, and if it fails, why."""

    status: Ending
    reason: Reason | None = None

    @model_validator(mode="after")
    def _reason_needs_failure(self) -> ExpectedOrder:
        if self.reason is not None and self.status is Ending.COMPLETED:
            raise _misfit("a COMPLETED order has no reason; leave it out", "reason")
        return self


class ExpectedSplit(_Model):
    """What is expected of orders of which it can't be said which will win: how many end how."""

    completed: Pieces = 0
    failed: Pieces = 0
    reason: Reason | None = None
    """Why those that fail do."""


def _bare_status(value: object) -> object:
    """A bare status is short for `{status: ...}`."""
    return {"status": value} if isinstance(value, str) else value


def _which(value: object) -> str:
    keys = set(value) if isinstance(value, dict) else set()
    if isinstance(value, ExpectedPerMode) or not keys.isdisjoint({"orchestrated", "choreographed"}):
        return "modes"
    if isinstance(value, ExpectedSplit) or not keys.isdisjoint({"completed", "failed"}):
        return "split"
    return "each"


_Bare = BeforeValidator(_bare_status, json_schema_input_type=Ending | ExpectedOrder)
_Each = Annotated[Annotated[ExpectedOrder, _Bare], Tag("each")]
_Split = Annotated[ExpectedSplit, Tag("split")]
ExpectedAlike = Annotated[_Each | _Split, Discriminator(_which)]


class ExpectedPerMode(_Model):
    """What is expected where coordination makes a difference to the end."""

    orchestrated: ExpectedAlike
    choreographed: ExpectedAlike


Expectation = Annotated[
    _Each | _Split | Annotated[ExpectedPerMode, Tag("modes")],
    Discriminator(_which),
]


class CancelSpec(_Model):
    """When the customer asks for the order's cancellation: once it is placed, or once it has ended."""

    at: Annotated[Decimal, Field(ge=0, le=60)] = Decimal(0)
    """Seconds later."""
    after: Literal["placed", "ended"] = "placed"


class OrderSpec(_Model):
    """One order, or `count` orders alike."""

    name: Name | None = None
    """By which later orders can refer to it."""
    customer: Name = "customer"
    item: Name
    quantity: Annotated[int, Field(ge=1, le=10_000), BeforeValidator(_whole)] = 1
    price: Price
    """Of one piece."""
    count: Annotated[int, Field(ge=1, le=MAX_ORDERS), BeforeValidator(_whole)] = 1
    at: Annotated[Decimal, Field(ge=0, le=60)] = Decimal(0)
    """When it is placed: seconds after the start, or after the end of the orders named by `after`."""
    after: Name | None = None
    cancel: CancelSpec | None = None
    """Whether and when its customer wants it cancelled."""
    retry_compensation: Annotated[Decimal, Field(ge=0, le=60)] | None = None
    """Seconds after its compensation has failed, an operator has it tried again."""
    expect: Expectation

    def expected(self, mode: str) -> ExpectedOrder | ExpectedSplit:
        """What is expected in this mode."""
        if isinstance(self.expect, ExpectedPerMode):
            found: ExpectedOrder | ExpectedSplit = getattr(self.expect, mode)
            return found
        return self.expect

    @property
    def price_cents(self) -> int:
        """The price of one piece in cents."""
        return int(self.price * 100)

    @model_validator(mode="after")
    def _split_covers_all(self) -> OrderSpec:
        for mode in ("orchestrated", "choreographed"):
            expect = self.expected(mode)
            if isinstance(expect, ExpectedSplit) and expect.completed + expect.failed != self.count:
                split = expect.completed + expect.failed
                problem = f"completed and failed must add up to `count`, {self.count}, not {split}"
                raise _misfit(problem, "expect")
        return self


class ExpectedEnd(_Model):
    """What is expected when all is over."""

    stock: Mapping[Name, Pieces] = {}
    """Pieces of each item that nobody holds."""


class RecoverySpec(_Model):
    """How patient the services are; what is not given is as in `LESS_PATIENT` or, without faults, live."""

    retry_first: Annotated[Decimal, Field(gt=0, le=60)] | None = None
    """Seconds from a message's first failure to its next try; each further wait is twice as long."""
    retry_longest: Annotated[Decimal, Field(gt=0, le=60)] | None = None
    retry_tries: Annotated[int, Field(ge=1, le=100), BeforeValidator(_whole)] | None = None
    """Tries to process a message before it is a dead letter."""
    undo_tries: Annotated[int, Field(ge=1, le=100), BeforeValidator(_whole)] | None = None
    """Tries of an undo before its order's compensation has failed."""
    step_timeout: Annotated[Decimal, Field(gt=0, le=60)] | None = None
    """Seconds that the orchestrator waits for the answer to a step, before it asks again."""
    order_timeout: Annotated[Decimal, Field(gt=0, le=60)] | None = None
    """Seconds that the Order service waits for the end of an order, before it asks again."""
    deadline_tries: Annotated[int, Field(ge=1, le=100), BeforeValidator(_whole)] | None = None
    """Times of asking before what was asked for is given up."""

    def recovery(self, base: Recovery) -> Recovery:
        """The same for the services; `base` has what is not given."""
        given: dict[str, Any] = {
            name if isinstance(value, int) else f"{name}_s": value if isinstance(value, int) else float(value)
            for name, value in self.model_dump(exclude_none=True).items()
        }
        return replace(base, **given)


LESS_PATIENT: Final = Recovery(
    retry_first_s=0.05, retry_longest_s=1.0, undo_tries=6, step_timeout_s=1.0, order_timeout_s=2.0
)
"""For scenarios with faults: the same order of things as live, in seconds rather than minutes."""


def _named_by_its_file(schema: dict[str, Any]) -> None:
    schema["required"].remove("name")


class Scenario(_Model):
    """A scenario, as its YAML file has it; without a `name`, it goes by the file's."""

    model_config = ConfigDict(json_schema_extra=_named_by_its_file)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,59}$")]
    description: Annotated[str, Field(min_length=1), AfterValidator(str.strip)]
    stock: Mapping[Name, Pieces] = {}
    """Pieces of each item to begin with; an item that isn't here is unknown."""
    orders: Annotated[tuple[OrderSpec, ...], Field(min_length=1)]
    expect: ExpectedEnd = ExpectedEnd()
    deliveries: Annotated[int, Field(ge=1, le=5), BeforeValidator(_whole)] = 1
    """How many times every record is put on the broker; more than once tests that effects happen once."""
    timeout: Annotated[Decimal, Field(gt=0, le=600)] = Decimal(30)
    """Seconds within which all must be over, or the verdict is `unknown`."""
    faults: tuple[FaultSpec, ...] = ()
    """What goes wrong."""
    recovery: RecoverySpec = RecoverySpec()
    """How patient the services are."""
    schedule: tuple[Annotated[str, AfterValidator(_action)], ...] | None = None
    """What happens, in this order, where the lab can choose: in a simulation. Elsewhere it says nothing.

    All else happens in its turn; with an empty one, everything does."""
    own_faults: Annotated[int, Field(ge=0), BeforeValidator(_whole)] = 0
    """How many of the faults, the first ones, strike by themselves in a simulation that follows the schedule.

    The others say for a replay what the schedule says for a simulation."""

    @model_validator(mode="after")
    def _names_fit(self) -> Scenario:
        known: set[str] = set()
        for index, spec in enumerate(self.orders):
            if spec.name in known:
                raise _misfit(f"an earlier order is named {spec.name!r}, too", "orders", index, "name")
            if spec.after is not None and spec.after not in known:
                raise _misfit(f"no earlier order is named {spec.after!r}", "orders", index, "after")
            known |= {spec.name} if spec.name else set()
        for index, fault in enumerate(self.faults):
            if fault.order is not None and fault.order not in known:
                raise _misfit(f"no order is named {fault.order!r}", "faults", index, "order")
        for item in self.expect.stock:
            if item not in self.stock:
                raise _misfit("the scenario's own `stock` has no such item", "expect", "stock", item)
        if self.total_orders * self.deliveries > MAX_ORDERS:
            problem = (
                f"{self.total_orders} orders, delivered {self.deliveries} times, are too many; "
                f"{MAX_ORDERS} at most, repeated deliveries counted"
            )
            raise _misfit(problem, "orders")
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Scenario:
        for index, text in enumerate(self.schedule or ()):
            unknown = parse_action(text).orders - set(range(1, self.total_orders + 1))
            if unknown:
                problem = f"there is no order {min(unknown)}; the last is order {self.total_orders}"
                raise _misfit(problem, "schedule", index)
        return self

    @model_validator(mode="after")
    def _own_faults_fit(self) -> Scenario:
        if self.own_faults > len(self.faults):
            raise _misfit(f"there are {len(self.faults)} `faults`", "own_faults")
        if self.own_faults and self.schedule is None:
            raise _misfit("without a `schedule`, all faults strike by themselves; leave it out", "own_faults")
        return self

    @property
    def total_orders(self) -> int:
        """How many orders are placed."""
        return sum(spec.count for spec in self.orders)

    @property
    def patience(self) -> Recovery:
        """How patient the services are."""
        return self.recovery.recovery(LESS_PATIENT if self.faults else Recovery())

    def document(self, *, given_only: bool = False) -> dict[str, Any]:
        """The scenario as plain data, for reports; without defaults if only what is given is wanted."""
        return self.model_dump(mode="json", exclude_none=True, exclude_unset=given_only)
