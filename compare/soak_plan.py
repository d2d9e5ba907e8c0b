"""What a round of soaking is made of: orders of all kinds, and what is done to the services meanwhile.

All of it is drawn from a seed. What is done comes at the placing of an order, not at a time, so that there
are always orders under way; when that is, and what it interrupts, no seed determines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from random import Random
from typing import Any, Final

from common.domain.order import OrderStatus
from common.messages import Reason
from compare.recording import Recording
from compare.scenario import ExpectedOrder, Scenario

IN_FLIGHT: Final = 50
"""Orders under way at a time, at most."""

_ORDERS_PER_DEED: Final = 40
_ORDERS_PER_CRASH: Final = 200
_ORDERS_PER_ODDITY: Final = 25

# So impatient that it is often asked again, but never so that a paid order would be given up.
_RECOVERY: Final = {"step_timeout": 1, "order_timeout": 2, "deadline_tries": 10, "undo_tries": 10}
_COMPLETED: Final = "COMPLETED"
_PAID: Final[dict[str, Any]] = {"item": "laptop", "price": 200, "expect": _COMPLETED}


def _failed(reason: Reason) -> dict[str, str]:
    return {"status": "FAILED", "reason": reason}


_DECLINED: Final[dict[str, Any]] = {**_PAID, "price": 600, "expect": _failed(Reason.PAYMENT_DECLINED)}
_CANCELLED: Final[dict[str, Any]] = {**_PAID, "expect": _failed(Reason.CANCELLED)}
_KINDS: Final[tuple[tuple[int, dict[str, Any]], ...]] = (
    (55, _PAID),
    (15, _DECLINED),
    (10, {"item": "headphones", "quantity": 2, "price": 20, "expect": _failed(Reason.OUT_OF_STOCK)}),
    (5, {"item": "unicorn", "price": 1, "expect": _failed(Reason.UNKNOWN_ITEM)}),
    (15, _CANCELLED),
)
"""How many of a hundred are of which kind."""

_ODDITIES: Final[tuple[tuple[dict[str, Any], dict[str, Any]], ...]] = (
    ({"fault": "duplicate", "step": "pay", "times": 2}, _PAID),
    ({"fault": "error", "step": "reserve", "times": 2}, _PAID),
    ({"fault": "lose", "step": "pay", "record": "answer"}, _PAID),
    ({"fault": "error", "step": "pay", "times": "always"}, {**_PAID, "expect": _failed(Reason.DEAD_LETTER)}),
    ({"fault": "poison", "step": "reserve"}, {**_PAID, "expect": _failed(Reason.DEAD_LETTER)}),
    ({"fault": "error", "step": "release", "times": 2}, _DECLINED),
    (
        {"fault": "error", "step": "release", "times": "always"},
        {**_DECLINED, "expect": {"status": "COMPENSATION_FAILED", "reason": Reason.PAYMENT_DECLINED}},
    ),
    ({"fault": "lose", "step": "reserve", "record": "answer"}, _PAID),
    ({"fault": "replay", "step": "reserve"}, _DECLINED),
)
"""Faults that strike one order each, and what that order is."""


class Violence(StrEnum):
    """What is done to the services, from outside and at whatever moment."""

    KILL = "kill"
    STOP = "stop"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that is done some time after an order was placed."""

    after: int
    """How many orders were placed."""
    delay_s: float
    what: Violence
    whom: int
    """The number of the service, from 0; counted round where there are not so many."""
    seconds: float
    """How long it is stopped, or the broker away."""


@dataclass(frozen=True, slots=True)
class Round:
    """Some orders, and what happens to them."""

    scenario: Scenario
    deeds: Sequence[Deed]


def draw(seed: str, number: int, orders: int) -> Round:
    """Draw a round of so many orders."""
    random = Random(f"{seed}/{number}")  # noqa: S311 - it guards no secret
    specs, faults = _oddities(orders)
    weights, kinds = zip(*_KINDS, strict=True)
    for kind in random.choices(kinds, weights, k=orders - len(specs)):
        spec = dict(kind)
        if kind is _CANCELLED:
            spec["cancel"] = {"at": _seconds(random, 0, 0.15)}
        specs.append(spec)
    random.shuffle(specs)
    # The first is at once, so that no round is without one.
    crashes = [
        _crash(random, 1 if not index else orders // 3) for index in range(1 + orders // _ORDERS_PER_CRASH)
    ]
    scenario = {
        "name": f"soak-{number}",
        "description": f"Round {number} of a soak with the seed {seed}.",
        "stock": {"laptop": orders, "headphones": 1},
        "recovery": _RECOVERY,
        "faults": faults + crashes,
        "orders": specs,
        "timeout": min(600, 90 + orders // 4),
    }
    return Round(Scenario.model_validate(scenario), _deeds(random, orders))


def as_it_may_end(scenario: Scenario, recording: Recording) -> Scenario:
    """The scenario with what can't be foretold taken from the recording: whether a cancel came in time.

    That an order which was not cancelled is COMPLETED, and one that was FAILED for that, is still expected.
    """
    completed = {order.spec for order in recording.orders if order.status == OrderStatus.COMPLETED}
    orders = [
        spec.model_copy(update={"expect": ExpectedOrder.model_validate({"status": _COMPLETED})})
        if spec.cancel is not None and index in completed
        else spec
        for index, spec in enumerate(scenario.orders)
    ]
    return scenario.model_copy(update={"orders": tuple(orders)})


def _oddities(orders: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Orders with a fault of their own, and those faults."""
    chosen = [_ODDITIES[index % len(_ODDITIES)] for index in range(orders // _ORDERS_PER_ODDITY)]
    specs = [{**spec, "name": f"odd-{index}"} for index, (_, spec) in enumerate(chosen)]
    return specs, [{**fault, "order": f"odd-{index}"} for index, (fault, _) in enumerate(chosen)]


def _crash(random: Random, latest: int) -> dict[str, Any]:
    """A crash at a boundary, which a random kill would seldom hit."""
    return {
        "fault": "crash",
        "step": random.choice(("reserve", "pay", "complete")),
        "at": random.choice(("before", "decided", "committed", "published", "acknowledged")),
        "nth": random.randint(1, max(1, latest)),
    }


def _deeds(random: Random, orders: int) -> Sequence[Deed]:
    """At least one of each kind."""
    more = random.choices(list(Violence), (70, 20, 10), k=max(0, orders // _ORDERS_PER_DEED - len(Violence)))
    kinds = [*Violence, *more]
    random.shuffle(kinds)
    seconds: dict[Violence, Callable[[], Decimal]] = {
        Violence.KILL: lambda: Decimal(0),
        Violence.STOP: lambda: _seconds(random, 0.1, 1.5),
        Violence.OUTAGE: lambda: _seconds(random, 0.1, 1.0),
    }
    return [
        Deed(
            after=random.randint(1, orders),
            delay_s=float(_seconds(random, 0, 0.3)),
            what=kind,
            whom=random.randrange(12),
            seconds=float(seconds[kind]()),
        )
        for kind in kinds
    ]


def _seconds(random: Random, least: float, most: float) -> Decimal:
    return Decimal(str(round(random.uniform(least, most), 3)))
