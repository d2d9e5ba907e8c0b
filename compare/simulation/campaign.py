"""Thousands of histories from one seed, on all cores, the same ones wherever they are drawn."""

from __future__ import annotations

import atexit
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple

from common.domain.decision import Rules
from compare.lab import MODES
from compare.scenario import Scenario
from compare.simulation.chance import Chance, Whim, draw_scenario, seed_of
from compare.simulation.drive import Anomaly, History, drive, simulated_plan
from compare.simulation.pools import pool
from compare.simulation.protections import Protection
from compare.simulation.world import World

CHUNK: Final = 20
"""Runs that a worker does at a time."""


@dataclass(frozen=True)
class Draw:
    """What histories are drawn from: all of it is in the results, and nothing else is."""

    seed: int
    modes: tuple[str, ...]
    scenario: Scenario | None = None
    """The orders and the stock; drawn, too, if none is given."""
    without: tuple[Protection, ...] = ()
    rules: Rules = field(default_factory=Rules)


class Failure(NamedTuple):
    """A history that goes wrong."""

    run: int
    mode: str
    anomalies: tuple[Anomaly, ...]


@dataclass
class Tally:
    """What came of some histories."""

    histories: int = 0
    actions: int = 0
    mishaps: Counter[str] = field(default_factory=Counter)
    ends: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By mode, status and reason (empty if there is none): how many orders ended so."""
    states: set[bytes] = field(default_factory=set)
    """The fingerprints of the situations in which they ended."""
    failures: list[Failure] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    """Of each chunk, in order."""

    def add(self, other: Tally) -> None:
        """Add what came of the histories that come next."""
        self.histories += other.histories
        self.actions += other.actions
        self.mishaps += other.mishaps
        self.ends += other.ends
        self.states |= other.states
        self.failures += other.failures
        self.digests += other.digests

    @property
    def digest(self) -> str:
        """A hash of every step of every history: the same for the same seed, everywhere."""
        return blake2b("".join(self.digests).encode(), digest_size=16).hexdigest()


def simulate(
    draw: Draw, runs: int, workers: int, told: Callable[[int], None] = lambda _histories: None
) -> Tally:
    """Draw so many histories in each mode, and stop after the first chunk in which one goes wrong.

    What is returned doesn't depend on the number of `workers`, which are processes; 1 works in this one.
    """
    tally = Tally()
    chunks = ((draw, first, min(CHUNK, runs - first)) for first in range(0, runs, CHUNK))
    with _results(chunks, workers) as results:
        for chunk in results:
            tally.add(chunk)
            told(tally.histories)
            if tally.failures:
                break
    return tally


def history_of(draw: Draw, run: int, mode: str) -> History:
    """One of the histories, once more."""
    chance = Chance(seed_of(draw.seed, run))
    scenario = draw.scenario or draw_scenario(chance, f"simulated-{draw.seed}-{run}")
    return drive(world_of(mode, draw.without), simulated_plan(scenario, draw.rules), Whim(chance))


@cache
def world_of(mode: str, without: tuple[Protection, ...]) -> World:
    """The world of a mode; making one takes longer than a history in it."""
    world = World(MODES[mode], without)
    atexit.register(world.close)
    return world


@contextmanager
def _results(chunks: Iterator[tuple[Draw, int, int]], workers: int) -> Iterator[Iterator[Tally]]:
    """What comes of each chunk, in order; a few are under way at a time."""
    if workers == 1:
        yield (_chunk(*chunk) for chunk in chunks)
        return
    with pool(workers) as executor:
        yield _in_order(executor, chunks, 2 * workers)
        executor.shutdown(cancel_futures=True)


def _in_order(
    executor: ProcessPoolExecutor, chunks: Iterator[tuple[Draw, int, int]], ahead: int
) -> Iterator[Tally]:
    waiting: list[Future[Tally]] = [executor.submit(_chunk, *chunk) for chunk in islice(chunks, ahead)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [executor.submit(_chunk, *chunk) for chunk in islice(chunks, 1)]


def _chunk(draw: Draw, first: int, count: int) -> Tally:
    tally, digests = Tally(), list[str]()
    for run in range(first, first + count):
        for mode in draw.modes:
            history = history_of(draw, run, mode)
            _count(tally, history)
            tally.states.add(world_of(mode, draw.without).fingerprint())
            digests.append(history.digest())
            if history.anomalies:
                tally.failures.append(Failure(run, mode, _sorted(history.anomalies)))
    tally.digests.append(blake2b("".join(digests).encode(), digest_size=16).hexdigest())
    return tally


def _count(tally: Tally, history: History) -> None:
    tally.histories += 1
    tally.actions += len(history.actions)
    tally.mishaps.update(kind for action in history.actions if (kind := action.kind) is not None)
    tally.ends.update((history.mode, order.status, order.reason or "") for order in history.recording.orders)


def _sorted(anomalies: Sequence[Anomaly] | frozenset[Anomaly]) -> tuple[Anomaly, ...]:
    return tuple(anomaly for anomaly in Anomaly if anomaly in anomalies)
