"""A scenario made ready: every order has its id, the same in both modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from uuid_utils import uuid7

from common.domain.decision import Rules
from common.messages import PlaceOrder
from compare.scenario import OrderSpec, Scenario

WARM_UP_ITEM: Final = "(warm-up)"


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """An order to place, with the id that it has in both modes."""

    number: int
    spec_index: int
    spec: OrderSpec
    command: PlaceOrder


@dataclass(frozen=True, slots=True)
class Plan:
    """A scenario made ready to be replayed in both modes alike."""

    scenario: Scenario
    orders: tuple[PlacedOrder, ...]
    rules: Rules
    warm_up: PlaceOrder


def plan(scenario: Scenario, rules: Rules, new_id: Callable[[], str] = lambda: str(uuid7())) -> Plan:
    """Give every order of a scenario its id, a UUIDv7 as `new_id` makes them."""
    orders = [
        PlacedOrder(number, index, spec, _command(spec, new_id()))
        for number, (index, spec) in enumerate(
            ((index, spec) for index, spec in enumerate(scenario.orders) for _ in range(spec.count)), start=1
        )
    ]
    # It is declined, so it goes through every service and compensation, and leaves the stock as it was.
    warm_up = PlaceOrder(
        order_id=new_id(),
        customer_id="warm-up",
        item=WARM_UP_ITEM,
        quantity=1,
        price_cents=rules.payment_limit_cents + 1,
    )
    return Plan(scenario, tuple(orders), rules, warm_up)


def _command(spec: OrderSpec, order_id: str) -> PlaceOrder:
    return PlaceOrder(
        order_id=order_id,
        customer_id=spec.customer,
        item=spec.item,
        quantity=spec.quantity,
        price_cents=spec.price_cents,
    )
