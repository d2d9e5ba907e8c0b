"""A state machine as a table of rows, checked when it is made.

The check walks the table as a participant could drive it: from every row that sends a command, each answer
that the participant's decider may give must find a row in the state that the row leads to. And since answers
may be late, a row is also needed for each of them in every state that can be reached from there.
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

_GIVES_UP_WITH: Final[dict[type[Message], type[Message]]] = {
    **inventory.GIVES_UP_WITH,
    **payment.GIVES_UP_WITH,
}
_ANSWERS: Final = {**inventory.ANSWERS, **payment.ANSWERS}


def _answers(command: type[Message]) -> tuple[type[Message], ...]:
    """What a participant may answer, be it that it gives the command up."""
    given_up = _GIVES_UP_WITH.get(command)
    return tuple(dict.fromkeys((*_ANSWERS.get(command, ()), *(_ANSWERS[given_up] if given_up else ()))))


@dataclass(frozen=True, slots=True)
class Row:
    """At state `at`, on message `on`: go to `to` and send what `send` makes of the moved saga."""

    at: Any
    on: type[Message]
    to: Any
    send: Callable[[Any], Message] | None
    sends: tuple[type[Message], ...]

    @property
    def stays(self) -> bool:
        """Whether it changes nothing."""
        return self.at == self.to and self.send is None


def row(at: str, on: type[Message], to: str, send: Callable[[Any], Message]) -> Row:
    """Make a row; `send` must be annotated with what it returns."""
    return Row(at, on, to, send, returned_messages(send))


def late(at: str, *messages: type[Message]) -> tuple[Row, ...]:
    """Rows for what may still come at a state, though it doesn't matter any more: it changes nothing."""
    return tuple(Row(at, message, at, None, ()) for message in messages)


@dataclass(frozen=True, eq=False)
class ProcessTable:
    """The rows of a process, from its `start` to its `ends`.

    At an end, rows may tell the end again, but never leave it.

    Raises:
        WiringError: two rows for one state and message, a row that leaves an end or commands something there,
            a state that can't be reached or can't reach an end, an answer without a row in a state in which
            it may come, a step before the pivot without its undo.
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
        backward = _edges((one.to, one.at) for one in self.rows)
        reachable = _closure({self.start}, self._forward())
        for one in self.rows:
            if one.at in self.ends and (one.to != one.at or _commands(one)):
                yield f"{one.at} is an end, but its row on {one.on.__name__} goes on"
        for state in sorted(({one.at for one in self.rows} | self.ends) - reachable):
            yield f"{state} can't be reached from {self.start}"
        for state in sorted(reachable - _closure(self.ends, backward)):
            yield f"{state} is a dead end: none of {sorted(self.ends)} can be reached from it"

    def _unanswered(self) -> Iterable[str]:
        missing: dict[str, None] = {}
        for one in self.rows:
            for command in _commands(one):
                if command not in _ANSWERS:
                    missing[f"nobody answers the {command.__name__} that is sent at {one.at}"] = None
                for answer in _answers(command):
                    for state in sorted(_closure({one.to}, self._forward())):
                        if self.find(state, answer) is None:
                            fault = f"no row at {state} on {answer.__name__}, an answer to {command.__name__}"
                            missing[fault] = None
        yield from missing

    def _forward(self) -> dict[str, set[str]]:
        return _edges((one.at, one.to) for one in self.rows)

    def _not_undone(self) -> Iterable[str]:
        sent = {command for one in self.rows for command in one.sends if issubclass(command, Command)}
        for command in sent & COMPENSATIONS.keys():
            if command is not PIVOT and COMPENSATIONS[command] not in sent:
                yield f"nothing undoes {command.__name__}: no row sends {COMPENSATIONS[command].__name__}"


def _commands(one: Row) -> list[type[Message]]:
    return [message for message in one.sends if issubclass(message, Command)]


def _edges(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for start, end in pairs:
        edges.setdefault(start, set()).add(end)
    return edges


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
