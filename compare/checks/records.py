"""What the records on the broker say of the orders, without a look into any database.

A message counts once, however often it was told: what has the same id is no news, unless it tells once more
what had been taken up again meanwhile. Of a record that can't be
read, the headers still say what it was. One that a fault kept from the broker was told, too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from common.domain.order import OrderStatus
from common.domain.payment import PaymentStatus
from common.messages import (
    MESSAGES,
    InventoryReleased,
    InventoryReserved,
    OrderAborted,
    OrderCompensationFailed,
    OrderCompleted,
    OrderFailed,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    RetryCompensation,
    SagaCompensationFailed,
    SagaCompleted,
    SagaFailed,
    Step,
)
from compare.checks.standing import ENDINGS, Account, Act, Deed, Source, Standing
from compare.faults import Fault
from compare.recording import Recording, TraceRecord
from compare.scenario import Scenario

_TAKEN_UP: Final[dict[str, OrderStatus]] = {
    OrderAborted.__name__: OrderStatus.COMPENSATION_FAILED,
    RetryCompensation.__name__: OrderStatus.COMPENSATION_FAILED,
    OrderCompensationFailed.__name__: OrderStatus.COMPENSATING,
    SagaCompensationFailed.__name__: OrderStatus.COMPENSATING,
}
"""By type of what may happen to an order more than once: the status in which it is news again.

An operator can have a failed compensation tried again, and it can fail again."""
_AN_ANSWER: Final = 1
_RANKS: Final = {
    kind.__name__: rank
    for rank, kinds in enumerate(
        (
            (InventoryReleased, PaymentRefunded),
            (OrderCompensationFailed, SagaCompensationFailed),
            (OrderCompleted, OrderFailed, SagaCompleted, SagaFailed),
        ),
        start=_AN_ANSWER + 1,
    )
    for kind in kinds
}
"""By type: where it comes among what a service tells in one transaction, if not first."""
ANY_REASON: Final = "(can't be read)"
"""The reason in a record of which only the headers could be read."""


class _Word(NamedTuple):
    """A message; without its body, only its type is known."""

    type: str
    body: dict[str, Any] | None
    at_ms: float
    cause_ms: float
    cause: str | None = None
    again: bool = False
    """It was told before."""


class _Lost(NamedTuple):
    """A telling of a message that a fault has kept from the broker."""

    at_ms: float
    id: str
    type: str
    cause: str | None


def account_of_records(scenario: Scenario, recording: Recording) -> Account:
    """Put the account together."""
    by_order: dict[str, list[TraceRecord]] = defaultdict(list)
    for record in recording.trace:
        by_order[record.order_id].append(record)
    lost = _lost(recording)
    standings = []
    for order in recording.orders:
        placed_ms = order.placed_ms or 0.0
        blank = Standing(order.number, order.order_id, scenario.orders[order.spec], placed_ms)
        words = _words(by_order[order.order_id], lost[order.order_id], placed_ms)
        standings.append(_standing(blank, words))
    free = dict(scenario.stock)
    for standing in standings:
        if standing.held:
            free[standing.spec.item] = free.get(standing.spec.item, 0) - standing.held
    return Account(Source.RECORDS, tuple(standings), free)


def _lost(recording: Recording) -> dict[str, list[_Lost]]:
    """By order: the messages that a fault has kept from the broker, each time that it has."""
    lost: dict[str, list[_Lost]] = defaultdict(list)
    causes = {record.id: record.cause for record in recording.trace}
    for strike in recording.strikes:
        if strike.kind == Fault.LOSE and strike.order_id is not None and strike.record_id is not None:
            # What it answers can be known only if it was told once more.
            cause = causes.get(strike.record_id)
            lost[strike.order_id].append(
                _Lost(strike.at_ms, strike.record_id, strike.record_type or "", cause)
            )
    return lost


def _words(records: Sequence[TraceRecord], lost: Sequence[_Lost], placed_ms: float) -> Iterator[_Word]:
    """Every message once, in the order of the story; the lost ones when they were lost.

    One that was lost may have come later, when its place among the others said nothing any more.
    """
    readable = {record.id: record.body for record in reversed(records) if not record.poisoned}
    times = {record.id: record.at_ms for record in reversed(records)}
    waiting = sorted(lost, key=lambda one: _moment(one.at_ms, one.type, one.cause))
    heard, told = set[str](), set[tuple[str, int]]()

    def until(moment: tuple[float, int]) -> Iterator[_Word]:
        while waiting and _moment(waiting[0].at_ms - placed_ms, waiting[0].type, waiting[0].cause) < moment:
            at_ms, message, kind, cause = waiting.pop(0)
            again = message in heard
            heard.add(message)
            if not again or kind in _TAKEN_UP:
                yield _Word(kind, readable.get(message), at_ms, at_ms, cause, again)

    for record in records:
        yield from until(_moment(record.at_ms, record.type, record.cause))
        # What is told again is news to an inbox, be it that an earlier telling comes later.
        asked_again = (record.id, record.attempt) not in told
        told.add((record.id, record.attempt))
        again = record.duplicate or record.id in heard
        heard.add(record.id)
        if not again or (asked_again and record.type in _TAKEN_UP):
            cause_ms = min(record.at_ms, times.get(record.causation_id, record.at_ms))
            body = readable.get(record.id)
            yield _Word(record.type, body, record.at_ms, cause_ms, record.cause, again)
    yield from until((math.inf, 0))


def _moment(at_ms: float, kind: str, cause: str | None) -> tuple[float, int]:
    """When something was told, and where it comes among what was told in the same transaction.

    A charge that answers a cancel comes behind the charge, an undo behind what it undoes, and an end behind
    what leads to it.
    """
    answers = kind == PaymentProcessed.__name__ and _may_answer_cancel(cause)
    # What was told at one time has the same time, though it was reckoned in two ways.
    return round(at_ms, 3), _AN_ANSWER if answers else _RANKS.get(kind, 0)


def _may_answer_cancel(cause: str | None) -> bool:
    """Whether what has that cause may answer a cancel; what a lost record answers may not be known."""
    message = MESSAGES.get(cause or "")
    return message is None or message.STEP is Step.CANCEL


def _standing(blank: Standing, words: Iterable[_Word]) -> Standing:
    standing = blank
    for word in words:
        if word.again and standing.status != _TAKEN_UP[word.type]:
            continue
        placed = replace(standing, status=OrderStatus.PENDING) if standing is blank else standing
        standing = _HEARD.get(word.type, _no_news)(placed, word)
    return standing


def _no_news(standing: Standing, _: _Word) -> Standing:
    return standing


def _reserved(standing: Standing, word: _Word) -> Standing:
    pieces = _amount(word, "quantity", standing.spec.quantity)
    return replace(_done(standing, Deed.RESERVED, pieces, word.at_ms), held=pieces)


def _released(standing: Standing, word: _Word) -> Standing:
    """Nothing is held any more; the goods may have been there for others since the release was asked for."""
    if word.body is None and not standing.held:
        return standing  # how many it was about can't be known
    pieces = _amount(word, "quantity", standing.held)
    latest = max((act.at_ms for act in standing.acts), default=word.cause_ms)
    return replace(_done(standing, Deed.RELEASED, pieces, max(latest, word.cause_ms)), held=0)


def _charged(standing: Standing, word: _Word) -> Standing:
    """Somebody was charged, unless it only answers a cancel: that tells the outcome there was before."""
    cents = _amount(word, "amount_cents", standing.due_cents)
    repeated = _may_answer_cancel(word.cause) and standing.charged == cents
    charged = standing if repeated else _done(standing, Deed.CHARGED, cents, word.at_ms)
    return replace(charged, payment=PaymentStatus.CHARGED, charged=cents)


def _declined(standing: Standing, _: _Word) -> Standing:
    """There is no charge; after a refund, a late request for one is told that, too."""
    return replace(standing, payment=standing.payment or PaymentStatus.DECLINED)


def _refunded(standing: Standing, word: _Word) -> Standing:
    if word.body is None and not standing.charged:
        return replace(standing, payment=PaymentStatus.REFUNDED)  # how much it was about can't be known
    cents = _amount(word, "amount_cents", standing.charged)
    refunded = _done(standing, Deed.REFUNDED, cents, word.at_ms)
    return replace(refunded, payment=PaymentStatus.REFUNDED, charged=0)


def _done(standing: Standing, deed: Deed, amount: int, at_ms: float) -> Standing:
    return replace(standing, acts=(*standing.acts, Act(deed, amount, at_ms)))


def _amount(word: _Word, field: str, otherwise: int) -> int:
    return otherwise if word.body is None else int(word.body.get(field, 0))


def _becomes(status: OrderStatus) -> Callable[[Standing, _Word], Standing]:
    def hear(standing: Standing, word: _Word) -> Standing:
        reason = ANY_REASON if word.body is None else word.body.get("reason", standing.reason)
        return replace(
            standing,
            status=status,
            reason=None if status is OrderStatus.COMPLETED else reason,
            ends=(*standing.ends, status.value) if status in ENDINGS else standing.ends,
        )

    return hear


def _saga(state: OrderStatus) -> Callable[[Standing, _Word], Standing]:
    return lambda standing, _: replace(standing, saga=state)


_HEARD: Final[dict[str, Callable[[Standing, _Word], Standing]]] = {
    InventoryReserved.__name__: _reserved,
    InventoryReleased.__name__: _released,
    PaymentProcessed.__name__: _charged,
    PaymentDeclined.__name__: _declined,
    PaymentRefunded.__name__: _refunded,
    OrderAborted.__name__: _becomes(OrderStatus.COMPENSATING),
    RetryCompensation.__name__: _becomes(OrderStatus.COMPENSATING),
    OrderCompensationFailed.__name__: _becomes(OrderStatus.COMPENSATION_FAILED),
    OrderCompleted.__name__: _becomes(OrderStatus.COMPLETED),
    OrderFailed.__name__: _becomes(OrderStatus.FAILED),
    SagaCompleted.__name__: _saga(OrderStatus.COMPLETED),
    SagaFailed.__name__: _saga(OrderStatus.FAILED),
    SagaCompensationFailed.__name__: _saga(OrderStatus.COMPENSATION_FAILED),
}
"""By type: what a message changes in the standing of its order."""
