"""All of a simulated world that can change, so that a moment can be kept, and come back to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from common.envelope import Outgoing
from common.messages import Message
from compare.recording import Requested, Strike
from compare.simulation.actions import Verb
from compare.simulation.broker import SimulatedBroker
from compare.simulation.tables import Image


@dataclass
class Situation:
    """All that can change, but for what is in the databases."""

    now: datetime
    broker: SimulatedBroker
    down: set[str] = field(default_factory=set)
    """Services that have died, and are not there again."""
    stalled: dict[str, tuple[Outgoing, ...]] = field(default_factory=dict)
    """By service: what an instance that stands still is about to publish."""
    generations: dict[str, int] = field(default_factory=dict)
    placed: dict[int, datetime] = field(default_factory=dict)
    """By order: when it was placed."""
    ended: dict[int, datetime] = field(default_factory=dict)
    """By order: when its end was first told."""
    asked: set[tuple[Verb, int]] = field(default_factory=set)
    """What customers and operators have asked for."""
    requested: tuple[Requested, ...] = ()
    strikes: tuple[Strike, ...] = ()
    handled: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By service and message: in how many transactions, that were committed, it was decided."""
    failures: dict[tuple[str, type[Message], str], tuple[int, datetime]] = field(default_factory=dict)
    """By service, command and message: how often it was tried in vain, and when it was last."""
    hasty: tuple[tuple[str, str], ...] = ()
    """The services, and messages, of tries that came too soon after one in vain."""
    unreadable: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By service and message: how many of its records were spoiled before it had read them."""
    steps: int = 0
    early: bool = False
    """Whether time has passed though there was something else to do."""

    def copy(self) -> Situation:
        """One that goes its own way from here on."""
        return Situation(
            self.now, self.broker.copy(), set(self.down), dict(self.stalled), dict(self.generations),
            dict(self.placed), dict(self.ended), set(self.asked), self.requested, self.strikes,
            self.handled.copy(), dict(self.failures), self.hasty, self.unreadable.copy(),
            self.steps, self.early,
        )  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """A moment to come back to."""

    situation: Situation
    images: Mapping[str, Image]
    memories: Mapping[str, Mapping[str, Any]]
    script: object = None
