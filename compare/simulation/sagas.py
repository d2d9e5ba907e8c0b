"""The sagas that are swept: each as small as it can be to go the way that its name says.

Limits are low, so that what is tried again and again comes to an end soon: each further try has the same
states as the one before, but for its number.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from compare.scenario import CancelSpec, Ending, ExpectedOrder, OrderSpec, RecoverySpec, Scenario

_ANY: Final = ExpectedOrder(status=Ending.COMPLETED)
"""What is expected plays no part: what happens to a simulated order may change its end."""


@dataclass(frozen=True)
class Saga:
    """Some orders, and what else may happen on their way beside what is swept."""

    scenario: Scenario
    losses: int = 0
    """How many records may get lost."""
    early: int = 0
    """How often time may pass though there is something else to do."""

    @property
    def name(self) -> str:
        """The scenario's."""
        return self.scenario.name


def _saga(  # noqa: PLR0913 - all but three have defaults, and are named where they are given
    name: str,
    description: str,
    *orders: OrderSpec,
    stock: int = 1,
    tries: int = 2,
    losses: int = 0,
    early: int = 0,
) -> Saga:
    scenario = Scenario(
        name=name,
        description=description,
        stock={"laptop": stock},
        orders=orders,
        recovery=RecoverySpec(retry_tries=2, undo_tries=3, deadline_tries=tries),
        timeout=Decimal(600),
    )
    return Saga(scenario, losses, early)


def _order(price: int = 200, cancel: CancelSpec | None = None) -> OrderSpec:
    return OrderSpec(item="laptop", price=Decimal(price), cancel=cancel, expect=_ANY)


SAGAS: Final = {
    saga.name: saga
    for saga in (
        _saga("happy", "One order, which can be fulfilled.", _order()),
        _saga("declined", "One order, whose payment is above the limit.", _order(600)),
        _saga("out-of-stock", "Two orders for the last piece.", _order(), _order()),
        _saga(
            "cancelled",
            "One order, whose customer wants it cancelled at any time.",
            _order(cancel=CancelSpec()),
        ),
        _saga(
            "timed-out",
            "One order; a record gets lost, and nobody asks twice.",
            _order(),
            tries=1,
            losses=1,
        ),
    )
}
"""By name."""
