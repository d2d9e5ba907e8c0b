"""Histories drawn from a seed: random orders and stock, any order of events, and mishaps.

Each history has only some kinds of mishaps, and its own rate of them: among many histories, that finds more
than having a little of everything in each (Groce et al., "Swarm Testing", ISSTA 2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Final, TypeVar

from compare.scenario import CancelSpec, Ending, ExpectedOrder, OrderSpec, RecoverySpec, Scenario
from compare.simulation.actions import BROKER, MISHAPS_OF, TIME_PASSES, Action, Mishap, Verb
from compare.simulation.drive import Calm
from compare.simulation.world import World

T = TypeVar("T")
Danger = Mishap | Verb
"""What may go wrong: something that happens to a service, or that the broker or time does."""

_ITEMS: Final = ("laptop", "phone")
_MOST_ORDERS: Final = 3
_STOCKS: Final = (0, 1, 2, 3, 4, 6)
_MOST_AT_ONCE: Final = 3
"""Records that a service takes in one transaction."""
_PRICES: Final = (Decimal(100), Decimal(250), Decimal(500), Decimal(501))
"""Of one piece: below the limit for payments, below it for a single piece only, at the limit, and above."""
_MOST_STEPS: Final = 300
"""Until then it goes wild; after that, it is to come to its end."""
_MOST_MISHAPS: Final = 6
_MOST_AGAIN: Final = 6
"""How often the same may go wrong again: more than any scenario drawn here has tries."""
_RATES: Final = (0.05, 0.15, 0.3)
_KINDS: Final = (0.1, 0.25, 0.5)
"""The part of all kinds of mishaps that a history has: with few, the same happens more often."""
_AGAIN: Final = (0.0, 0.5, 1.0)
_MOST_PAUSES: Final = 4
_WAY_BACK: Final = (
    "OrderAborted",
    "RefundPayment",
    "PaymentRefunded",
    "ReleaseInventory",
    "InventoryReleased",
    "CancelPayment",
)
"""What the names of records begin with that undo something, or tell that it is undone."""
_NAMES: Final = ("order", "orchestrator", "inventory", "payment")
_TELLERS: Final = ("Order", "Inventory", "Payment")
"""What the names of events begin with, by the service that tells them."""
_IN_TURN: Final = 0.1
"""How often what lags behind is as fast as the others."""
_DANGERS: Final[tuple[Danger, ...]] = (*Mishap, Verb.REPEATS, Verb.LOSES, Verb.SPOILS, Verb.PASSES)


class Chance:
    """Draws; with the same seed always the same.

    Only `Random.random` is used, for that it stays the same in all versions of Python is promised for no
    other method.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - it is to be repeatable, and guards nothing

    def under(self, most: int) -> int:
        """A number from 0 to below `most`."""
        return int(self._random.random() * most)

    def happens(self, rate: float) -> bool:
        """True at this rate."""
        return self._random.random() < rate

    def pick(self, things: Sequence[T]) -> T:
        """One of them."""
        return things[self.under(len(things))]


def seed_of(seed: int, run: int) -> int:
    """The seed of one history of many."""
    return seed * 1_000_003 + run


def draw_scenario(chance: Chance, name: str) -> Scenario:
    """Some orders for not too much stock, so that they get in each other's way."""
    orders = tuple(_draw_order(chance) for _ in range(1 + chance.under(_MOST_ORDERS)))
    return Scenario(
        name=name,
        description="Drawn at random.",
        stock={item: chance.pick(_STOCKS) for item in _ITEMS[: 2 - chance.happens(0.3)]},
        orders=orders,
        recovery=RecoverySpec(
            retry_tries=1 + chance.under(3),
            undo_tries=1 + chance.under(3),
            deadline_tries=1 + chance.under(3),
        ),
        timeout=Decimal(600),
    )


def _draw_order(chance: Chance) -> OrderSpec:
    wants_out = chance.happens(0.3)
    return OrderSpec(
        item=chance.pick(_ITEMS),
        quantity=1 + chance.under(2),
        price=chance.pick(_PRICES),
        cancel=CancelSpec(at=Decimal(chance.under(2) * 15)) if wants_out else None,
        retry_compensation=Decimal(1) if chance.happens(0.5) else None,
        # Any end may be right; what it must not be is checked all the same.
        expect=ExpectedOrder(status=Ending.COMPLETED),
    )


class Whim:
    """Whatever may happen next, at random, with mishaps."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        kinds = chance.pick(_KINDS)
        self._dangers = [danger for danger in _DANGERS if chance.happens(kinds)]
        self._in_pairs = chance.happens(0.3)
        """Whether second instances of services take part."""
        self._rate = chance.pick(_RATES)
        self._again = chance.pick(_AGAIN)
        """How likely what has gone wrong is to go wrong again, whenever it is tried.

        That is what exhausts the patience of whoever tries."""
        self._lasting: dict[Action, int] = {}
        """What goes wrong again, by the first time that it did: how often it still may."""
        self._pauses = 0
        """How often time is to pass before anybody takes anything."""
        self._laggards = [name for name in _NAMES if chance.happens(0.2)]
        """Services that mostly let the others go first."""
        self._late = tuple(of for of in _TELLERS if chance.happens(0.15))
        """What the names of records begin with that mostly come after the others: topics have no order."""
        self._mishaps = 0
        self._steps = 0
        self._calm = Calm()

    def step(self, world: World) -> Action | None:
        """Have one thing happen."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            return self._calm.step(world)
        if (again := self._same_again(world) or self._pause(world)) is not None:
            return again
        if self._dangers and self._mishaps < _MOST_MISHAPS and self._chance.happens(self._rate):
            action = self._danger(world)
            if action is not None and world.do(action):
                self._mishaps += 1
                if self._chance.happens(self._again):
                    self._go_on_with(action)
                return action
        action = self._any(world)
        if action is not None and not world.do(action):
            message = f"{action} was to be possible, but isn't."
            raise AssertionError(message)
        return action

    def _go_on_with(self, action: Action) -> None:
        """Have what went wrong last."""
        if action == TIME_PASSES:
            self._pauses = 1 + self._chance.under(_MOST_PAUSES)
        elif action.mishap in {Mishap.FAILS, Mishap.FAILS_FOR_GOOD} or action.verb in {
            Verb.LOSES,
            Verb.SPOILS,
        }:
            self._lasting[action] = _MOST_AGAIN

    def _pause(self, world: World) -> Action | None:
        """Time passing, again, and deadlines with it, before anybody takes anything."""
        if not self._pauses:
            return None
        action = next((one for one in world.enabled() if one.verb is Verb.WAKES), TIME_PASSES)
        self._pauses -= action == TIME_PASSES
        return action if world.do(action) else None

    def _same_again(self, world: World) -> Action | None:
        """What has gone wrong before, with the same message when it is told again."""
        for action, left in self._lasting.items():
            if any((Verb.RETRIES, number) in world.now_is.asked for number in action.orders):
                continue  # the operator has mended it
            told = {subject.partition("~")[0] for subject in action.subjects}
            if action.actor == BROKER:
                names = world.touchable()
            else:
                wake = Action(action.actor, Verb.WAKES, (), action.mishap)
                if action.mishap is Mishap.FAILS and left and world.do(wake):
                    self._lasting[action] -= 1
                    return wake
                names = [one.subjects[0] for one in world.takes() if one.actor == action.actor]
            for name in names:
                again = replace(action, subjects=(name,))
                if name.partition("~")[0] in told and left and world.do(again):
                    self._lasting[action] -= 1
                    return again
        return None

    def _any(self, world: World) -> Action | None:
        """One of all that may happen with nothing going wrong."""
        found = world.enabled()
        if not found:
            return None
        if self._laggards and not self._chance.happens(_IN_TURN):
            found = [one for one in found if one.actor not in self._laggards] or found
        if self._late and not self._chance.happens(_IN_TURN):
            found = [one for one in found if not "".join(one.subjects).startswith(self._late)] or found
        action = self._chance.pick(found)
        if action.verb is not Verb.TAKES:
            return action
        return (
            self._beside(world, action)
            if self._in_pairs and self._chance.happens(0.3)
            else self._batch(world, action)
        )

    def _batch(self, world: World, action: Action) -> Action:
        """Some more records for the same transaction."""
        subjects, most = action.subjects, 1 + self._chance.under(_MOST_AT_ONCE)
        while len(subjects) < most:
            following = world.following(action.actor, subjects)
            if not following:
                break
            subjects = (*subjects, self._chance.pick(following))
        return Action(action.actor, Verb.TAKES, subjects)

    def _beside(self, world: World, action: Action) -> Action:
        """Another order's record for a second instance, if there is one."""
        following = world.following(action.actor, action.subjects)
        others = [
            name for name in following if action.orders.isdisjoint(Action("", Verb.TAKES, (name,)).orders)
        ]
        if not others:
            return action
        return Action(action.actor, Verb.TAKES, action.subjects, beside=(self._chance.pick(others),))

    def _danger(self, world: World) -> Action | None:
        """Something going wrong."""
        danger = self._chance.pick(self._dangers)
        if isinstance(danger, Mishap):
            hit = [action for action in world.enabled() if danger in MISHAPS_OF.get(action.verb, ())]
            if not hit:
                return None
            undoing = [action for action in hit if any(map(_undoes, action.subjects))]
            action = self._chance.pick(self._rather(undoing, hit))
            if action.verb is Verb.TAKES:
                action = self._batch(world, action)
            return Action(action.actor, action.verb, action.subjects, danger)
        if danger is Verb.PASSES:
            return TIME_PASSES
        names = world.repeatable() if danger is Verb.REPEATS else world.touchable()
        if not names:
            return None
        return Action(BROKER, danger, (self._chance.pick(self._rather([*filter(_undoes, names)], names)),))

    def _rather(self, some: Sequence[T], all_: Sequence[T]) -> Sequence[T]:
        """Some of them in half of all cases, if there are any."""
        return some if some and self._chance.happens(0.5) else all_


def _undoes(name: str) -> bool:
    """Whether a record is of the way back, which is seldom gone."""
    return name.startswith(_WAY_BACK)
