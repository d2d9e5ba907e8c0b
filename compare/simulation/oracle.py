"""What a simulated history is judged by, beside the checks of every replay.

Those have to hold whatever else may have happened. Here all that has happened is known, so more can be asked:
that each end has a reason, that nobody gives up too early or tries too often, and that whoever tells
something tells it rightly, of the right order, and because of something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import select

from common.domain.inventory import ReservationStatus
from common.domain.order import OrderStatus
from common.domain.payment import PaymentStatus
from common.messages import COMPENSATIONS, CompleteOrder, FailCompensation, FailOrder, Message, Reason
from common.services import PAYMENTS
from common.wiring import Wiring
from compare.faults import Fault as Kind
from compare.recording import DeadLetterSeen, OrderEnd, Recording, TraceRecord
from compare.scenario import OrderSpec, Scenario
from compare.simulation.broker import Stored
from compare.simulation.world import World

_FAILING: Final = frozenset({Kind.ERROR, Kind.PERMANENT_ERROR, Kind.POISON})
_DELAYING: Final = _FAILING | {Kind.LOSE}
_TAKING_AWAY: Final = frozenset({Kind.LOSE, Kind.POISON, Kind.PERMANENT_ERROR})
_STEPS: Final = ("OrderCreated", "ReserveInventory", "ProcessPayment")
"""What is asked for again until there is an answer, as often as that is allowed."""
_TRACE: Final = len("00-") + 32
"""How much of a `traceparent` is the same for all of a trace."""
_TOLD_OF: Final = {
    "cancel": {"OrderCancelRequested", "CancelSaga"},
    "retry_compensation": {"OrderAborted", "RetryCompensation"},
}
"""By request: what the Order service tells of it, in one mode or the other."""
_UNDOS: Final = frozenset(COMPENSATIONS.values())
_INSISTED: Final = frozenset({CompleteOrder, FailOrder})
"""What is tried until it succeeds: an end that is decided on has to come."""
_OF_UNDOS: Final = {
    "orchestrated": (
        frozenset({"RefundPayment", "PaymentRefunded"}),
        frozenset({"ReleaseInventory", "InventoryReleased"}),
    ),
    "choreographed": (frozenset({"OrderAborted", "PaymentRefunded", "InventoryReleased"}),),
}
"""By mode: what asks for an undo, or tells of it; what is lost of one of these may have it given up."""
_WAITING: Final = OrderStatus.COMPENSATION_FAILED.value
_MAY_BE_NOTHING: Final = frozenset({"InventoryReleased", "PaymentRefunded"})
"""What tells of nothing if there was nothing to undo."""


def unexplained(world: World, recording: Recording) -> Iterator[str]:
    """What nothing in the orders, the stock or the history is a reason for: ends, and asking again."""
    yield from _never_again(world, recording)
    for order in recording.orders:
        known = _Known(world, recording, order)
        if (text := next(_against(known), None)) is not None:
            ended = f"{order.status} ({order.reason})" if order.reason else order.status
            yield f"order {order.number} is {ended}: {text}"
        if recording.unfinished is None:
            yield from _ignored(known)
            yield from _unheard(known, world.mode.service("order"))
            yield from _asked_again(known)
            yield from _asked_too_often(known)


class _Known:
    """What has happened to an order, and can be a reason for what came of it."""

    def __init__(self, world: World, recording: Recording, order: OrderEnd) -> None:
        self.order = order
        self._mode = recording.mode
        self.scenario = world.plan.scenario
        self.spec = self.scenario.orders[order.spec]
        self.rules = world.plan.rules
        self.trace = [one for one in recording.trace if one.order_id == order.order_id]
        self.lost = [one for one in recording.lost.values() if one.order_id == order.order_id]
        self.granted = {
            one.what for one in recording.requested if one.order_id == order.order_id and one.accepted
        }
        self.buried = {(one.id, one.type) for one in recording.dead_letters}
        self.changed = {
            one.to_status
            for one in recording.changes
            if one.service == "order" and one.order_id == order.order_id
        }
        scripted = not world.script.idle
        self._strikes_on = [
            strike for strike in recording.strikes if scripted or strike.order_id in {None, order.order_id}
        ]
        self._strikes = Counter(strike.kind for strike in self._strikes_on)
        self._patient = not scripted
        self._hurried = world.now_is.early or _scripted_delay(self.scenario, recording)

    def struck(self, kinds: Collection[Kind]) -> int:
        """How many faults of these kinds have struck."""
        return sum(self._strikes[kind] for kind in kinds)

    def delayed(self, times: int = 1) -> bool:
        """Whether so many answers may have been missing, or late.

        Each time of asking is kept from being answered by a fault of its own, unless time has passed though
        there was something to do. Of a scenario's own faults, one may last.
        """
        return self._hurried or self.struck(_DELAYING) >= (times if self._patient else 1)

    def undo_delayed(self, times: int) -> bool:
        """Whether so many answers to an undo may have been missing, or late."""
        struck = max(
            sum(
                strike.kind in _FAILING - {Kind.POISON} or strike.record_type in undo
                for strike in self._strikes_on
                if strike.kind in _DELAYING
            )
            for undo in _OF_UNDOS[self._mode]
        )
        return self._hurried or struck >= (times if self._patient else 1)

    def is_undone(self) -> bool:
        """Whether nothing is held or charged, and whoever decides on the end has heard so."""
        if (
            self.order.reservation == ReservationStatus.RESERVED
            or self.order.payment == PaymentStatus.CHARGED
        ):
            return False
        if self.order.saga not in {None, OrderStatus.COMPENSATION_FAILED}:
            return False
        told = [one for one in self.trace if one.type == "InventoryReleased" and not one.poisoned]
        return any((one.id, one.type) not in self.buried for one in told)

    def refunded(self) -> bool:
        """Whether something was given back to the customer."""
        return any(one.type == "PaymentRefunded" and one.body.get("amount_cents") for one in self.trace)

    def missing(self) -> bool:
        """Whether an answer may have been missing when all that there was to do was done.

        What fails now and then is tried again long before anybody asks for it.
        """
        tries = min(self.scenario.patience.retry_tries, self.scenario.patience.undo_tries)
        return (
            self._hurried
            or not self._patient
            or self.struck(_TAKING_AWAY) > 0
            or self.struck({Kind.ERROR}) >= tries
        )


def _against(known: _Known) -> Iterator[str]:
    """What speaks against the end that an order has come to."""
    scenario, spec, order = known.scenario, known.spec, known.order
    due, there = spec.price_cents * spec.quantity, scenario.stock.get(spec.item)
    wanted = sum(one.quantity * one.count for one in scenario.orders if one.item == spec.item)
    if order.status == OrderStatus.COMPLETED:
        if due > known.rules.payment_limit_cents:
            yield f"it is due {due} cents, which is above the limit"
        if there is None or spec.quantity > there:
            yield "there was not that much of its item"
        return
    if order.status == OrderStatus.COMPENSATION_FAILED:
        if not (known.struck({Kind.PERMANENT_ERROR}) or known.undo_delayed(scenario.patience.undo_tries)):
            yield "no undo was kept from succeeding"
        if known.is_undone():
            yield "all of it is undone, and was told"
    explained = {
        Reason.PAYMENT_DECLINED: due > known.rules.payment_limit_cents,
        Reason.UNKNOWN_ITEM: there is None,
        Reason.OUT_OF_STOCK: there is not None and wanted > there,
        Reason.CANCELLED: "cancel" in known.granted,
        Reason.TIMED_OUT: known.delayed(scenario.patience.deadline_tries),
        Reason.DEAD_LETTER: known.struck(_FAILING) > 0,
    }
    if order.reason is not None and not explained[Reason(order.reason)]:
        yield "nothing has happened to it that would be a reason for that"
    if order.reason == Reason.CANCELLED and known.refunded():
        yield "it was paid, and a payment that was captured wins"
    if order.reason is None and order.status == OrderStatus.FAILED:
        yield "there is no reason given for that"


def _never_again(world: World, recording: Recording) -> Iterator[str]:
    """What has failed, and was neither tried again nor given up."""
    if recording.unfinished is not None:
        return
    handled = world.now_is.handled
    buried = {(letter.service.rpartition("/")[2], letter.id) for letter in recording.dead_letters}
    for service, _, message in world.now_is.failures:
        if not handled[service, message] and (service, message.partition("~")[0]) not in buried:
            yield f"{service} fails at {_name(world, message)}, and never tries it again"


def tried_wrongly(world: World) -> Iterator[str]:
    """What was handled twice, or tried again too often, or too soon, after it had failed."""
    for (service, message), times in sorted(world.now_is.handled.items()):
        if times > 1:
            yield f"{service} has handled {_name(world, message)} {times} times"
    for (service, command, message), (times, _) in world.now_is.failures.items():
        most = _most_tries(world, command)
        # What was given up is forgotten, and tried anew if it comes once more.
        if command not in _INSISTED and times > most * max(1, len(_copies(world, message))):
            name = _name(world, message)
            yield f"{service} tries {name} {times} times in vain, but {most} are the most"
    for service, message in world.now_is.hasty:
        yield f"{service} tries {_name(world, message)} again sooner than it is to after a failure"


def _most_tries(world: World, command: type[Message]) -> int:
    """How often a command may fail."""
    patience = world.plan.scenario.patience
    return patience.undo_tries if command in _UNDOS else patience.retry_tries


def _copies(world: World, message: str) -> list[Stored]:
    """The records of a message, as the inbox knows it."""
    return [one for one in world.now_is.broker.records() if one.id.removesuffix("~1") == message]


def _name(world: World, message: str) -> str:
    """What people call a message, if there is still a record of it."""
    return next((record.name for record in _copies(world, message)), message)


def _ignored(known: _Known) -> Iterator[str]:
    """Requests that were accepted, and of which then nothing was told."""
    told = {one.type for one in known.trace} | {one.record_type for one in known.lost}
    for what in sorted(known.granted):
        if told.isdisjoint(_TOLD_OF[what]):
            yield f"order {known.order.number} takes the request to {what}, and tells nobody of it"


def _unheard(known: _Known, wiring: Wiring) -> Iterator[str]:
    """That an undo has failed for good, and its order has never waited for an operator.

    A failed refund may come after the end that a second try has led to: they are on different topics. And an
    order that never had any goods has ended with their rejection. What is tried again later comes later.
    """
    if known.struck({Kind.ERROR}) or any(one.type == "InventoryRejected" for one in known.trace):
        return
    failures = {row.message.__name__ for row in wiring.reactions if row.command is FailCompensation}
    for record in known.trace:
        told = record.type in failures - {"PaymentRefundFailed"} and not record.poisoned
        if told and (record.id, record.type) not in known.buried and _WAITING not in known.changed:
            yield f"order {known.order.number} never waits for an operator, though {record.type} was told"
            return


def _asked_again(known: _Known) -> Iterator[str]:
    """That something was told again, though there was an answer."""
    if known.missing() or "retry_compensation" in known.granted:
        return
    for record in known.trace:
        if record.attempt > 1:
            text = f"{record.type} is told again by {record.producer}, though nothing was missing"
            yield f"order {known.order.number}: {text}"
            return


def _asked_too_often(known: _Known) -> Iterator[str]:
    """That a step, or an undo, was asked for more often than is allowed; an operator begins anew."""
    patience = known.scenario.patience
    limits = dict.fromkeys(_STEPS, patience.deadline_tries)
    if "retry_compensation" not in known.granted:
        limits |= dict.fromkeys(("ReleaseInventory", "RefundPayment", "OrderAborted"), patience.undo_tries)
    for kind, most in limits.items():
        attempts = {one.attempt for one in known.trace if one.type == kind}
        if len(attempts) > most:
            yield f"order {known.order.number}: {kind} is told {len(attempts)} times, but {most} are the most"


def _scripted_delay(scenario: Scenario, recording: Recording) -> bool:
    """Whether one of the scenario's own faults has taken its time."""
    return any(
        spec.duration_s > 0 or spec.fault is Kind.REORDER
        for index, spec in enumerate(scenario.faults)
        if any(strike.fault == index for strike in recording.strikes)
    )


def mistold(world: World, recording: Recording) -> Iterator[str]:
    """Records and histories that say what is not so."""
    yield from _strange(world)
    numbers = {order.order_id: order.number for order in recording.orders}
    specs = {order.order_id: world.plan.scenario.orders[order.spec] for order in recording.orders}
    tellers = {kind.__name__: wiring.name for wiring in world.mode.services for kind in wiring.tells}
    for record in recording.trace:
        for text in (*_misquoted(record, specs[record.order_id]), *_misattributed(record, tellers)):
            yield f"order {numbers[record.order_id]}: {record.type} {text}"
    for change in recording.changes:
        if change.service != "order" and change.cause_id == change.order_id:
            change_ = f"{change.service}'s change to {change.to_status}"
            yield f"order {numbers[change.order_id]}: {change_} has no message as its cause"
    yield from _charged_to_others(world, recording)
    yield from _undone_before(recording, numbers)
    yield from _misburied(world, recording, numbers)


def _strange(world: World) -> Iterator[str]:
    """Records that are said to be of another saga, or trace, than that of their order."""
    traces: dict[bytes, bytes] = {}
    for record in world.now_is.broker.records():
        headers, key = dict(record.headers), record.key or b""
        trace = headers.get("traceparent", b"")[:_TRACE]
        if headers.get("ce_correlationid") != key:
            yield f"{record.name} doesn't say that it is of the saga of its order"
        elif traces.setdefault(key, trace) != trace:
            yield f"{record.name} is of another trace than what was told of its order before"


def _charged_to_others(world: World, recording: Recording) -> Iterator[str]:
    """Payments in the database that are not those of the orders' customers."""
    columns = PAYMENTS.table.c
    with world.cores["payment"].database.read() as connection:
        rows = connection.execute(select(columns.order_id, columns.customer_id)).all()
    payers: dict[str, str | None] = {row.order_id: row.customer_id for row in rows}
    for order in recording.orders:
        customer = world.plan.scenario.orders[order.spec].customer
        if payers.get(order.order_id) not in {None, customer}:
            text = f"its payment is {payers[order.order_id]}'s, but it is {customer}'s order"
            yield f"order {order.number}: {text}"


def _misquoted(record: TraceRecord, spec: OrderSpec) -> Iterator[str]:
    """What a record says of its order that is otherwise."""
    right = {
        "customer_id": spec.customer,
        "item": spec.item,
        "quantity": spec.quantity,
        "price_cents": spec.price_cents,
        "amount_cents": spec.price_cents * spec.quantity,
    }
    for field, value in _said(record.body):
        if field in right and value != right[field] and (value or record.type not in _MAY_BE_NOTHING):
            yield f"says {field} {value!r}, which is {right[field]!r}"


def _said(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field, value in body.items():
        if isinstance(value, Mapping):
            yield from _said(value)
        else:
            yield field, value


def _misattributed(record: TraceRecord, tellers: Mapping[str, str]) -> Iterator[str]:
    """That somebody tells what is not his, or what only a customer's request could lead to."""
    if record.producer != tellers[record.type]:
        yield f"is told by {record.producer}, but {tellers[record.type]} tells that"
    if record.causation_id == record.order_id and record.producer != "order":
        yield f"of {record.producer} has no message as its cause"


def _undone_before(recording: Recording, numbers: Mapping[str, int]) -> Iterator[str]:
    """That an undo is said to have failed after it was done; what was lost may have come in between."""
    struck = {strike.record_id for strike in recording.strikes}
    for failed, done in (
        ("InventoryReleaseFailed", "InventoryReleased"),
        ("PaymentRefundFailed", "PaymentRefunded"),
    ):
        since: dict[str, int] = {}
        for record in recording.trace:
            something = record.body.get("quantity") or record.body.get("amount_cents")
            if record.type == done and something:
                since.setdefault(record.order_id, record.offset)
        for record in recording.trace:
            first = since.get(record.order_id)
            new = record.type == failed and not record.duplicate and record.id not in struck
            if new and first is not None and record.offset > first:
                yield f"order {numbers[record.order_id]}: {failed} is told after {done}"


def _misburied(world: World, recording: Recording, numbers: Mapping[str, int]) -> Iterator[str]:
    """Dead letters that should not be there, that say what is not so, or that are missing."""
    services = {str(wiring): wiring for wiring in world.mode.services}
    buried = Counter((letter.service, letter.id) for letter in recording.dead_letters)
    for letter in recording.dead_letters:
        wrong = [*_wrongly_buried(world, letter, services[letter.service])]
        if not wrong and _is_unanswered(recording, letter, services[letter.service]):
            wrong.append(f"is given up by {letter.service}, which tells nobody so")
        for text in wrong:
            yield f"order {numbers[letter.order_id]}: {letter.type} {text}"
    if recording.unfinished is None:
        for (service, message), times in world.now_is.unreadable.items():
            there = buried[f"{world.mode.name}/{service}", message]
            if there < times:
                told = (one for one in world.now_is.broker.records() if one.id.partition("~")[0] == message)
                name = next((one.name for one in told), message)
                yield f"{service} can't read {name}, {times} times, but buries it {there} times"


def _is_unanswered(recording: Recording, letter: DeadLetterSeen, wiring: Wiring) -> bool:
    """Whether nothing was told in place of what a dead letter would have led to."""
    reaction = wiring.reaction_to.get(letter.type)
    if reaction is None or any(one.order_id == letter.order_id for one in recording.lost.values()):
        return False
    command, order_id = reaction.command, letter.order_id
    if letter.reason == "failed":
        told_instead = command in wiring.domain.gives_up_with
    else:
        told_instead = wiring.instead_of_unreadable(command, order_id) is not None
    return told_instead and not any(
        record.order_id == order_id
        and record.producer == wiring.name
        and (record.causation_id == letter.id or record.at_ms < letter.at_ms)
        for record in recording.trace
    )


def _wrongly_buried(world: World, letter: DeadLetterSeen, wiring: Wiring) -> Iterator[str]:
    reaction = wiring.reaction_to.get(letter.type)
    if letter.reason != "failed" or reaction is None:
        return
    if reaction.command in _INSISTED:
        yield f"is given up by {wiring.name}, which is to try it until it succeeds"
    most = _most_tries(world, reaction.command)
    if letter.tries > most or (letter.tries < most and "Permanent" not in letter.error):
        yield f"is given up by {wiring.name} at try {letter.tries} of {most}"
