"""Histories drawn from a seed: random orders and stock, any order of events, and mishaps.

Each history has only some kinds of mishaps, and its own rate of them: among many histories, that finds more
than having a little of everything in each (Groce et al., "Swarm Testing", ISSTA 2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Final, TypeVar

from compare.scenario import CancelSpec, Ending, ExpectedOrder, OrderSpec, RecoverySpec, Scenario
from compare.simulation.actions import BROKER, TIME_PASSES, Action, Mishap, Verb
from compare.simulation.drive import Calm
from compare.simulation.world import World

T = TypeVar("T")
Danger = Mishap | Verb
"""What may go wrong: something that happens to a service, or that the broker or time does."""

_ITEMS: Final = ("laptop", "phone")
_MOST_ORDERS: Final = 3
_MOST_IN_STOCK: Final = 3
_MOST_AT_ONCE: Final = 3
"""Records that a service takes in one transaction."""
_PRICES: Final = (Decimal(100), Decimal(250), Decimal(500), Decimal(501))
"""Of one piece: below the limit for payments, below it for a single piece only, at the limit, and above."""
_MOST_STEPS: Final = 300
"""Until then it goes wild; after that, it is to come to its end."""
_MOST_MISHAPS: Final = 6
_RATES: Final = (0.03, 0.1, 0.25)
_BESIDE: Final = "beside"
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
        stock={item: chance.under(_MOST_IN_STOCK + 1) for item in _ITEMS[: 1 + chance.under(len(_ITEMS))]},
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
        self._dangers = [danger for danger in _DANGERS if chance.happens(0.4)]
        self._in_pairs = chance.happens(0.3)
        """Whether second instances of services take part."""
        self._rate = chance.pick(_RATES)
        self._mishaps = 0
        self._steps = 0
        self._calm = Calm()

    def step(self, world: World) -> Action | None:
        """Have one thing happen."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            return self._calm.step(world)
        if self._dangers and self._mishaps < _MOST_MISHAPS and self._chance.happens(self._rate):
            action = self._danger(world)
            if action is not None and world.do(action):
                self._mishaps += 1
                return action
        action = self._any(world)
        if action is not None and not world.do(action):
            message = f"{action} was to be possible, but isn't."
            raise AssertionError(message)
        return action

    def _any(self, world: World) -> Action | None:
        """One of all that may happen with nothing going wrong."""
        found = world.enabled()
        if not found:
            return None
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
            hit = [
                action
                for action in world.enabled()
                if action.verb is Verb.TAKES or (action.verb in _OTHERS_HIT and danger not in _ONLY_TAKING)
            ]
            if not hit:
                return None
            action = self._chance.pick(hit)
            if action.verb is Verb.TAKES:
                action = self._batch(world, action)
            return Action(action.actor, action.verb, action.subjects, danger)
        if danger is Verb.PASSES:
            return TIME_PASSES
        names = world.repeatable() if danger is Verb.REPEATS else world.touchable()
        return Action(BROKER, danger, (self._chance.pick(names),)) if names else None


_OTHERS_HIT: Final = frozenset({Verb.PLACES, Verb.CANCELS, Verb.RETRIES, Verb.WAKES})
_ONLY_TAKING: Final = frozenset({Mishap.FAILS, Mishap.FAILS_FOR_GOOD, Mishap.STALLS})
