"""Whether the evidence itself holds together: who contradicts whom, and what can't be accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from common.domain.order import OrderStatus
from common.messages import SagaFailed
from compare.checks.case import Case, Fault
from compare.checks.records import ANY_REASON
from compare.checks.standing import ENDINGS, NEVER_PLACED, Standing
from compare.faults import AT_A_BOUNDARY
from compare.faults import Fault as Kind
from compare.recording import DeadLetterSeen, OrderEnd, Recording

_PLANTED_BY = {
    "unreadable": frozenset({Kind.POISON}),
    "failed": frozenset({Kind.ERROR, Kind.PERMANENT_ERROR}),
}
"""By the reason of a dead letter: the faults that may have brought it about."""


def records_and_databases_agree(case: Case) -> Iterator[Fault]:
    """Order by order, both say the same; and so do a database's rows and its own history."""
    for stored, told in zip(case.databases.standings, case.records.standings, strict=True):
        for text in _differences(stored, told):
            yield Fault(f"{stored.name}: {text}", (stored.order_id,))
    latest = {(one.order_id, one.service): one.to_status for one in case.recording.changes}
    for order in case.recording.orders:
        yield from _rows_without_history(order, latest)
    for item in case.scenario.stock:
        stored_free, told_free = case.databases.stock.get(item, 0), case.records.stock[item]
        if stored_free != told_free:
            wanting = (one.order_id for one in case.databases.standings if one.spec.item == item)
            text = f"{item}: {stored_free} free in the databases, {told_free} by the records"
            yield Fault(text, tuple(wanting))


def _differences(stored: Standing, told: Standing) -> Iterator[str]:
    known = told.reason if told.reason != ANY_REASON else stored.reason
    for what, here, there in (
        ("", stored.status, told.status),
        ("ended as ", _listed(stored.ends), _listed(told.ends)),
        ("reason ", stored.reason, known),
        ("pieces held: ", stored.held, told.held),
        ("cents charged: ", stored.charged, told.charged),
    ):
        if here != there:
            yield f"{what}{here} in the databases, {there} by the records"


def _listed(ends: tuple[str, ...]) -> str:
    return ", ".join(ends) or "nothing"


def _rows_without_history(order: OrderEnd, latest: Mapping[tuple[str, str], str]) -> Iterator[Fault]:
    rows = {
        "order": order.status if order.status != NEVER_PLACED else None,
        "inventory": order.reservation,
        "payment": order.payment,
        "orchestrator": order.saga,
    }
    for service, status in rows.items():
        last = latest.get((order.order_id, service))
        if last != status:
            text = f"the {service} database has {status}, but its history ends with {last}"
            yield Fault(f"order {order.number} ({order.order_id}): {text}", (order.order_id,))


def saga_and_order_agree(case: Case) -> Iterator[Fault]:
    """Where there is an orchestrator, it has ended the saga as the Order service has ended the order.

    An order that waits for an operator may not have heard that it is over by now, if a fault has kept that
    from it: the operator's request will be answered with it.
    """
    unheard = {
        strike.order_id for strike in case.recording.strikes if strike.record_type == SagaFailed.__name__
    } | {letter.order_id for letter in case.recording.dead_letters if letter.type == SagaFailed.__name__}
    for account in case.accounts:
        for one in account.standings:
            waits = one.status == OrderStatus.COMPENSATION_FAILED and one.saga == OrderStatus.FAILED
            if waits and one.order_id in unheard:
                continue
            if one.saga is not None and one.status in ENDINGS and one.saga != one.status:
                text = f"{one.name} is {one.status}, but its saga is {one.saga} (by the {account.source})"
                yield Fault(text, (one.order_id,))


def one_partition_per_order(case: Case) -> Iterator[Fault]:
    """Else records of one order could overtake each other."""
    for one in case.databases.standings:
        partitions = {record.partition for record in case.by_order.get(one.order_id, ())}
        if len(partitions) > 1:
            text = f"{one.name} is on partitions {sorted(partitions)}: records could overtake each other"
            yield Fault(text, (one.order_id,))


def every_record_has_its_cause(case: Case) -> Iterator[Fault]:
    """What led to a record was seen on the broker, or kept from it by a fault."""
    lost = case.recording.lost
    for one in case.databases.standings:
        for record in case.by_order.get(one.order_id, ()):
            known = record.cause is not None or record.causation_id in {one.order_id, *lost}
            if not known:
                text = f"{one.name}: {record.type} comes from {record.causation_id}, which nobody has seen"
                yield Fault(text, (one.order_id,))


def everything_is_accounted_for(case: Case) -> Iterator[Fault]:
    """Whatever is not as it should be on the broker was made so by a fault of the scenario."""
    recording = case.recording
    if recording.stray_records:
        text = f"{recording.stray_records} records are of no order of this scenario"
        yield Fault(text, evidence=_strays(recording))
    if recording.unknown_records:
        text = f"{recording.unknown_records} records are of no type that the lab knows"
        yield Fault(text, evidence=_strays(recording))
    for record in recording.trace:
        if record.poisoned and not _planted(recording, record.order_id, record.id, "unreadable"):
            text = f"{record.type} of order {record.order_id} can't be read, and no fault has made it so"
            yield Fault(text, (record.order_id,))
    for letter in recording.dead_letters:
        if not _planted(recording, letter.order_id, letter.id, letter.reason):
            yield Fault(f"no fault has led to the dead letter {_described(letter)}", (letter.order_id,))


def _strays(recording: Recording) -> tuple[tuple[str, str], ...]:
    return tuple((place, "broker") for place in recording.strays)


def _described(letter: DeadLetterSeen) -> str:
    service = letter.service.rpartition("/")[2]
    return f"{letter.type} of order {letter.order_id}, which {service} gave up: {letter.error}"


def _planted(recording: Recording, order_id: str, record_id: str, reason: str) -> bool:
    kinds = _PLANTED_BY.get(reason, frozenset())
    return any(
        strike.kind in kinds and strike.order_id == order_id and strike.record_id in {None, record_id}
        for strike in recording.strikes
    )


def every_dead_letter_is_there(case: Case) -> Iterator[Fault]:
    """As many as the services say that they have sent.

    One that was interrupted may have given the same record up twice, which makes one dead letter.
    """
    counted, seen = case.recording.total("dead_letter"), len(case.recording.dead_letters)
    interrupted = any(strike.kind in AT_A_BOUNDARY for strike in case.recording.strikes)
    least = min(counted, 1) if interrupted else counted
    if not least <= seen <= counted:
        orders = {letter.order_id: None for letter in case.recording.dead_letters}
        totals = {name: counts.get("dead_letter", 0) for name, counts in case.recording.counts.items()}
        evidence = ((f"{total} dead letters counted", name) for name, total in totals.items() if total)
        text = f"the services count {counted} dead letters, the broker has {seen}"
        yield Fault(text, tuple(orders), tuple(evidence))
