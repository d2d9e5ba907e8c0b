"""The shortest history that shows a fault: what can be left out while the check still says the same.

It is Zeller and Hildebrandt's delta debugging ("Simplifying and Isolating Failure-Inducing Input", 2002):
chunks of the evidence are taken away, large ones first, and stay away if the fault is still found without
them. What is left is what the fault is made of. Where something is missing, nothing would be left; there the
history is the path of causes to the last that was told, and what is stored in the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

from compare.checks.case import Case, Check, Fault
from compare.checks.standing import NEVER_PLACED
from compare.checks.verdict import Evidence, HistoryLine
from compare.faults import Fault as Kind
from compare.recording import DeadLetterSeen, OrderEnd, Recording, StateChange, Strike, TraceRecord
from compare.story import changes_by_record

_MOST_WORK: Final = 50_000
"""Pieces of evidence to evaluate, in all trials; of thousands of orders, it may not be the very shortest."""
_MOST_LINES: Final = 200


class Row(NamedTuple):
    """What a service's database has in the end of one order, or of an item."""

    service: str
    order_id: str | None
    item: str | None = None


T = TypeVar("T", bound=TraceRecord | StateChange | DeadLetterSeen | Strike)
Item = TraceRecord | StateChange | DeadLetterSeen | Strike | Row
"""A piece of evidence; a strike is one for the record that it took away."""


def history_of(check: Check, fault: Fault, case: Case) -> tuple[HistoryLine, ...]:
    """The history that shows a fault of a check."""
    items = _timeline(case.recording, fault.orders)
    finders = [find for find in (check.lasting, check.pending) if find is not None]

    def shows(kept: Sequence[Item]) -> bool:
        part = Case(case.scenario, _only(case.recording, fault.orders, kept))
        return any(found.text == fault.text for find in finders for found in find(part))

    if check.whole_path or not shows(items):
        kept = _path(items, case.recording, fault.orders)
    else:
        kept = _shrink(items, shows)
    own = (
        HistoryLine(evidence=Evidence.OTHER, order_id=None, at_ms=None, where=where, what=what)
        for what, where in fault.evidence
    )
    return (*(_line(item, case.recording) for item in kept[-_MOST_LINES:]), *own)


def _shrink(items: list[Item], shows: Callable[[Sequence[Item]], bool]) -> list[Item]:
    kept = items
    for kind in dict.fromkeys(map(_kind, items)):
        # What a check never looks at is soon away.
        without = [item for item in kept if _kind(item) != kind]
        if shows(without):
            kept = without
    size, work = max(1, len(kept) // 2), 0
    while work < _MOST_WORK:
        before = len(kept)
        # From the end, so that what came after the fault goes first.
        for start in reversed(range(0, len(kept), size)):
            without = kept[:start] + kept[start + size :]
            work += len(without)
            if work >= _MOST_WORK:
                break
            if shows(without):
                kept = without
        if size == 1 and len(kept) == before:
            break
        size = max(1, size // 2)
    return kept


def _kind(item: Item) -> tuple[str, str]:
    return type(item).__name__, item.service if isinstance(item, Row) else ""


def _timeline(recording: Recording, orders: Sequence[str]) -> list[Item]:
    """All evidence about these orders: what was told and changed, by time, and then what is stored."""
    timed: list[tuple[float, Item]] = []
    ends = {end.order_id: end for end in recording.orders}
    away: list[DeadLetterSeen | Strike] = [*recording.dead_letters, *recording.lost.values()]
    told, changed, others = _by_order(recording.trace), _by_order(recording.changes), _by_order(away)
    for order_id in orders:
        placed_ms = ends[order_id].placed_ms or 0.0
        timed += ((placed_ms + at_ms, item) for at_ms, item in _story(told[order_id], changed[order_id]))
        timed += ((placed_ms + (_at_ms(item, placed_ms) or 0.0), item) for item in others[order_id])
    timed.sort(key=lambda pair: pair[0])
    return [item for _, item in timed] + _rows(recording, [ends[order_id] for order_id in orders])


def _by_order(items: Iterable[T]) -> dict[str | None, list[T]]:
    found: dict[str | None, list[T]] = defaultdict(list)
    for item in items:
        found[item.order_id].append(item)
    return found


def _story(trace: Sequence[TraceRecord], changes: Sequence[StateChange]) -> list[tuple[float, Item]]:
    """Records in the order of their story, each followed by what it has changed."""
    shown, homeless = changes_by_record(trace, changes)
    timed: list[tuple[float, Item]] = [(change.at_ms, change) for change in homeless]
    latest = 0.0
    for index, record in enumerate(trace):
        for item in (record, *shown.get(index, ())):
            # Their sequence is what counts, whatever the clocks say.
            latest = max(latest, item.at_ms)
            timed.append((latest, item))
    return timed


def _rows(recording: Recording, ends: Sequence[OrderEnd]) -> list[Item]:
    rows: list[Item] = []
    for end in ends:
        stored = {
            "order": end.status != NEVER_PLACED,
            "orchestrator": end.saga is not None,
            "inventory": end.reservation is not None or end.quantity_held,
            "payment": end.payment is not None,
        }
        rows += (Row(service, end.order_id) for service, there in stored.items() if there)
    return rows + [Row("inventory", None, item) for item in recording.stock]


def _only(recording: Recording, orders: Sequence[str], kept: Sequence[Item]) -> Recording:
    """The recording as it would be if there were no other evidence about anything."""
    there = {id(item) for item in kept}
    rows = {item for item in kept if isinstance(item, Row)}
    concerned = frozenset(orders) & {item.order_id for item in kept}
    strikes = (strike for strike in recording.strikes if strike.kind != Kind.LOSE or id(strike) in there)
    return recording.model_copy(
        update={
            "trace": tuple(record for record in recording.trace if id(record) in there),
            "changes": tuple(change for change in recording.changes if id(change) in there),
            "dead_letters": tuple(letter for letter in recording.dead_letters if id(letter) in there),
            "strikes": tuple(strikes),
            "orders": tuple(_end(end, rows) for end in recording.orders if end.order_id in concerned),
            "stock": {
                item: free for item, free in recording.stock.items() if Row("inventory", None, item) in rows
            },
        }
    )


_STORED: Final[dict[str, dict[str, object]]] = {
    "order": {"status": NEVER_PLACED, "reason": None},
    "orchestrator": {"saga": None},
    "inventory": {"reservation": None, "quantity_held": 0},
    "payment": {"payment": None, "amount_cents": 0},
}
"""By service: what an order's end has of its row, as it is without one."""


def _end(end: OrderEnd, rows: set[Row]) -> OrderEnd:
    unknown: dict[str, object] = {}
    for service, nothing in _STORED.items():
        if Row(service, end.order_id) not in rows:
            unknown |= nothing
    return end.model_copy(update=unknown)


def _path(items: Sequence[Item], recording: Recording, orders: Sequence[str]) -> list[Item]:
    """The causes of the last that was told, and the rows of the orders; of several orders, only the rows."""
    rows: list[Item] = [item for item in items if isinstance(item, Row) and item.order_id is not None]
    records = [item for item in items if isinstance(item, TraceRecord)]
    if len(orders) != 1 or not records:
        return rows if orders else [Row("inventory", None, item) for item in recording.stock]
    by_id = {record.id: record for record in reversed(records)}
    path: list[Item] = []
    record: TraceRecord | None = records[-1]
    while record is not None and record not in path:
        path.insert(0, record)
        record = by_id.get(record.causation_id)
    return path + rows


def _at_ms(item: Item, placed_ms: float) -> float | None:
    """When it was, counted from the placing of its order."""
    if isinstance(item, Row):
        return None
    return item.at_ms - placed_ms if isinstance(item, Strike) else item.at_ms


def _line(item: Item, recording: Recording) -> HistoryLine:
    evidence, where, what = _told(item) if not isinstance(item, Row) else _stored(item, recording)
    ends = (end for end in recording.orders if end.order_id == item.order_id)
    placed_ms = next((end.placed_ms for end in ends), None) or 0.0
    return HistoryLine(
        evidence=evidence,
        order_id=item.order_id,
        at_ms=_at_ms(item, placed_ms),
        where=where,
        what=what.rstrip(),
    )


def _told(item: TraceRecord | StateChange | DeadLetterSeen | Strike) -> tuple[Evidence, str, str]:
    match item:
        case TraceRecord():
            body = " ".join(f"{name}={value}" for name, value in item.body.items() if name != "order_id")
            what = f"{item.type} {'(unreadable)' if item.poisoned else body}"
            return Evidence.RECORD, f"{item.producer}: {item.topic} {item.partition}@{item.offset}", what
        case DeadLetterSeen():
            where = f"{item.service}: {item.topic} {item.partition}@{item.offset}"
            return Evidence.DEAD_LETTER, where, f"{item.type} is given up: {item.error}"
        case StateChange():
            return Evidence.CHANGE, item.service, f"{item.from_status} to {item.to_status}"
        case Strike():
            return Evidence.LOST, item.service or "", f"{item.record_type} gets lost"


def _stored(row: Row, recording: Recording) -> tuple[Evidence, str, str]:
    if row.item is not None:
        return Evidence.ROW, row.service, f"{row.item}: {recording.stock[row.item]} free"
    end = next(end for end in recording.orders if end.order_id == row.order_id)
    shown = {
        "order": f"{end.status} for {end.reason}" if end.reason else end.status,
        "orchestrator": end.saga,
        "inventory": f"{end.reservation}, {end.quantity_held} held",
        "payment": f"{end.payment}, {end.amount_cents} cents",
    }
    return Evidence.ROW, row.service, f"{shown[row.service]}"
