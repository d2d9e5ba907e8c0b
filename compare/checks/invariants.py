"""The invariants: what must hold in every mode and under every fault.

Each is judged by both accounts, the databases' and the records', and each fault says by which.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import Final

from common.domain.order import OrderStatus
from common.domain.payment import PaymentStatus
from compare.checks.case import Case, Fault, Finder
from compare.checks.standing import ENDINGS, UNDOES, Account, Deed, Standing
from compare.faults import Fault as Kind
from compare.scenario import Ending, ExpectedOrder

Rule = Callable[[Standing], Iterator[str]]
"""Tells what is wrong about one order."""


def by_databases(rule: Rule) -> Finder:
    """Apply a rule to every order as the databases have it."""
    return lambda case: _judged(rule, case.databases)


def by_records(rule: Rule) -> Finder:
    """Apply a rule to every order as the records have it."""
    return lambda case: _judged(rule, case.records)


def by_both(rule: Rule) -> Finder:
    """Apply a rule to every order, by both accounts."""
    return lambda case: chain(_judged(rule, case.databases), _judged(rule, case.records))


def _judged(rule: Rule, account: Account) -> Iterator[Fault]:
    for standing in account.standings:
        for text in rule(standing):
            yield _fault(standing, account, text)


def _fault(standing: Standing, account: Account, text: str) -> Fault:
    return Fault(f"{standing.name} {text} (by the {account.source})", (standing.order_id,))


def every_order_ends(case: Case) -> Iterator[Fault]:
    """Nothing moves any more, so no order may be under way, nor stuck if that wasn't expected of it."""
    for account in case.accounts:
        for standing in account.standings:
            if standing.status not in ENDINGS:
                yield _fault(standing, account, f"is {standing.status}, though nothing moves any more")
            elif standing.status == OrderStatus.COMPENSATION_FAILED and not _may_get_stuck(case, standing):
                yield _fault(standing, account, f"is {standing.status}, which nobody expected")


def _may_get_stuck(case: Case, standing: Standing) -> bool:
    expected = standing.spec.expected(case.recording.mode)
    return isinstance(expected, ExpectedOrder) and expected.status is Ending.COMPENSATION_FAILED


def ends_once(standing: Standing) -> Iterator[str]:
    """An end is for good; only a failed compensation can be taken up again, and never ends well."""
    for end, after in pairwise(standing.ends):
        if end != OrderStatus.COMPENSATION_FAILED or after == OrderStatus.COMPLETED:
            yield f"is {after} after it was {end}"


def stock_is_conserved(case: Case) -> Iterator[Fault]:
    """In the databases, what is free and what is held add up; in the records, what came back had gone out."""
    held: Counter[str] = Counter()
    for standing in case.databases.standings:
        held[standing.spec.item] += standing.held
    for item, initial in case.scenario.stock.items():
        free = case.databases.stock.get(item, 0)
        if free + held[item] != initial:
            text = f"{item}: {free} free and {held[item]} held are not the {initial} there were"
            yield Fault(f"{text} (by the {case.databases.source})", _wanting(case.databases, item))
    yield from _returned_as_taken(case.records, Deed.RELEASED, "pieces were released, but")


def money_is_returned(case: Case) -> Iterator[Fault]:
    """What was refunded is what had been charged."""
    yield from _returned_as_taken(case.records, Deed.REFUNDED, "cents were refunded, but")


def _returned_as_taken(account: Account, undo: Deed, text: str) -> Iterator[Fault]:
    for standing in account.standings:
        taken = {act.amount for act in standing.acts if act.deed is UNDOES[undo]}
        for act in standing.acts:
            if act.deed is undo and taken and act.amount not in taken:
                were = f"{act.amount} {text} {max(taken)} had been {UNDOES[undo]}"
                yield Fault(f"{standing.name}: {were} (by the {account.source})", (standing.order_id,))


def _wanting(account: Account, item: str) -> tuple[str, ...]:
    return tuple(standing.order_id for standing in account.standings if standing.spec.item == item)


def stock_is_never_negative(case: Case) -> Iterator[Fault]:
    """Not only in the end: what is held is followed through Inventory's history, in its own order."""
    free = Counter(case.scenario.stock)
    specs = {standing.order_id: standing.spec for standing in case.databases.standings}
    for change in case.recording.changes:
        if change.service != "inventory" or change.order_id not in specs:
            continue
        spec = specs[change.order_id]
        if change.to_status == Deed.RESERVED:
            free[spec.item] -= spec.quantity
        elif change.from_status == Deed.RESERVED:
            free[spec.item] += spec.quantity
        if free[spec.item] < 0:
            text = f"{spec.item}: {free[spec.item]} free after order {change.order_id} was {change.to_status}"
            yield Fault(f"{text} (by the {case.databases.source})", _wanting(case.databases, spec.item))
    for item, available in case.databases.stock.items():
        if available < 0:
            text = f"{item}: {available} free in the end (by the {case.databases.source})"
            yield Fault(text, _wanting(case.databases, item))


def stock_is_never_negative_in_time(case: Case) -> Iterator[Fault]:
    """By the records, which for different orders have no order but that of their times.

    What was released counts as free from the moment that this was asked for.
    """
    account = case.records
    steps = sorted(
        (at_ms, deed is Deed.RESERVED, index, place)
        for index, standing in enumerate(account.standings)
        for at_ms, deed, place in _takings(standing)
    )
    free = Counter(case.scenario.stock)
    held: Counter[int] = Counter()
    for _, _, index, place in steps:
        standing = account.standings[index]
        item, act = standing.spec.item, standing.acts[place]
        holds = act.amount if act.deed is Deed.RESERVED else 0
        free[item] += held[index] - holds
        held[index] = holds
        if free[item] < 0:
            text = f"{item}: {free[item]} free after {standing.name} was {act.deed}"
            yield Fault(f"{text} (by the {account.source})", _wanting(account, item))


def _takings(standing: Standing) -> list[tuple[float, Deed, int]]:
    """When an order's goods were taken, and given back: the time, what it was, and which of its acts.

    What was given back in the same moment in which it was taken was never missing.
    """
    found: list[tuple[float, Deed, int]] = []
    for place, act in enumerate(standing.acts):
        at_ms = standing.placed_ms + act.at_ms
        if act.deed is Deed.RELEASED and found and found[-1][:2] == (at_ms, Deed.RESERVED):
            found.pop()
        elif act.deed in {Deed.RESERVED, Deed.RELEASED}:
            found.append((at_ms, act.deed, place))
    return found


def charged_once(standing: Standing) -> Iterator[str]:
    """However often it was asked for."""
    times = sum(act.deed is Deed.CHARGED for act in standing.acts)
    if times > 1:
        yield f"was charged {times} times"


def charged_means_completed(standing: Standing) -> Iterator[str]:
    """An order whose undo has failed may be charged; that is what it makes visible."""
    if standing.charged and standing.status not in {OrderStatus.COMPLETED, OrderStatus.COMPENSATION_FAILED}:
        yield f"is charged, but {standing.status}"


def completed_means_paid_and_held(standing: Standing) -> Iterator[str]:
    """The customer has paid what was due, and gets what was ordered."""
    due = (standing.due_cents, standing.spec.quantity)
    paid = standing.payment == PaymentStatus.CHARGED
    if standing.status == OrderStatus.COMPLETED and (not paid or (standing.charged, standing.held) != due):
        yield (
            f"is COMPLETED, due {due[0]} cents and {due[1]} pieces; "
            f"payment {standing.payment}, {standing.charged} cents charged, {standing.held} held"
        )


def failed_holds_nothing(standing: Standing) -> Iterator[str]:
    """All that was done is undone."""
    if standing.status == OrderStatus.FAILED and (standing.held or standing.charged):
        yield f"is FAILED, but {standing.held} held and payment {standing.payment}"


def undone_after_done(standing: Standing) -> Iterator[str]:
    """An undo of something that never happened only rules it out; see `Act`."""
    for undo, deed in UNDOES.items():
        deeds = [act.deed for act in standing.acts if act.deed is not undo or act.amount]
        if undo in deeds and deed not in deeds[: deeds.index(undo)]:
            yield f"was {undo} without having been {deed} before"


_TOO_LATE: Final = "had its goods released before its payment was refunded"


def undone_in_reverse_order(case: Case) -> Iterator[Fault]:
    """The payment, which came last, is undone first.

    Between services, the databases have only times to tell that by: those of one moment prove nothing, and
    none does if a fault has set a clock wrong. The records have their causes.
    """
    for standing in case.records.standings:
        deeds = [act.deed for act in standing.acts if act.amount]
        both = Deed.REFUNDED in deeds and Deed.RELEASED in deeds
        if both and deeds.index(Deed.RELEASED) < deeds.index(Deed.REFUNDED):
            yield _fault(standing, case.records, _TOO_LATE)
    if any(fault.fault is Kind.CLOCK_SKEW for fault in case.scenario.faults):
        return
    for standing in case.databases.standings:
        first = {act.deed: act.at_ms for act in reversed(standing.acts) if act.amount}
        if first.get(Deed.RELEASED, math.inf) < first.get(Deed.REFUNDED, -math.inf):
            yield _fault(standing, case.databases, _TOO_LATE)
