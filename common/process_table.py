"""A state machine as a table of rows, checked when it is made.

The check walks the table as a participant could drive it: from every row that sends a command, each answer
that the participant's decider may give must find a row in the state that the row leads to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from common.annotations import returned_messages
from common.domain import inventory, payment
from common.errors import WiringError
from common.messages import COMPENSATIONS, PIVOT, Command, Message

_ANSWERS: Final = {**inventory.ANSWERS, **payment.ANSWERS}


@dataclass(frozen=True, slots=True)
class Row:
    """At state `at`, on message `on`: go to `to` and send what `send` makes of the moved saga."""

    at: str
    on: type[Message]
    to: Any
    send: Callable[[Any], Message]
    sends: tuple[type[Message], ...]


def row(at: str, on: type[Message], to: str, send: Callable[[Any], Message]) -> Row:
    """Make a row; `send` must be annotated with what it returns."""
    return Row(at, on, to, send, returned_messages(send))


@dataclass(frozen=True, eq=False)
class ProcessTable:
    """The rows of a process, from its `start` to its `ends`.

    Raises:
        WiringError: two rows for one state and message, an end with rows, a state that can't be reached or
            can't reach an end, an answer without a row, a step before the pivot without its undo.
    """

    start: str
    ends: frozenset[str]
    rows: tuple[Row, ...]
    sends: dict[type[Message], tuple[type[Message], ...]] = field(init=False)
    """By message: everything that may be sent because of it."""
    _by_key: dict[tuple[str, type[Message]], Row] = field(init=False)

    def __post_init__(self) -> None:
        """Check the table and derive the look-ups."""
        sends: dict[type[Message], tuple[type[Message], ...]] = {}
        for one in self.rows:
            sends[one.on] = tuple(dict.fromkeys((*sends.get(one.on, ()), *one.sends)))
        object.__setattr__(self, "sends", sends)
        object.__setattr__(self, "_by_key", {(one.at, one.on): one for one in self.rows})
        _refuse(self._faults())

    def find(self, at: str, on: type[Message]) -> Row | None:
        """The row for this state and message, if there is one."""
        return self._by_key.get((at, on))

    def _faults(self) -> Iterable[str]:
        yield from self._duplicates()
        yield from self._dead_ends()
        yield from self._unanswered()
        yield from self._not_undone()

    def _duplicates(self) -> Iterable[str]:
        for (at, on), count in Counter((one.at, one.on) for one in self.rows).items():
            if count > 1:
                yield f"{count} rows at {at} on {on.__name__}"

    def _dead_ends(self) -> Iterable[str]:
        forward = {one.at: {other.to for other in self.rows if other.at == one.at} for one in self.rows}
        backward = {one.to: {other.at for other in self.rows if other.to == one.to} for one in self.rows}
        reachable = _closure({self.start}, forward)
        for state in sorted(self.ends & forward.keys()):
            yield f"{state} is an end, but has rows"
        for state in sorted((forward.keys() | self.ends) - reachable):
            yield f"{state} can't be reached from {self.start}"
        for state in sorted(reachable - _closure(self.ends, backward)):
            yield f"{state} is a dead end: none of {sorted(self.ends)} can be reached from it"

    def _unanswered(self) -> Iterable[str]:
        for one in self.rows:
            for command in one.sends:
                if issubclass(command, Command) and command not in _ANSWERS:
                    yield f"nobody answers the {command.__name__} that is sent at {one.at}"
                for answer in _ANSWERS.get(command, ()):
                    if self.find(one.to, answer) is None:
                        yield f"no row at {one.to} on {answer.__name__}, an answer to {command.__name__}"

    def _not_undone(self) -> Iterable[str]:
        sent = {command for one in self.rows for command in one.sends if issubclass(command, Command)}
        for command in sent & COMPENSATIONS.keys():
            if command is not PIVOT and COMPENSATIONS[command] not in sent:
                yield f"nothing undoes {command.__name__}: no row sends {COMPENSATIONS[command].__name__}"


def _closure(seeds: Iterable[str], edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    frontier = set(seeds)
    while frontier:
        found |= frontier
        frontier = set().union(*(edges.get(state, set()) for state in frontier)) - found
    return found


def _refuse(faults: Iterable[str]) -> None:
    found = "; ".join(faults)
    if found:
        message = f"The process table is wrong: {found}."
        raise WiringError(message)
