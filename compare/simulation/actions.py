"""What can happen in a simulated history, one thing at a time, each with a name that a person can read.

A schedule is a list of such names. It is found in scenario files, in reports and in tests, and whoever reads
one needs no table to look anything up:

    payment takes InventoryReserved(1), dies committed
    time passes
    payment starts
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Final

from common.messages import MESSAGES
from common.probe import Boundary


class Verb(StrEnum):
    """What somebody does."""

    PLACES = "places"
    """A customer places an order."""
    CANCELS = "cancels"
    """A customer asks for the cancellation of an order."""
    RETRIES = "retries"
    """An operator has a failed compensation tried again."""
    TAKES = "takes"
    """A service takes the next records of some partitions, in one transaction."""
    WAKES = "wakes"
    """A service goes on with the retries and deadlines that are due."""
    STARTS = "starts"
    """A service that has died is there again, and publishes what it has left unpublished."""
    GOES_ON = "goes on"
    """An instance that stood still, and lost its partitions to another, publishes what it was about to."""
    REPEATS = "repeats"
    """The broker has a record once more, as it has when an acknowledgement was lost."""
    LOSES = "loses"
    """A record never comes to the broker, though its producer believes so."""
    SPOILS = "spoils"
    """A record comes to the broker as something that can't be decoded."""
    PASSES = "passes"
    """Time passes until the next thing is due."""


class Mishap(StrEnum):
    """What happens to a service while it takes records, wakes, starts, or takes a request."""

    DIES_BEFORE = "dies before"
    DIES_DECIDED = "dies decided"
    DIES_COMMITTED = "dies committed"
    DIES_PUBLISHING = "dies publishing"
    """Having published the first half of what it has to publish, rounded down."""
    DIES_PUBLISHED = "dies published"
    DIES_ACKNOWLEDGED = "dies acknowledged"
    STALLS = "stalls"
    """It stands still once it has committed; its partitions, and its outbox, go to another instance."""
    FAILS = "fails"
    """The decider fails, with an error that may pass."""
    FAILS_FOR_GOOD = "fails for good"


DEATHS: Final[dict[Mishap, Boundary | None]] = {
    Mishap.DIES_BEFORE: Boundary.BEFORE,
    Mishap.DIES_DECIDED: Boundary.DECIDED,
    Mishap.DIES_COMMITTED: Boundary.COMMITTED,
    Mishap.DIES_PUBLISHING: None,
    Mishap.DIES_PUBLISHED: Boundary.PUBLISHED,
    Mishap.DIES_ACKNOWLEDGED: Boundary.ACKNOWLEDGED,
}
"""By way of dying: the boundary at which it strikes; half-way through publishing is none of them."""

_OF_A_REQUEST: Final = frozenset({*DEATHS, Mishap.STALLS})
MISHAPS_OF: Final[Mapping[Verb, frozenset[Mishap]]] = {
    Verb.TAKES: frozenset(Mishap),
    Verb.WAKES: frozenset(Mishap),
    Verb.PLACES: _OF_A_REQUEST,
    Verb.CANCELS: _OF_A_REQUEST,
    Verb.RETRIES: _OF_A_REQUEST,
    Verb.STARTS: frozenset(DEATHS),
}
"""By what a service does: what can happen to it meanwhile."""

OF_SERVICES: Final = frozenset({Verb.TAKES, Verb.WAKES, Verb.STARTS, Verb.GOES_ON})
"""What only a service does."""
WRONGS: Final = frozenset({Verb.REPEATS, Verb.LOSES, Verb.SPOILS})
"""What only a broker in trouble does."""

CUSTOMER: Final = "customer"
OPERATOR: Final = "operator"
BROKER: Final = "broker"
TIME: Final = "time"

_JOIN: Final = " + "
_BESIDE: Final = " beside "
_ACTION: Final = re.compile(
    rf"(?P<actor>[a-z]+) (?P<verb>{'|'.join(Verb)})"
    rf"(?: (?P<subjects>(?!beside )[^,]+?))?(?:{_BESIDE}(?P<beside>[^,]+))?"
    rf"(?:, (?P<mishap>{'|'.join(Mishap)}))?"
)
_SUBJECT: Final = re.compile(r"(?P<kind>\w+)\([0-9]+\)(?:~[0-9]+)?")
_SERVICES: Final = frozenset({"order", "orchestrator", "inventory", "payment"})
_WHO: Final[Mapping[Verb, frozenset[str]]] = {
    Verb.PLACES: frozenset({CUSTOMER}),
    Verb.CANCELS: frozenset({CUSTOMER}),
    Verb.RETRIES: frozenset({OPERATOR}),
    **dict.fromkeys(OF_SERVICES, _SERVICES),
    **dict.fromkeys(WRONGS, frozenset({BROKER})),
    Verb.PASSES: frozenset({TIME}),
}
"""By what is done: who does such a thing."""
_WITH_RECORDS: Final = frozenset({Verb.TAKES, *WRONGS})
_WITH_ORDER: Final = frozenset({Verb.PLACES, Verb.CANCELS, Verb.RETRIES})
_NUMBER: Final = re.compile(r"\((?P<number>[0-9]+)\)|^(?P<order>[0-9]+)$")


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that happens: who does what, with which records or which order.

    `beside` are records that a second instance of the service takes in the meantime, between the moment at
    which the first has read its rows and the one at which it writes them.
    """

    actor: str
    verb: Verb
    subjects: tuple[str, ...] = ()
    mishap: Mishap | None = None
    beside: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.actor} {self.verb}"
        if self.subjects:
            text += f" {_JOIN.join(self.subjects)}"
        if self.beside:
            text += f"{_BESIDE}{_JOIN.join(self.beside)}"
        return f"{text}, {self.mishap}" if self.mishap else text

    @property
    def orders(self) -> frozenset[int]:
        """The numbers of the orders that it names."""
        found = (match for subject in (*self.subjects, *self.beside) for match in _NUMBER.finditer(subject))
        return frozenset(int(match["number"] or match["order"]) for match in found)

    @property
    def kind(self) -> str | None:
        """What goes wrong in it; None if nothing does."""
        if self.mishap is not None:
            return self.mishap
        if self.verb in WRONGS:
            return f"{self.actor} {self.verb}"
        return "two at once" if self.beside else None

    def without_mishap(self) -> Action:
        """The same, going well."""
        return replace(self, mishap=None)


def parse_action(text: str) -> Action:
    """Read an action's name.

    Raises:
        ValueError: it is none.
    """
    found = _ACTION.fullmatch(text)
    if found is None:
        raise _nothing(text)
    action = Action(
        found["actor"],
        Verb(found["verb"]),
        tuple((found["subjects"] or "").split(_JOIN)) if found["subjects"] else (),
        Mishap(found["mishap"]) if found["mishap"] else None,
        tuple(found["beside"].split(_JOIN)) if found["beside"] else (),
    )
    if action.actor not in _WHO[action.verb]:
        who = ", ".join(sorted(_WHO[action.verb]))
        message = f"{text!r}: {action.actor!r} is nobody who {action.verb}; that is for: {who}"
        raise ValueError(message)
    names_something = action.verb in _WITH_RECORDS or action.verb in _WITH_ORDER
    if bool(action.subjects) is not names_something or not _fits(action):
        raise _nothing(text)
    for subject in (*action.subjects, *action.beside):
        _check_subject(text, action.verb, subject)
    return action


def _fits(action: Action) -> bool:
    """Whether such a thing can happen so: with so many subjects, with that mishap, or beside something."""
    if action.verb is not Verb.TAKES and (action.beside or len(action.subjects) > 1):
        return False
    return action.mishap is None or (action.mishap in MISHAPS_OF.get(action.verb, ()) and not action.beside)


def _check_subject(text: str, verb: Verb, subject: str) -> None:
    if verb in _WITH_ORDER:
        if not subject.isdecimal():
            raise _nothing(text)
        return
    found = _SUBJECT.fullmatch(subject)
    if found is None:
        raise _nothing(text)
    if found["kind"] not in MESSAGES:
        near = get_close_matches(found["kind"], MESSAGES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = f"{text!r}: no message is called {found['kind']!r}{hint}"
        raise ValueError(message)


def _nothing(text: str) -> ValueError:
    example = "payment takes InventoryReserved(1), dies committed"
    return ValueError(f"{text!r} is nothing that can happen; write it like {example!r}")


TIME_PASSES: Final = Action(TIME, Verb.PASSES)
