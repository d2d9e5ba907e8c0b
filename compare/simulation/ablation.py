"""What each protection prevents: histories without it, and for each anomaly the smallest that shows it.

Without one protection, the same sagas are swept, and gone through with each one thing going wrong, the same
built-in scenarios are simulated and the same histories drawn, in both modes. What goes wrong then is what the
protection prevents in that style. Where nothing does, something else prevents it, too; how much was looked at
is said with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from typing import Final

from common.domain.decision import Rules
from compare.scenario import Scenario
from compare.scenario_files import built_in_scenarios
from compare.simulation.actions import BROKER, TIME_PASSES, WRONGS, Action, Mishap, Verb
from compare.simulation.campaign import Draw, history_of, world_of
from compare.simulation.drive import Anomaly, Calm, History, Schedule, Wrong, drive, simulated_plan
from compare.simulation.pools import pool
from compare.simulation.protections import Protection
from compare.simulation.sagas import SAGAS, Saga
from compare.simulation.shrink import shrink
from compare.simulation.sweep import Bounds, sweep

_MOST_ORDERS: Final = 60
"""Of a built-in scenario; a larger one would show nothing that a smaller one doesn't."""


@dataclass(frozen=True, eq=False)
class Smallest:
    """The smallest history found that shows an anomaly; it may show others, too."""

    scenario: Scenario
    schedule: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Looked:
    """How much was looked at."""

    histories: int
    """Drawn, of built-in scenarios, and of sagas with one thing going wrong."""
    states: int
    """Distinct ones, in sweeps."""
    swept: int
    """Histories that the sweeps stand for."""
    exhausted: bool
    """Whether the sweeps have seen all that is within their bounds."""


@dataclass(frozen=True)
class Ablated:
    """What came of one mode without one protection; without any, if `protection` is None."""

    mode: str
    protection: Protection | None
    smallest: Mapping[Anomaly, Smallest]
    looked: Looked


@dataclass(frozen=True)
class Effort:
    """How much is looked at."""

    seed: int = 1
    runs: int = 150
    """Histories drawn."""
    bounds: Bounds = field(default_factory=lambda: Bounds(crashes=1, repeats=1, most_states=150))
    rules: Rules = field(default_factory=Rules)


def ablate(
    protections: tuple[Protection | None, ...],
    modes: tuple[str, ...],
    effort: Effort,
    workers: int,
    told: Callable[[int], object] = lambda _cells: None,
) -> list[Ablated]:
    """Take each protection away, in each mode; what is returned doesn't depend on `workers`."""
    cells = [(mode, protection, effort) for protection in protections for mode in modes]
    if workers == 1:
        return [_told(ablate_one(*cell), told, number) for number, cell in enumerate(cells, start=1)]
    with pool(workers) as executor:
        futures = [executor.submit(ablate_one, *cell) for cell in cells]
        for number, future in enumerate(as_completed(futures), start=1):
            _told(future.result(), told, number)
        return [future.result() for future in futures]


def ablate_one(mode: str, protection: Protection | None, effort: Effort) -> Ablated:
    """Look for what goes wrong in a mode without a protection."""
    without = (protection,) if protection else ()
    search = _Search(mode, without, effort.rules)
    for saga in SAGAS.values():
        search.sweep(saga, effort.bounds)
        for history in search.singles(saga):
            search.look_at(history)
    for history in _drawn(mode, without, effort):
        search.look_at(history)
    return Ablated(
        mode,
        protection,
        search.smallest(),
        Looked(search.histories, search.states, search.swept, search.exhausted),
    )


def _drawn(mode: str, without: tuple[Protection, ...], effort: Effort) -> Iterator[History]:
    scenarios = [one for one in built_in_scenarios() if one.total_orders <= _MOST_ORDERS]
    for run in range(effort.runs):
        yield history_of(Draw(effort.seed, (mode,), None, without, effort.rules), run, mode)
        if run < len(scenarios):
            yield history_of(Draw(effort.seed, (mode,), scenarios[run], without, effort.rules), run, mode)


class _Search:
    def __init__(self, mode: str, without: tuple[Protection, ...], rules: Rules) -> None:
        self.found: dict[Anomaly, History] = {}
        """By anomaly: the history with the fewest orders and actions that shows it."""
        self.histories = self.states = self.swept = 0
        self.exhausted = True
        self._world = world_of(mode, without)
        self._rules = rules

    def singles(self, saga: Saga) -> Iterator[History]:
        """A saga's history in peace, and with each one thing that could have gone wrong in it."""
        plan = simulated_plan(saga.scenario, self._rules)
        peace = drive(self._world, plan, Calm())
        yield peace
        for schedule in dict.fromkeys(_single_mishaps(peace.actions)):
            yield drive(self._world, plan, Schedule(schedule))

    def look_at(self, history: History) -> None:
        self.histories += 1
        self._keep(history)

    def sweep(self, saga: Saga, bounds: Bounds) -> None:
        """Go through all histories of a saga."""
        swept = sweep(self._world.mode, saga, bounds, self._world.taken_away, rules=self._rules)
        self.states += swept.states
        self.swept += swept.histories
        self.exhausted = self.exhausted and swept.exhausted
        for anomaly, actions in swept.examples.items():
            history = drive(self._world, simulated_plan(saga.scenario, self._rules), Schedule(actions))
            if anomaly not in history.anomalies:
                message = f"{saga.name}: the sweep finds {anomaly}, which is not there when it is done again."
                raise AssertionError(message)
            self._keep(history)

    def smallest(self) -> dict[Anomaly, Smallest]:
        """By anomaly: the smallest history that shows it; one that shows several, for all of them."""
        found: dict[Anomaly, Smallest] = {}
        for anomaly in Anomaly:
            if anomaly in self.found and anomaly not in found:
                one = replace(self.found[anomaly], anomalies=frozenset({anomaly}))
                history, schedule = shrink(self._world, one)
                faults = tuple(wrong.text for wrong in sorted(history.wrong, key=_severity))
                small = Smallest(history.scenario, tuple(map(str, schedule)), faults)
                shown = (other for other in Anomaly if other in history.anomalies and other not in found)
                found |= dict.fromkeys(shown, small)
        return {anomaly: found[anomaly] for anomaly in Anomaly if anomaly in found}

    def _keep(self, history: History) -> None:
        for anomaly in Anomaly:
            if anomaly in history.anomalies and (
                anomaly not in self.found or _size(history) < _size(self.found[anomaly])
            ):
                self.found[anomaly] = history


def _single_mishaps(actions: Sequence[Action]) -> Iterator[tuple[Action, ...]]:
    """Schedules with one action that comes early, goes wrong, or has time pass before the next."""
    for index, action in enumerate(actions):
        yield (action,)
        yield action, TIME_PASSES
        if action.verb in {Verb.TAKES, Verb.WAKES, Verb.PLACES, Verb.CANCELS}:
            yield from ((replace(action, mishap=mishap),) for mishap in Mishap)
        if action.verb is Verb.TAKES:
            yield from ((Action(BROKER, verb, action.subjects),) for verb in sorted(WRONGS))
            for other in actions[index + 1 :]:
                at_once = (other.actor, other.verb) == (action.actor, action.verb)
                if at_once and other.orders.isdisjoint(action.orders):
                    yield (replace(action, beside=other.subjects),)


def _severity(wrong: Wrong) -> int:
    return [*Anomaly].index(wrong.anomaly)


def _size(history: History) -> tuple[int, int]:
    return len(history.recording.orders), len(history.actions)


def _told(ablated: Ablated, told: Callable[[int], object], number: int) -> Ablated:
    told(number)
    return ablated
