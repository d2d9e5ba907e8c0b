"""The order in which the records of one order make a story: what led to what, and what came before.

A clock alone can't tell: clocks differ between services, and one may be set back. Nor can the chain of causes
alone: what a deadline or an operator has told descends from something long past. So a record comes behind its
cause, and behind what was on its partition of its topic before; among those of which neither says anything,
the time of the decision tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, pairwise
from typing import Final, NamedTuple

from compare.recording import StateChange, TraceRecord

_SAME_MOMENT_MS: Final = 0.01
"""Two times of one moment may differ by what rounding has done to them."""


class Told(NamedTuple):
    """What has to be known of a record to find its place."""

    at: float
    topic: str
    partition: int
    offset: int
    id: str
    causation_id: str


def story_order(records: Sequence[Told]) -> list[int]:
    """The places of one order's records in the sequence that was given, in the order of the story."""
    after = _after(records)
    waits_for = [0] * len(records)
    for followers in after.values():
        for follower in followers:
            waits_for[follower] += 1
    ready = [(record, index) for index, record in enumerate(records) if not waits_for[index]]
    heapify(ready)
    order: list[int] = []
    placed: set[int] = set()
    while len(order) < len(records):
        if not ready:  # records that claim to have caused each other
            ready = [min((record, index) for index, record in enumerate(records) if index not in placed)]
        _, index = heappop(ready)
        if index in placed:
            continue
        placed.add(index)
        order.append(index)
        for follower in after[index]:
            waits_for[follower] -= 1
            if not waits_for[follower]:
                heappush(ready, (records[follower], follower))
    return order


def _after(records: Sequence[Told]) -> dict[int, set[int]]:
    """By record: those that come behind it, for it caused them or was before them on their partition."""
    after: dict[int, set[int]] = defaultdict(set)
    by_place = sorted(range(len(records)), key=lambda index: records[index][1:4])
    first: dict[str, int] = {}
    for index in by_place:
        first.setdefault(records[index].id, index)
    for before, index in pairwise(by_place):
        if records[before][1:3] == records[index][1:3]:
            after[before].add(index)
    for index, record in enumerate(records):
        cause = first.get(record.causation_id)
        if cause is not None and cause != index:
            after[cause].add(index)
    return after


def changes_by_record(
    trace: Sequence[TraceRecord], changes: Sequence[StateChange]
) -> tuple[dict[int, list[StateChange]], list[StateChange]]:
    """By the place of a record in its order's trace: the changes to show with it; and those that fit none.

    A change stands with the record that caused it; the first record also has what came of the request
    itself. What a deadline or an operator has changed later on, because of the same message, stands with the
    record that was told of it.
    """
    shown: dict[int, list[StateChange]] = defaultdict(list)
    homeless: list[StateChange] = []
    seen: set[tuple[str, str]] = set()
    for change in changes:
        told = _told_with(trace, change) if (change.service, change.cause_id) in seen else None
        seen.add((change.service, change.cause_id))
        place = _cause_of(trace, change) if told is None else told
        if place is None:
            homeless.append(change)
        else:
            shown[place].append(change)
    return shown, homeless


def _told_with(trace: Sequence[TraceRecord], change: StateChange) -> int | None:
    for index, record in enumerate(trace):
        at_once = abs(record.at_ms - change.at_ms) < _SAME_MOMENT_MS
        if record.causation_id == change.cause_id and record.producer == change.service and at_once:
            return index
    return None


def _cause_of(trace: Sequence[TraceRecord], change: StateChange) -> int | None:
    """The record that caused a change: of its tellings, the first that could be read."""
    tellings = [index for index, record in enumerate(trace) if record.id == change.cause_id]
    if not tellings and change.cause_id == change.order_id:
        tellings = [index for index, record in enumerate(trace) if record.causation_id == change.cause_id][:1]
    readable = (index for index in tellings if not trace[index].poisoned)
    return next(chain(readable, tellings), None)
