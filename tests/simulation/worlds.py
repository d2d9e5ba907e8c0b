"""What the tests of the simulation need: some orders, and what comes of them."""

from __future__ import annotations

from decimal import Decimal

from common.domain.decision import Rules
from compare.lab import MODES
from compare.scenario import CancelSpec, Ending, ExpectedOrder, OrderSpec, Scenario
from compare.simulation.actions import parse_action
from compare.simulation.campaign import world_of
from compare.simulation.drive import History, Schedule, drive, simulated_plan
from compare.simulation.protections import Protection

BOTH = list(MODES)


def orders(
    *prices: int, stock: int = 5, cancel: bool = False, retry: bool = False, item: str = "laptop"
) -> Scenario:
    """An order of one piece at each of these prices; 500 is the limit."""
    specs = tuple(
        OrderSpec(
            item=item,
            price=Decimal(price),
            cancel=CancelSpec() if cancel else None,
            retry_compensation=Decimal(1) if retry else None,
            expect=ExpectedOrder(status=Ending.COMPLETED),
        )
        for price in prices
    )
    return Scenario(name="simulated", description="A test's.", stock={"laptop": stock}, orders=specs)


def happen(mode: str, scenario: Scenario, *schedule: str, without: tuple[Protection, ...] = ()) -> History:
    """What comes of it if this happens, and all else in its turn."""
    plan = simulated_plan(scenario, Rules())
    return drive(world_of(mode, without), plan, Schedule([*map(parse_action, schedule)]))


def ends(history: History) -> list[str]:
    """How the orders ended."""
    return [f"{one.status} {one.reason}" if one.reason else one.status for one in history.recording.orders]
