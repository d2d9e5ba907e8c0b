"""All histories of a saga, not some: every order of events, with a crash at every boundary of everything.

What may happen next is a tree, in which the same states come again and again. A state is gone on from once
only; what is known of it then (how many histories lead on from there, and to what ends) is remembered. See
"Why the sweep is sound" in docs/simulation.md for what is left out, and why nothing is lost by it.

Sources: Godefroid, "Model Checking for Programming Languages using VeriSoft" (POPL 1997); Yang et al.,
"MODIST: Transparent Model Checking of Unmodified Distributed Systems" (NSDI 2009).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from time import monotonic
from typing import Final, NamedTuple

from common.domain.decision import Rules
from common.messages import Step
from common.wiring import DEAD_LETTERS, Mode
from compare.simulation.actions import BROKER, DEATHS, TIME_PASSES, Action, Mishap, Verb
from compare.simulation.broker import Place
from compare.simulation.drive import Anomaly, conclude, simulated_plan
from compare.simulation.memoised import RememberingWorld
from compare.simulation.protections import Protection
from compare.simulation.sagas import Saga
from compare.simulation.world import World

MOST_STATES: Final = 1_000_000
MOST_STEPS: Final = 300
WAKE: Final = "(wake)"
"""In place of a step: a service goes on with what is due."""
START: Final = "(start)"
"""In place of a step: a service publishes what an earlier life of it has left."""
CRASHES: Final = (*DEATHS, Mishap.STALLS)
"""What is meant by a crash here."""
_WHILE_STARTING: Final = (
    Mishap.DIES_COMMITTED,
    Mishap.DIES_PUBLISHING,
    Mishap.DIES_PUBLISHED,
    Mishap.DIES_ACKNOWLEDGED,
)
"""To die there before is to be as dead as before."""
_TOLD_EVERY: Final = 100
_FRAMES: Final = 20
"""For each action of a history, with room to spare for what is done in the last one."""


class Outcome(StrEnum):
    """How a history can end."""

    CONVERGED = "converged"
    STUCK = "stuck"
    LEAKED = "leaked"
    DOUBLED = "doubled"
    OTHER = "other"


OUTCOME_OF: Final[Mapping[Anomaly, Outcome]] = {
    Anomaly.STUCK: Outcome.STUCK,
    Anomaly.LEAKED_STOCK: Outcome.LEAKED,
    Anomaly.LEAKED_MONEY: Outcome.LEAKED,
    Anomaly.UNPAID: Outcome.LEAKED,
    Anomaly.DOUBLE_CHARGE: Outcome.DOUBLED,
    Anomaly.OVERSELL: Outcome.DOUBLED,
    Anomaly.REPEATED: Outcome.DOUBLED,
    Anomaly.RESURRECTED: Outcome.DOUBLED,
}
"""By anomaly: the outcome that it is; all others are OTHER."""


@dataclass(frozen=True)
class Bounds:
    """How much may go wrong in one history, and how far to look at all."""

    crashes: int = 1
    repeats: int = 1
    early: int = 0
    losses: int = 0
    most_steps: int = MOST_STEPS
    most_states: int = MOST_STATES
    most_seconds: float | None = None


class Left(NamedTuple):
    """What may still go wrong in a history."""

    crashes: int
    repeats: int
    early: int
    losses: int


class Spot(NamedTuple):
    """Where a crash strikes."""

    step: str
    """The step that the service carries out, or of which it learns; or `WAKE` or `START`."""
    at: Mishap


@dataclass
class Cell:
    """What came of all crashes at one spot."""

    crashes: int = 0
    """How many: each in a state of its own."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    """By outcome: after how many of those it can come to it; after one crash, to several."""


@dataclass(frozen=True)
class Swept:
    """What came of one saga in one mode."""

    mode: str
    saga: str
    histories: int
    states: int
    ends: int
    seconds: float
    stopped_by: str | None
    """What has kept it from some histories, such as a bound's option; None if it has seen all of them."""
    outcomes: Mapping[Outcome, int]
    """By outcome: how many ends."""
    cells: Mapping[Spot, Cell]
    examples: Mapping[Anomaly, tuple[Action, ...]]
    """By anomaly: the shortest of the histories that show it."""

    @property
    def exhausted(self) -> bool:
        """Whether it has seen all histories."""
        return self.stopped_by is None

    @property
    def converges(self) -> bool:
        """Whether no end was found that is wrong."""
        return not self.examples


class _Way(NamedTuple):
    """Some actions, and what comes after them."""

    length: int
    actions: tuple[Action, ...]
    after: _Way | None

    def all(self) -> tuple[Action, ...]:
        """From here to the end."""
        found: list[Action] = []
        way: _Way | None = self
        while way is not None:
            found += way.actions
            way = way.after
        return tuple(found)


@dataclass(slots=True)
class _Ahead:
    """What can come of a state."""

    open: bool = False
    """Whether it isn't all known yet."""
    histories: int = 0
    outcomes: frozenset[Outcome] = frozenset()
    ways: dict[Anomaly, _Way] = field(default_factory=dict)
    """The shortest to each anomaly."""

    def add(self, ahead: _Ahead, *actions: Action, times: int = 1) -> None:
        """Add what can come of it after those actions, of which there are so many that lead to the same."""
        self.histories += times * ahead.histories
        self.outcomes |= ahead.outcomes
        for anomaly, way in ahead.ways.items():
            length = way.length + len(actions)
            if anomaly not in self.ways or length < self.ways[anomaly].length:
                self.ways[anomaly] = _Way(length, actions, way)


class _Edge(NamedTuple):
    """Something that may happen next."""

    action: Action
    left: Left
    spots: tuple[Spot, ...] = ()
    """Where it strikes, if it is a crash; several if crashes there lead to the same."""


class _EnoughError(Exception):
    """What was looked for is found."""


def sweep(  # noqa: PLR0913 - what is not about the saga has defaults, and is named where it is given
    mode: Mode,
    saga: Saga,
    bounds: Bounds,
    protections: frozenset[Protection] = frozenset(),
    told: Callable[[int], object] = lambda _: None,
    *,
    rules: Rules | None = None,
    first_only: bool = False,
) -> Swept:
    """Go through all histories of a saga; those `protections` are taken away.

    `told` is now and then told how many states there were so far. With `first_only`, the first history that
    goes wrong is the last.
    """
    # A history is followed by recursion, a few frames deep for each of its actions.
    world, limit = RememberingWorld(mode, protections), sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _FRAMES * bounds.most_steps))
    try:
        return _Sweep(world, saga, bounds, told, first_only=first_only).run(rules or Rules())
    finally:
        sys.setrecursionlimit(limit)
        world.close()


def _spent(left: Left, strike: Action) -> Left | None:
    """What may still go wrong after a strike of the broker's; None if it may not strike so."""
    if strike.verb is Verb.LOSES:
        return left._replace(losses=left.losses - 1) if left.losses else None
    return left._replace(repeats=left.repeats - 1) if left.repeats else None


class _Sweep:
    def __init__(
        self, world: World, saga: Saga, bounds: Bounds, told: Callable[[int], object], *, first_only: bool
    ) -> None:
        self._world = world
        self._saga = saga
        self._bounds = bounds
        self._told = told
        self._first_only = first_only
        self._known: dict[tuple[bytes, Left], _Ahead] = {}
        self._judged: dict[bytes, _Ahead] = {}
        self._outcomes: Counter[Outcome] = Counter()
        self._cells: dict[Spot, Cell] = {}
        self._path: list[Action] = []
        self._first: dict[Anomaly, _Way] = {}
        self._stopped_by: str | None = None
        self._began = monotonic()
        self._steps_of = {
            (wiring.name, row.message.__name__): row.command.STEP
            for wiring in world.mode.services
            for row in wiring.reactions
        }

    def run(self, rules: Rules) -> Swept:
        bounds, saga = self._bounds, self._saga
        self._world.begin(simulated_plan(saga.scenario, rules))
        left = Left(
            bounds.crashes, bounds.repeats, max(bounds.early, saga.early), max(bounds.losses, saga.losses)
        )
        try:
            ahead = self._follow(left)
        except _EnoughError:
            ahead = _Ahead(ways=self._first)
            self._stopped_by = "the first that goes wrong"
        return Swept(
            mode=self._world.mode.name,
            saga=saga.name,
            histories=ahead.histories,
            states=len(self._known),
            ends=len(self._judged),
            seconds=monotonic() - self._began,
            stopped_by=self._stopped_by,
            outcomes=self._outcomes,
            cells={spot: self._cells[spot] for spot in sorted(self._cells)},
            examples={anomaly: ahead.ways[anomaly].all() for anomaly in sorted(ahead.ways)},
        )

    def _follow(self, left: Left) -> _Ahead:
        """What can come of the state that the world is in."""
        print_ = self._world.fingerprint()
        key = (print_, left)
        known = self._known.get(key)
        if known is not None:
            if known.open:
                message = f"{self._path[-1]} leads back to a state before it."
                raise AssertionError(message)
            return known
        bound = self._bound()
        if bound is not None:
            self._stopped_by = bound
            return _Ahead()
        edges = self._needed(list(self._edges(left)))
        ahead = self._known[key] = _Ahead(open=True)
        if len(self._known) % _TOLD_EVERY == 0:
            self._told(len(self._known))
        if not edges:
            ahead.add(self._judge(print_))
        here = self._world.snapshot() if len(edges) > 1 else None
        for index, edge in enumerate(edges):
            if index and here is not None:
                self._world.put_back(here)
            self._take(edge, ahead)
        ahead.open = False
        return ahead

    def _take(self, edge: _Edge, ahead: _Ahead) -> None:
        """Add what can come of one thing happening."""
        action = edge.action
        before = self._lengths()
        self._path.append(action)
        try:
            self._do(action)
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what these histories are to show
            after = self._broken(error)
        else:
            after = self._struck(action, before, edge.left)
        self._path.pop()
        ahead.add(after, action, times=max(1, len(edge.spots)))
        for spot in edge.spots:
            cell = self._cells.setdefault(spot, Cell())
            cell.crashes += 1
            cell.outcomes.update(sorted(after.outcomes))

    def _do(self, action: Action) -> None:
        if not self._world.do(action):
            message = f"{action} was to be possible, but isn't."
            raise AssertionError(message)

    def _struck(self, action: Action, before: Mapping[Place, int], left: Left) -> _Ahead:
        """What can come of the state that the world is in, and of what may happen to records just told."""
        return self._strike_on(list(self._strikes(action, before, left)), left)

    def _strike_on(self, strikes: Sequence[Action], left: Left) -> _Ahead:
        """What can come of none, one or several of these; losses are first, and none is done twice."""
        possible = [index for index, strike in enumerate(strikes) if _spent(left, strike) is not None]
        if not possible:
            return self._follow(left)
        here = self._world.snapshot()
        ahead = _Ahead()
        ahead.add(self._follow(left))
        for index in possible:
            strike, after = strikes[index], _spent(left, strikes[index])
            self._world.put_back(here)
            # What is lost by now can't be repeated.
            if after is not None and self._world.do(strike):
                self._path.append(strike)
                ahead.add(self._strike_on(strikes[index + 1 :], after), strike)
                self._path.pop()
        return ahead

    def _strikes(self, action: Action, before: Mapping[Place, int], left: Left) -> Iterator[Action]:
        """What the broker may do to records right after an action.

        Whatever else it could do later would be the same as if it had done it here, or after an action in
        between: a record gets lost before anybody has read it, so as soon as it is told. A record that
        comes once more stands behind all that are in its partition; nobody can tell when it came, but by what
        came to the partition since. If time has passed, it may be another time.
        """
        if not left.repeats and not left.losses:
            return
        logs = self._world.now_is.broker.logs
        passed = action.verb is Verb.PASSES
        grown = [place for place in sorted(logs) if passed or len(logs[place]) > before[place]]
        grown = [place for place in grown if not place[0].endswith(DEAD_LETTERS)]
        if left.losses:
            fresh = dict.fromkeys(one.name for place in grown for one in logs[place][before[place] :])
            touchable = self._world.touchable()
            for name in fresh:
                if name in touchable:
                    yield Action(BROKER, Verb.LOSES, (name,))
        if left.repeats:
            there = dict.fromkeys(one.name for place in grown for one in logs[place] if not one.lost)
            for name in there:
                yield Action(BROKER, Verb.REPEATS, (name,))

    def _edges(self, left: Left) -> Iterator[_Edge]:
        """All that may happen next: first with nothing going wrong."""
        enabled = self._world.enabled()
        yield from (_Edge(action, left) for action in enabled)
        if left.early and enabled and enabled != [TIME_PASSES] and self._world.due() is not None:
            yield _Edge(TIME_PASSES, left._replace(early=left.early - 1))
        if not left.crashes:
            return
        after = left._replace(crashes=left.crashes - 1)
        for action in enabled:
            step = self._step(action)
            if step is None:
                continue
            for mishap in _WHILE_STARTING if step == START else CRASHES:
                if mishap is Mishap.DIES_DECIDED:
                    continue  # it leads to the same as dying before
                at = (mishap, Mishap.DIES_DECIDED) if mishap is Mishap.DIES_BEFORE else (mishap,)
                yield _Edge(replace(action, mishap=mishap), after, tuple(Spot(step, one) for one in at))

    def _needed(self, edges: list[_Edge]) -> list[_Edge]:
        """Those of which all that may come of any is to be seen.

        A service that has died, and has nothing left to publish, may just as well start at once: nobody else
        can tell the difference, and nothing that they do makes one to it.
        """
        for edge in edges:
            if edge.action.verb is Verb.STARTS and edge.action.mishap is None:
                here, before = self._world.snapshot(), self._lengths()
                self._world.do(edge.action)
                silent = before == self._lengths()
                self._world.put_back(here)
                if silent:
                    return [edge]
        return edges

    def _step(self, action: Action) -> str | None:
        """The step that an action is about; None if nobody can die of it."""
        match action.verb:
            case Verb.PLACES:
                return Step.PLACE
            case Verb.CANCELS | Verb.RETRIES:
                return Step.CANCEL
            case Verb.WAKES:
                return WAKE
            case Verb.STARTS:
                return START
            case Verb.TAKES:
                return self._steps_of[action.actor, action.subjects[0].partition("(")[0]]
            case _:
                return None

    def _lengths(self) -> dict[Place, int]:
        return {place: len(log) for place, log in self._world.now_is.broker.logs.items()}

    def _bound(self) -> str | None:
        """The bound that is reached, if any."""
        bounds = self._bounds
        if len(self._path) >= bounds.most_steps:
            return "--most-steps"
        if len(self._known) >= bounds.most_states:
            return "--most-states"
        if bounds.most_seconds is not None and monotonic() - self._began >= bounds.most_seconds:
            return "--seconds"
        return None

    def _judge(self, print_: bytes) -> _Ahead:
        """Judge the end that the world has come to."""
        if print_ not in self._judged:
            self._judged[print_] = self._ended(conclude(self._world, self._path).anomalies)
        return self._judged[print_]

    def _broken(self, error: Exception) -> _Ahead:
        text = f"{type(error).__name__}: {error}"
        return self._ended(conclude(self._world, self._path, broken=text).anomalies)

    def _ended(self, anomalies: frozenset[Anomaly]) -> _Ahead:
        found = sorted(anomalies)
        outcomes = frozenset(OUTCOME_OF.get(one, Outcome.OTHER) for one in found) or frozenset(
            {Outcome.CONVERGED}
        )
        self._outcomes.update(sorted(outcomes))
        if found and self._first_only:
            self._first = {one: _Way(len(self._path), tuple(self._path), None) for one in found}
            raise _EnoughError
        return _Ahead(histories=1, outcomes=outcomes, ways={one: _Way(0, (), None) for one in found})
