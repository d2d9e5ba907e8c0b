"""What the databases say of the orders: their rows, and the histories that led to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from common.domain.inventory import ReservationStatus
from common.domain.payment import PaymentStatus
from compare.checks.standing import ENDINGS, UNDOES, Account, Act, Deed, Source, Standing
from compare.recording import OrderEnd, Recording, StateChange
from compare.scenario import Scenario

_DEEDS: Final[dict[tuple[str, str], Deed]] = {
    ("inventory", ReservationStatus.RESERVED): Deed.RESERVED,
    ("inventory", ReservationStatus.RELEASED): Deed.RELEASED,
    ("payment", PaymentStatus.CHARGED): Deed.CHARGED,
    ("payment", PaymentStatus.REFUNDED): Deed.REFUNDED,
}


def account_of_databases(scenario: Scenario, recording: Recording) -> Account:
    """Put the account together."""
    by_order: dict[str, list[StateChange]] = defaultdict(list)
    for change in recording.changes:
        by_order[change.order_id].append(change)
    standings = [_standing(scenario, order, by_order[order.order_id]) for order in recording.orders]
    return Account(Source.DATABASES, tuple(standings), dict(recording.stock))


def _standing(scenario: Scenario, order: OrderEnd, changes: Sequence[StateChange]) -> Standing:
    paid = order.payment == PaymentStatus.CHARGED
    standing = Standing(
        number=order.number,
        order_id=order.order_id,
        spec=scenario.orders[order.spec],
        placed_ms=order.placed_ms or 0.0,
        status=order.status,
        reason=order.reason,
        held=order.quantity_held,
        payment=order.payment,
        charged=order.amount_cents if paid else 0,
        saga=order.saga,
        ends=tuple(
            change.to_status
            for change in changes
            if change.service == "order" and change.to_status in ENDINGS
        ),
    )
    acts = (_act(standing, change) for change in changes)
    return replace(standing, acts=tuple(act for act in acts if act is not None))


def _act(standing: Standing, change: StateChange) -> Act | None:
    """What a change of state did; an undo that comes from no deed has only left a tombstone."""
    deed = _DEEDS.get((change.service, change.to_status))
    if deed is None:
        return None
    amount = standing.spec.quantity if change.service == "inventory" else standing.due_cents
    done = deed not in UNDOES or change.from_status == UNDOES[deed]
    return Act(deed, amount if done else 0, change.at_ms)
