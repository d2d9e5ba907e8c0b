"""The simulated broker: what Kafka promises, and nothing more.

A log per topic and partition, read in order; a committed offset per consumer group and partition; a
generation per group, so that a member which has lost its partitions can't commit. It promises nothing about
how records of different partitions come in relation to each other, and lets a record be there twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from common.envelope import Headers, Outgoing
from common.errors import BrokerError

Place = tuple[str, int]
"""A topic and one of its partitions."""

SPOILED: Final = b"\xff\x00 this was a message once"
"""The value of a record that can't be decoded any more."""


class Stored(NamedTuple):
    """A record as a consumer gets it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    name: str
    """For people: its type, order and attempt."""
    id: str
    """Of the message that it tells, and its attempt."""
    sequence: int
    """How many records, on all partitions, came before it."""
    lost: bool = False
    """It takes its place in the log, but nobody gets it."""

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.topic, self.partition

    @property
    def spoiled(self) -> bool:
        """Whether it can't be decoded any more."""
        return self.value == SPOILED


def telling(record: Outgoing) -> str:
    """What tells a message apart, and each attempt of it."""
    return f"{record.id}~{dict(record.headers).get('ce_attempt', b'1').decode()}"


@dataclass
class SimulatedBroker:
    """Logs, offsets and generations; records can't be changed, so that a copy need not copy them."""

    logs: dict[Place, list[Stored]] = field(default_factory=dict)
    committed: dict[tuple[str, Place], int] = field(default_factory=dict)
    """By group and place: the offset of the next record that it has to read."""
    generations: dict[str, int] = field(default_factory=dict)
    """By group: how often its partitions were given out."""
    length: int = 0
    """How many records it has taken."""

    def create_topics(self, names: Iterable[str], partitions: int) -> None:
        """Create what is missing.

        Raises:
            BrokerError: a topic is there with another number of partitions.
        """
        for name in names:
            there = sum(topic == name for topic, _ in self.logs)
            if there not in {0, partitions}:
                message = f"{name!r} exists with {there} partitions, not {partitions}."
                raise BrokerError(message)
            for partition in range(partitions):
                self.logs.setdefault((name, partition), [])

    def append(self, record: Outgoing | Stored, partition: int, *, name: str, id_: str) -> Stored:
        """Put a record at the end of a partition.

        Raises:
            BrokerError: there is no such topic or partition.
        """
        log = self._log((record.topic, partition))
        stored = Stored(
            record.topic,
            partition,
            len(log),
            record.key,
            record.value,
            record.headers,
            name,
            id_,
            self.length,
        )
        self.length += 1
        log.append(stored)
        return stored

    def join(self, group: str) -> int:
        """Give all partitions to a member, and return the generation in which it has them."""
        self.generations[group] = self.generations.get(group, 0) + 1
        return self.generations[group]

    def commit(self, group: str, generation: int, place: Place, offset: int) -> None:
        """Note that a group need not read again what is before an offset.

        Raises:
            BrokerError: another member has the partitions by now.
        """
        self._log(place)
        if generation != self.generations.get(group):
            message = f"{group} has given its partitions to another member."
            raise BrokerError(message)
        self.committed[group, place] = offset

    def position(self, group: str, place: Place) -> int:
        """The offset at which a group goes on."""
        return self.committed.get((group, place), 0)

    def fetch(self, group: str, place: Place) -> Iterator[Stored]:
        """What a group has still to read of a place, oldest first."""
        return (record for record in self._log(place)[self.position(group, place) :] if not record.lost)

    def lose(self, record: Stored) -> None:
        """Take a record away."""
        self._log(record.place)[record.offset] = record._replace(lost=True)

    def spoil(self, record: Stored) -> None:
        """Make a record unreadable."""
        self._log(record.place)[record.offset] = record._replace(value=SPOILED)

    def records(self) -> Iterator[Stored]:
        """All that can be read, place by place."""
        return (record for place in sorted(self.logs) for record in self.logs[place] if not record.lost)

    def copy(self) -> SimulatedBroker:
        """One that goes its own way from here on."""
        logs = {place: list(log) for place, log in self.logs.items()}
        return SimulatedBroker(logs, dict(self.committed), dict(self.generations), self.length)

    def _log(self, place: Place) -> list[Stored]:
        try:
            return self.logs[place]
        except KeyError:
            message = f"there is no partition {place[1]} of {place[0]!r}."
            raise BrokerError(message) from None
