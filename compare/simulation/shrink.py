"""The smallest history that still goes wrong.

Orders are left out, then actions, by delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", 2002), then what is left of both is made plainer. Any part of a schedule is one, too
(see `drive.Schedule`), so whatever is left out, the rest can be tried: what has to happen in between does so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final, NamedTuple

from compare.scenario import OrderSpec, RecoverySpec, Scenario
from compare.simulation.actions import BROKER, MISHAPS_OF, TIME_PASSES, Action, Verb
from compare.simulation.drive import MOST_STEPS, Anomaly, Calm, History, Schedule, drive, simulated_plan
from compare.simulation.world import World

MOST_TRIES: Final = 600
"""Histories that are tried before the smallest one so far has to do."""
_STEPS: Final = 100
_STEPS_OF_AN_ORDER: Final = 60
"""More than any history that ends has had; of one that doesn't, not every trial need be that long."""
_NUMBER: Final = re.compile(r"(?<=\()[0-9]+(?=\))")
_PLAIN: Final = {"quantity": 1, "price": Decimal(100), "cancel": None, "retry_compensation": None}
"""By field of an order: the plainest that it can be."""

Told = Callable[[int], None]
"""Is told how many histories have been tried."""


class Shrunk(NamedTuple):
    """A history, and the part of its actions that makes it what it is."""

    history: History
    schedule: tuple[Action, ...]


def shrink(world: World, history: History, told: Told = lambda _tries: None) -> Shrunk:
    """The smallest history found that has one of the same anomalies.

    Small is, in this order: few orders, few of the scenario's own faults, few mishaps, few other actions in
    the schedule. The same history always shrinks to the same one.

    What is left out first decides what can be left out after it, so it is done twice: actions are left out
    from the end of the schedule on, since what comes later has come about by what is before it, which takes
    few tries; and from its beginning, with the tries that are left.
    """
    tries = _Tries(told)
    searches = [_Search(world, history, tries, from_end=from_end) for from_end in (True, False)]
    for search in searches:
        while search.improved():
            search.leave_out_orders()
            search.leave_out_faults()
            search.have_less_patience()
            search.leave_out_actions()
            search.make_actions_plainer()
            search.have_one_thing_go_wrong()
            search.make_orders_plainer()
    smallest = min(searches, key=_Search.size)
    return Shrunk(smallest.best, smallest.schedule)


class _Tries:
    """Counts how many histories have been tried."""

    def __init__(self, told: Told) -> None:
        self._count = 0
        self._told = told

    @property
    def left(self) -> bool:
        """Whether there may be another."""
        return self._count < MOST_TRIES

    def one_more(self) -> None:
        """Count one."""
        self._count += 1
        self._told(self._count)


class _Search:
    def __init__(self, world: World, history: History, tries: _Tries, *, from_end: bool) -> None:
        self.best = history
        self.scenario = history.scenario
        self.schedule = history.actions
        self._world = world
        self._tries = tries
        self._from_end = from_end
        self._anomalies: frozenset[Anomaly] = history.anomalies
        self._rules = history.plan.rules
        self._size: tuple[int, ...] | None = None

    def improved(self) -> bool:
        """Whether there is anything smaller since this was last asked, and time to go on."""
        before, self._size = self._size, self.size()
        return self._size != before and self._tries.left

    def size(self) -> tuple[int, ...]:
        """How small the best so far is."""
        return (
            len(self.scenario.orders),
            len(self.scenario.faults) + self.scenario.deliveries,
            *_weight(self.schedule),
            self._plainness(),
        )

    def leave_out_orders(self) -> None:
        """Leave out one order after the other."""
        for index in reversed(range(len(self.scenario.orders))):
            if len(self.scenario.orders) > 1:
                self._try(*_without_order(self.scenario, self.schedule, index))

    def leave_out_faults(self) -> None:
        """Leave out one of the scenario's own faults after the other, and its repeated deliveries."""
        for index in reversed(range(len(self.scenario.faults))):
            faults = (*self.scenario.faults[:index], *self.scenario.faults[index + 1 :])
            self._try(self.scenario.model_copy(update={"faults": faults}), self.schedule)
        if self.scenario.deliveries > 1:
            self._try(self.scenario.model_copy(update={"deliveries": 1}), self.schedule)

    def have_less_patience(self) -> None:
        """Have everything tried once only, so that a single mishap is enough to have it given up."""
        if self.scenario.recovery != RecoverySpec():
            once = RecoverySpec(retry_tries=1, undo_tries=1, deadline_tries=1)
            if self.scenario.recovery != once:
                self._try(self.scenario.model_copy(update={"recovery": once}), self.schedule)

    def have_one_thing_go_wrong(self) -> None:
        """Have a single thing go wrong, in place of all that there is in the schedule.

        A record gets lost, or is spoiled, or what happens to a service in the schedule happens elsewhere:
        what was drawn first may be far down the way, and the same go wrong in the first step.
        """
        if len(self.schedule) <= 1:
            return
        mishaps = dict.fromkeys(action.mishap for action in self.schedule if action.mishap is not None)
        calm = drive(self._world, simulated_plan(self.scenario, self._rules), Calm()).actions
        for mishap in mishaps:
            for action in calm:
                fits = mishap in MISHAPS_OF.get(action.verb, ())
                if fits and self._try(self.scenario, (replace(action, mishap=mishap),)):
                    return
        told = dict.fromkeys((one.type, self._number(one.order_id)) for one in self.best.recording.trace)
        for verb in (Verb.LOSES, Verb.SPOILS):
            for kind, number in told:
                if self._try(self.scenario, (Action(BROKER, verb, (f"{kind}({number})",)),)):
                    return

    def _number(self, order_id: str) -> int:
        return next(one.number for one in self.best.recording.orders if one.order_id == order_id)

    def leave_out_actions(self) -> None:
        """Leave out as much of the schedule as can be left out, in ever smaller parts."""
        size = len(self.schedule)
        while size:
            needed = 0  # so many, on the side from which it is begun
            while needed < len(self.schedule):
                at = len(self.schedule) - needed - size if self._from_end else needed
                shorter = self.schedule[: max(0, at)] + self.schedule[at + size :]
                if not self._try(self.scenario, shorter):
                    needed += size
            size //= 2

    def make_actions_plainer(self) -> None:
        """Have less happen in an action: no mishap, one record instead of several."""
        for index in range(len(self.schedule)):
            for plainer in _plainer(self.schedule[index]):
                schedule = (*self.schedule[:index], *plainer, *self.schedule[index + 1 :])
                if _weight(schedule) < _weight(self.schedule) and self._try(self.scenario, schedule):
                    break

    def make_orders_plainer(self) -> None:
        """Have each order be for one piece at a plain price, with no wishes, and the stock be small."""
        for index in range(len(self.scenario.orders)):
            for field, value in _PLAIN.items():
                spec = self.scenario.orders[index]
                if getattr(spec, field) != value:
                    self._try(
                        _with_order(self.scenario, index, spec.model_copy(update={field: value})),
                        self.schedule,
                    )
        wanted = {spec.item for spec in self.scenario.orders}
        for item, pieces in self.scenario.stock.items():
            if item not in wanted:
                stock = {one: left for one, left in self.scenario.stock.items() if one != item}
                self._try(self.scenario.model_copy(update={"stock": stock}), self.schedule)
            elif pieces > 1:
                self._try(
                    self.scenario.model_copy(update={"stock": {**self.scenario.stock, item: 1}}),
                    self.schedule,
                )
        if self.scenario.recovery != RecoverySpec():
            self._try(self.scenario.model_copy(update={"recovery": RecoverySpec()}), self.schedule)

    def _try(self, scenario: Scenario, schedule: Sequence[Action]) -> bool:
        """Whether it still goes wrong in this smaller way; then it is the best so far."""
        if not self._tries.left:
            return False
        self._tries.one_more()
        history = drive(
            self._world,
            simulated_plan(scenario, self._rules),
            Schedule(schedule),
            most_steps=min(MOST_STEPS, _STEPS + _STEPS_OF_AN_ORDER * scenario.total_orders),
        )
        if history.anomalies.isdisjoint(self._anomalies):
            return False
        self.best, self.scenario, self.schedule = history, scenario, tuple(schedule)
        return True

    def _plainness(self) -> int:
        wishes = [
            getattr(spec, field) != value for spec in self.scenario.orders for field, value in _PLAIN.items()
        ]
        return wishes.count(True) + sum(self.scenario.stock.values())


def _weight(schedule: Sequence[Action]) -> tuple[int, int, int]:
    """How much there is in a schedule: mishaps, actions, records.

    That time passes is a mishap there, for it passes by itself once there is nothing else to do.
    """
    mishaps = sum(action.kind is not None or action == TIME_PASSES for action in schedule)
    return mishaps, len(schedule), sum(len(action.subjects) + len(action.beside) for action in schedule)


def _plainer(action: Action) -> Iterator[tuple[Action, ...]]:
    """What an action may be replaced by, the plainest first."""
    if action.beside:
        yield (replace(action, beside=()),)
    if action.mishap is not None:
        yield (replace(action, mishap=None),)
    if action.verb is Verb.TAKES:
        for index in range(len(action.subjects)):
            if len(action.subjects) > 1:
                yield (replace(action, subjects=action.subjects[:index] + action.subjects[index + 1 :]),)


def _without_order(
    scenario: Scenario, schedule: Sequence[Action], index: int
) -> tuple[Scenario, tuple[Action, ...]]:
    """Leave out an order with all that happens to it; those behind it move up."""
    counts = [spec.count for spec in scenario.orders]
    first = sum(counts[:index]) + 1
    gone = range(first, first + counts[index])
    orders = (*scenario.orders[:index], *scenario.orders[index + 1 :])
    left = []
    for action in schedule:
        subjects = _moved(action.subjects, gone)
        beside = _moved(action.beside, gone)
        if len(subjects) == len(action.subjects) == 0 or subjects:
            left.append(replace(action, subjects=subjects, beside=beside))
    names = {spec.name for spec in orders}
    alone = tuple(spec if spec.after in names else spec.model_copy(update={"after": None}) for spec in orders)
    faults = tuple(fault for fault in scenario.faults if fault.order is None or fault.order in names)
    return scenario.model_copy(update={"orders": alone, "faults": faults}), tuple(left)


def _moved(names: Sequence[str], gone: range) -> tuple[str, ...]:
    """The names that are of none of the orders that are gone, as they are without those."""
    found = []
    for name in names:
        match = _NUMBER.search(name)
        number = int(match[0] if match else name)
        if number in gone:
            continue
        moved = str(number - len(gone) if number >= gone.stop else number)
        found.append(_NUMBER.sub(moved, name) if match else moved)
    return tuple(found)


def _with_order(scenario: Scenario, index: int, spec: OrderSpec) -> Scenario:
    orders = (*scenario.orders[:index], spec, *scenario.orders[index + 1 :])
    return scenario.model_copy(update={"orders": orders})
