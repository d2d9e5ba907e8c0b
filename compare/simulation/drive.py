"""Letting one history happen, to its end, and judging it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from common.domain.decision import Rules
from compare.checks import judge
from compare.checks.standing import Source
from compare.checks.verdict import Finding, Verdict
from compare.plan import Plan, plan
from compare.recording import Recording
from compare.scenario import Ending, ExpectedOrder, Scenario
from compare.simulation.actions import Action
from compare.simulation.oracle import mistold, tried_wrongly, unexplained
from compare.simulation.protections import Protection
from compare.simulation.scripted import script_of
from compare.simulation.world import World

MOST_STEPS: Final = 2_000
"""A history that is longer is one that never ends."""
_EXPECTATIONS: Final = frozenset({"orders end as expected", "stock is as expected"})
"""Checks of what a scenario expects; what happens in a simulated history may change that."""
_OF_PLACES: Final = "one order, one partition"
"""Without the order of keys it says nothing but that; the question is what harm comes of it."""


class Anomaly(StrEnum):
    """What can be wrong with a history, by the harm that it does."""

    STUCK = "stuck order"
    DOUBLE_CHARGE = "double charge"
    OVERSELL = "oversell"
    LEAKED_STOCK = "leaked stock"
    LEAKED_MONEY = "leaked charge"
    UNPAID = "completed unpaid"
    RESURRECTED = "resurrected order"
    DISAGREEMENT = "saga and order disagree"
    """The orchestrator takes for completed what has failed, or the other way round."""
    MISTOLD = "mistold"
    """The records on the broker don't say what has happened: something was never told, or wrongly."""
    REPEATED = "handled twice"
    UNEXPLAINED = "unexplained end"
    BROKEN = "broken service"
    """A service failed in a way that it has no answer to."""
    OTHER = "other"


class Policy(Protocol):
    """Who decides what happens next."""

    def step(self, world: World) -> Action | None:
        """Have one thing happen, and say what it was; None if nothing can, or is to."""


class Wrong(NamedTuple):
    """Something that is wrong: what harm it does, and what it is, in words."""

    anomaly: Anomaly
    text: str


@dataclass(frozen=True)
class History:
    """What happened in one mode, and what is wrong with it."""

    plan: Plan
    mode: str
    actions: tuple[Action, ...]
    recording: Recording
    findings: tuple[Finding, ...]
    anomalies: frozenset[Anomaly]
    wrong: tuple[Wrong, ...]

    @property
    def scenario(self) -> Scenario:
        """The orders and the stock that it began with."""
        return self.plan.scenario

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        return tuple(one.text for one in self.wrong)

    def digest(self) -> str:
        """A hash of all that has happened, and of its verdict: the same for the same seed, everywhere."""
        told = [
            (one.topic, one.partition, one.offset, one.id, one.attempt, one.body)
            for one in self.recording.trace
        ]
        ends = [one.model_dump(mode="json") for one in self.recording.orders]
        known = ([*map(str, self.actions)], told, ends, sorted(self.recording.stock.items()), self.faults)
        return blake2b(repr(known).encode(), digest_size=16).hexdigest()


def simulated_plan(scenario: Scenario, rules: Rules, *, any_end: bool = True) -> Plan:
    """A scenario made ready, with the same ids every time.

    Any end is granted to its orders, unless it is said that they are to end as the scenario expects: what a
    history does to them may change it. That it has a reason is checked instead (`unexplained`).
    """
    ids = iter(range(1, scenario.total_orders + 2))
    if not any_end:
        return plan(scenario, rules, lambda: _order_id(next(ids)))
    free = ExpectedOrder.model_construct(status=Ending.COMPENSATION_FAILED, reason=None)
    orders = tuple(spec.model_copy(update={"expect": free}) for spec in scenario.orders)
    return plan(scenario.model_copy(update={"orders": orders}), rules, lambda: _order_id(next(ids)))


def _order_id(number: int) -> str:
    """A UUIDv7 of a moment before the beginning of all histories."""
    return f"019b7600-0000-7000-8000-{number:012x}"


def drive(world: World, plan_: Plan, policy: Policy, *, most_steps: int = MOST_STEPS) -> History:
    """Let one history happen; what the scenario says goes wrong does so by itself, whatever the policy."""
    world.begin(plan_, script_of(plan_, world.mode))
    return go_on(world, policy, most_steps=most_steps)


def go_on(
    world: World, policy: Policy, actions: Sequence[Action] = (), *, most_steps: int = MOST_STEPS
) -> History:
    """Let a history that has begun with these actions go on to its end."""
    happened = list(actions)
    while len(happened) < most_steps:
        try:
            action = policy.step(world)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this history is to show
            happened += [world.doing] if world.doing else []
            return conclude(world, happened, broken=f"a service breaks: {type(error).__name__}: {error}")
        if action is None:
            return conclude(world, happened)
        happened.append(action)
    return conclude(world, happened, f"after {most_steps} steps it still goes on")


def conclude(
    world: World, actions: Sequence[Action], unfinished: str | None = None, broken: str | None = None
) -> History:
    """Judge what has happened, though it may be `unfinished`, or have `broken` off, for a reason."""
    recording = world.recording(unfinished or broken)
    scenario = world.plan.scenario
    left_out = _EXPECTATIONS | ({_OF_PLACES} if Protection.KEY_ORDERING in world.taken_away else set())
    findings = tuple(one for one in judge(scenario, recording) if one.check not in left_out)
    wrong = [*_judged(findings), *_noticed(world, recording)]
    wrong += [
        Wrong(anomaly, text)
        for anomaly, text in ((Anomaly.STUCK, unfinished), (Anomaly.BROKEN, broken))
        if text is not None
    ]
    anomalies = frozenset(one.anomaly for one in wrong)
    return History(world.plan, world.mode.name, tuple(actions), recording, findings, anomalies, tuple(wrong))


def _judged(findings: Sequence[Finding]) -> Iterator[Wrong]:
    """What the checks have found, by the harm that it does.

    Where the databases are right, and only the records wrong, no order is harmed by that, but somebody has
    not been told of it, or too often.
    """
    for finding in findings:
        harm = _HARM.get(finding.check, Anomaly.OTHER)
        for text in finding.faults if finding.verdict is Verdict.INVALID else ():
            mistold = text.endswith(_BY_RECORDS) and harm is not Anomaly.OTHER
            revived = harm is Anomaly.STUCK and _REVIVED in text
            anomaly = Anomaly.MISTOLD if mistold else Anomaly.RESURRECTED if revived else harm
            if not text.startswith(_MORE):
                yield Wrong(anomaly, f"{finding.check}: {text}")


def _noticed(world: World, recording: Recording) -> Iterator[Wrong]:
    """What no check looks at, since only a simulated world knows of it."""
    for text in unexplained(world, recording):
        yield Wrong(Anomaly.UNEXPLAINED, text)
    for text in mistold(world, recording):
        yield Wrong(Anomaly.MISTOLD, text)
    for text in tried_wrongly(world):
        yield Wrong(Anomaly.REPEATED, text)


_BY_RECORDS: Final = f"(by the {Source.RECORDS})"
_REVIVED: Final = " after it was "
_MORE: Final = "and "
_HARM: Final = {
    "every order ends": Anomaly.STUCK,
    "stock is conserved": Anomaly.LEAKED_STOCK,
    "stock is never negative": Anomaly.OVERSELL,
    "charged at most once": Anomaly.DOUBLE_CHARGE,
    "charged means completed or refunded": Anomaly.LEAKED_MONEY,
    "completed means paid and held": Anomaly.UNPAID,
    "failed holds nothing": Anomaly.LEAKED_STOCK,
    "saga and order agree": Anomaly.DISAGREEMENT,
    "undone means done before": Anomaly.MISTOLD,
    "records and databases agree": Anomaly.MISTOLD,
    "every record has its cause": Anomaly.MISTOLD,
}
"""By check: the harm that it finds."""


class Calm:
    """Whatever is next in turn, and nothing goes wrong."""

    def step(self, world: World) -> Action | None:
        """Do what is next in turn."""
        action = next(iter(world.enabled()), None)
        if action is not None and not world.do(action):
            message = f"{action} was to be next, but can't be."
            raise AssertionError(message)
        return action


class Schedule:
    """These actions, in this order; what has to happen in between does so in its turn.

    What comes later in the schedule is held back until it is its turn there. An action that can't come any
    more is left out, so that any part of a schedule is one, too.
    """

    def __init__(self, actions: Sequence[Action]) -> None:
        self.left_out: list[Action] = []
        """What could not come about."""
        self._left = list(actions)
        self._calm = Calm()

    def step(self, world: World) -> Action | None:
        """Do the next action of the schedule, or what may make it possible."""
        while self._left:
            if world.do(self._left[0]):
                return self._left.pop(0)
            held = {(one.actor, one.verb, subject) for one in self._left for subject in _subjects(one)}
            for action in world.enabled():
                if held.isdisjoint((action.actor, action.verb, one) for one in _subjects(action)):
                    world.do(action)
                    return action
            self.left_out.append(self._left.pop(0))
        return self._calm.step(world)


def _subjects(action: Action) -> tuple[str, ...]:
    return (*action.subjects, *action.beside) or ("",)
