"""Lies to plant in a recording: the databases, or the records on the broker, say what is not so."""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

from common.messages import Step
from common.wiring import Mode
from compare.recording import DeadLetterSeen, OrderEnd, Recording, TraceRecord
from compare.scenario import Scenario
from tests.compare.recordings import (
    DECLINED,
    PAID,
    recorded,
    scenario,
    with_trace,
)

BASE: Final = scenario(PAID, DECLINED)
PAID_ORDER, DECLINED_ORDER = 0, 1
DUE: Final = 600_00
"""What the declined order costs, in cents."""


class Case(NamedTuple):
    """What the judge is given."""

    scenario: Scenario
    recording: Recording

    @property
    def orders(self) -> tuple[OrderEnd, ...]:
        return self.recording.orders


@cache
def base(mode: Mode) -> Case:
    """One order that is paid and one that is declined: everything in it is right."""
    return Case(BASE, recorded(BASE, mode))


def record_of(case: Case, order: int, type_: str) -> TraceRecord:
    """The record of this type in the trace of an order."""
    order_id = case.orders[order].order_id
    return next(one for one in case.recording.trace if (one.order_id, one.type) == (order_id, type_))


def order_with(case: Case, order: int, **changes: object) -> Case:
    """The case, with an order that ended otherwise."""
    orders = list(case.orders)
    orders[order] = orders[order].model_copy(update=changes)
    return case._replace(recording=case.recording.model_copy(update={"orders": tuple(orders)}))


def recording_with(case: Case, **changes: object) -> Case:
    """The case, with other facts in its recording."""
    return case._replace(recording=case.recording.model_copy(update=changes))


def record_with(case: Case, order: int, type_: str, **changes: object) -> Case:
    """The case, with a record of an order changed."""
    found = record_of(case, order, type_)
    trace = (one.model_copy(update=changes) if one is found else one for one in case.recording.trace)
    return case._replace(recording=with_trace(case.recording, trace))


def body_with(case: Case, order: int, type_: str, **fields: object) -> Case:
    """The case, with a record of an order that says something else."""
    body = {**record_of(case, order, type_).body, **fields}
    return record_with(case, order, type_, body=body)


def without(case: Case, order: int, type_: str) -> Case:
    """The case, with a record of an order missing."""
    found = record_of(case, order, type_)
    trace = (one for one in case.recording.trace if one is not found)
    return case._replace(recording=with_trace(case.recording, trace))


def and_then(case: Case, order: int, type_: str, **body: object) -> Case:
    """The case, with a further record at the end of an order, as if it had been told."""
    last = [one for one in case.recording.trace if one.order_id == case.orders[order].order_id][-1]
    more = last.model_copy(
        update={"type": type_, "id": f"{last.id}-{type_}", "body": {**last.body, **body}, "duplicate": False}
    )
    return case._replace(recording=with_trace(case.recording, (*case.recording.trace, more)))


def and_changes(case: Case, order: int, service: str, from_status: str, to_status: str) -> Case:
    """The case, with one more change of an order's state in a service's history."""
    last = [one for one in case.recording.changes if one.order_id == case.orders[order].order_id][-1]
    statuses = {"from_status": from_status, "to_status": to_status, "at_ms": last.at_ms + 10}
    more = last.model_copy(update={"service": service, "cause_id": "any", **statuses})
    return recording_with(case, changes=(*case.recording.changes, more))


def without_change(case: Case, order: int, to_status: str) -> Case:
    """The case, with a change of an order's state missing from the history."""
    gone = (case.orders[order].order_id, to_status)
    changes = (one for one in case.recording.changes if (one.order_id, one.to_status) != gone)
    return recording_with(case, changes=tuple(changes))


def change_with(case: Case, order: int, to_status: str, instead: str) -> Case:
    """The case, with a change in the history that leads to another status."""
    which = (case.orders[order].order_id, to_status)
    changes = (
        one.model_copy(update={"to_status": instead}) if (one.order_id, one.to_status) == which else one
        for one in case.recording.changes
    )
    return recording_with(case, changes=tuple(changes))


def expecting(case: Case, *orders: dict[str, Any], **fields: object) -> Case:
    """The case, judged by another scenario."""
    return case._replace(scenario=scenario(*orders, **fields))


def never_ends(case: Case) -> Case:
    """The declined order stays PENDING, and nothing is told of its end: both accounts say so."""
    pending = order_with(case, DECLINED_ORDER, status="PENDING", reason=None)
    return without(without_change(pending, DECLINED_ORDER, "FAILED"), DECLINED_ORDER, "OrderFailed")


def gets_stuck(case: Case) -> Case:
    """The declined order ends as COMPENSATION_FAILED, by both accounts."""
    stuck = order_with(case, DECLINED_ORDER, status="COMPENSATION_FAILED")
    told = record_with(stuck, DECLINED_ORDER, "OrderFailed", type="OrderCompensationFailed")
    return change_with(told, DECLINED_ORDER, "FAILED", "COMPENSATION_FAILED")


def charged_twice(case: Case) -> Case:
    """The databases say that the paid order was charged a second time."""
    charge = next(one for one in case.recording.changes if one.to_status == "CHARGED")
    return recording_with(case, changes=(*case.recording.changes, charge.model_copy()))


def oversold_for_a_while(case: Case) -> Case:
    """Pieces that nobody has are reserved again and again, and all but one given back before the end."""
    history = case.recording.changes
    taken = next(one for one in history if one.to_status == "RESERVED")
    given_back = taken.model_copy(update={"from_status": "RESERVED", "to_status": "RELEASED"})
    return recording_with(case, changes=(*history, *[taken] * 10, *[given_back] * 11, taken))


def refunded_too_late(case: Case) -> Case:
    """By the records, the goods are released first, and the payment is refunded after them."""
    charged = and_then(case, DECLINED_ORDER, "PaymentProcessed", amount_cents=DUE)
    return and_then(charged, DECLINED_ORDER, "PaymentRefunded", amount_cents=DUE)


def refunded_too_late_in_history(case: Case) -> Case:
    """The databases say so."""
    charged = and_changes(case, DECLINED_ORDER, "payment", "DECLINED", "CHARGED")
    refunded = and_changes(charged, DECLINED_ORDER, "payment", "CHARGED", "REFUNDED")
    return order_with(refunded, DECLINED_ORDER, payment="REFUNDED")


def still_holds(case: Case) -> Case:
    """The databases say that the declined order holds its goods."""
    holding = order_with(case, DECLINED_ORDER, quantity_held=1, reservation="RESERVED")
    return without_change(recording_with(holding, stock={"laptop": 8}), DECLINED_ORDER, "RELEASED")


def dead_letter(case: Case, **changes: object) -> DeadLetterSeen:
    """One of the paid order's, which no fault has planted."""
    record = record_of(case, PAID_ORDER, "InventoryReserved")
    letter = DeadLetterSeen(
        topic=f"{record.topic}.dlq",
        partition=record.partition,
        offset=0,
        at_ms=record.at_ms + 1,
        order_id=record.order_id,
        id=record.id,
        type=record.type,
        step=Step.PAY,
        service="choreographed/payment",
        reason="failed",
        error="ValueError: no",
        tries=5,
    )
    return letter.model_copy(update=changes)


def with_dead_letter(case: Case) -> Case:
    """A dead letter that the services have counted, too."""
    return recording_with(case, dead_letters=(dead_letter(case),), counts={"payment": {"dead_letter": 1}})
