"""Wirings as data: who reacts to which message, with which local command, and on which topic it is told.

A wiring is a table of reactions per service. Subscriptions, groups and checks are all derived from it, so
nothing can drift from what runs. `on` and `instead_of` are generic *functions*, not generic classes: a type
checker then catches a handler that takes another message than the one it is declared for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from msgspec import DecodeError
from msgspec.json import encode

from common.annotations import returned_messages
from common.domain.decision import Decision, Rules
from common.errors import WiringError
from common.messages import COMPENSATIONS, PIVOT, Message, Overdue, Reason, TimedOut, read
from common.recovery import Patience
from common.store.repository import Storage

DEAD_LETTERS: Final = ".dlq"
"""What the name of a topic of dead letters ends with."""

S = TypeVar("S")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, eq=False)
class Domain(Generic[S]):
    """What a service does: its decider, where its state lives, and everything that a command may lead to."""

    name: str
    decide: Callable[[S, Any, Rules], Decision[S]]
    answers: Mapping[type[Message], tuple[type[Message], ...]]
    storage: Storage[S]
    origin: str = "NONE"
    """The status that a row is said to come from when it is first written."""
    requests: frozenset[type[Message]] = frozenset()
    """The commands that come from outside the broker."""
    gives_up_with: Mapping[type[Message], type[Message]] = field(default_factory=dict)
    """By command: the one to decide in its place if it can't be processed.

    What is not here has no substitute, and is left to deadlines."""
    insists_on: frozenset[type[Message]] = frozenset()
    """The commands that are tried for ever: they come after the pivot, where there is no way back."""


@dataclass(frozen=True)
class Reaction:
    """When `message` arrives, hand the command that `translate` makes of it to the domain."""

    message: type[Message]
    translate: Callable[[Any], Message]
    command: type[Message]


@dataclass(frozen=True)
class Substitution:
    """Tell another message instead of the one that the domain emits."""

    message: type[Message]
    translate: Callable[[Any], Message]
    told: type[Message]


def on(message: type[M], translate: Callable[[M], Message]) -> Reaction:
    """React to `message` with the local command that the annotated function `translate` returns."""
    return Reaction(message, translate, _returned(translate))


def accept(command: type[M]) -> Reaction:
    """Take `command` off the broker as it is."""
    return Reaction(command, lambda message: message, command)


def instead_of(message: type[M], translate: Callable[[M], Message]) -> Substitution:
    """Where the domain emits `message`, tell what the annotated function `translate` returns."""
    return Substitution(message, translate, _returned(translate))


def _returned(function: Callable[[M], Message]) -> type[Message]:
    first, *others = returned_messages(function)
    if others:
        message = f"{function.__qualname__} may return several messages; give each its own row."
        raise WiringError(message)
    return first


@dataclass(frozen=True, eq=False)
class Wiring:
    """One service's part in a mode.

    Raises:
        WiringError: two reactions to one message, a reaction with a command unknown to the domain, or a
            substitution for what it never emits.
    """

    mode: str
    domain: Domain[Any]
    port: int
    reactions: tuple[Reaction, ...]
    topic_of: Callable[[type[Message]], str]
    substitutions: tuple[Substitution, ...] = ()
    deadlines: Mapping[str, Patience] = field(default_factory=dict)
    """By status: how long the service waits for it to change. Then it decides `Overdue`, or `TimedOut`."""
    reaction_to: Mapping[str, Reaction] = field(init=False)
    told_instead: Mapping[type[Message], Substitution] = field(init=False)

    def __post_init__(self) -> None:
        """Check the table and derive the look-ups."""
        self._refuse_duplicates(reaction.message for reaction in self.reactions)
        self._refuse_duplicates(substitution.message for substitution in self.substitutions)
        for reaction in self.reactions:
            if reaction.command not in self.domain.answers:
                heard, command = _name(reaction.message), _name(reaction.command)
                message = f"{self} reacts to {heard} with {command}, unknown to it."
                raise WiringError(message)
        emitted = {answer for answers in self.domain.answers.values() for answer in answers}
        for substitution in self.substitutions:
            if substitution.message not in emitted:
                message = f"{self} substitutes {_name(substitution.message)}, which its domain never emits."
                raise WiringError(message)
        object.__setattr__(self, "reaction_to", {_name(row.message): row for row in self.reactions})
        object.__setattr__(self, "told_instead", {row.message: row for row in self.substitutions})

    def __str__(self) -> str:
        return f"{self.mode}/{self.name}"

    @property
    def name(self) -> str:
        """The service's name, such as `inventory`."""
        return self.domain.name

    @property
    def group(self) -> str:
        """The consumer group that all instances of this service join."""
        return f"{self.mode}.{self.name}"

    @property
    def subscriptions(self) -> frozenset[str]:
        """The topics that hold what this service reacts to."""
        return frozenset(self.topic_of(reaction.message) for reaction in self.reactions)

    @property
    def tells(self) -> frozenset[type[Message]]:
        """Every message that this service may put on the broker."""
        answers = {answer for command in self._decided for answer in self.domain.answers[command]}
        return frozenset(self.told(answer) for answer in answers)

    @property
    def _decided(self) -> frozenset[type[Message]]:
        """Every command that may come to the decider here."""
        heard = {reaction.command for reaction in self.reactions}
        given_up = {
            self.domain.gives_up_with[command] for command in heard & self.domain.gives_up_with.keys()
        }
        passed = {Overdue, TimedOut} if self.deadlines else set()
        return frozenset(heard | given_up | self.domain.requests | (passed & self.domain.answers.keys()))

    @property
    def topics(self) -> frozenset[str]:
        """The topics that this service writes or reads."""
        return self.subscriptions | {self.topic_of(message) for message in self.tells}

    @property
    def all_topics(self) -> list[str]:
        """The same, and those of the dead letters that it may have."""
        return sorted(self.topics | {dead_letter_topic(topic) for topic in self.subscriptions})

    def instead_of_unreadable(self, command: type[Message], order_id: str) -> Message | None:
        """What is decided in place of a command whose record can't be read; None if nothing is.

        Only a step is given up so. Its undo is asked for again by a deadline, in a record that may be sound.
        """
        substitute = self.domain.gives_up_with.get(command)
        if substitute is None or command in COMPENSATIONS.values():
            return None
        try:
            return read(encode({"order_id": order_id, "reason": Reason.DEAD_LETTER}), substitute)
        except DecodeError:  # whatever order it is about, it is none of the lab's
            return None

    def told(self, message: type[Message]) -> type[Message]:
        """The type that goes out when the domain emits `message`."""
        substitution = self.told_instead.get(message)
        return substitution.told if substitution else message

    def _refuse_duplicates(self, messages: Iterable[type[Message]]) -> None:
        for message, count in Counter(messages).items():
            if count > 1:
                text = f"{self} has {count} rows for {_name(message)}; leave one."
                raise WiringError(text)


@dataclass(frozen=True, eq=False)
class Mode:
    """A whole wiring mode: its services, and the messages that end the story because nobody need hear them.

    Raises:
        WiringError: a message that nobody hears, a reaction to what nobody tells, or a step without its undo.
    """

    name: str
    services: tuple[Wiring, ...]
    final: frozenset[type[Message]]

    def __post_init__(self) -> None:
        """Check the services against one another."""
        told = {message: service for service in self.services for message in service.tells}
        heard = {row.message: service for service in self.services for row in service.reactions}
        for message in told.keys() - heard.keys() - self.final:
            self._refuse(f"nobody hears the {_name(message)} that {told[message]} tells")
        for message in heard.keys() - told.keys():
            self._refuse(f"{heard[message]} reacts to {_name(message)}, which nobody tells")
        commands = {row.command for service in self.services for row in service.reactions}
        for command, undo in COMPENSATIONS.items():
            if command in commands and command is not PIVOT and undo not in commands:
                self._refuse(f"nothing ever undoes {_name(command)}: add a reaction with {_name(undo)}")

    @property
    def topics(self) -> frozenset[str]:
        """Every topic that this mode's messages are on."""
        return frozenset().union(*(service.topics for service in self.services))

    @property
    def all_topics(self) -> list[str]:
        """The same, and those of their dead letters."""
        return sorted(frozenset().union(*(service.all_topics for service in self.services)))

    def service(self, name: str) -> Wiring:
        """The service with that name; KeyError if there is none."""
        return {service.name: service for service in self.services}[name]

    def _refuse(self, fault: str) -> None:
        message = f"{self.name}: {fault}."
        raise WiringError(message)


def dead_letter_topic(topic: str) -> str:
    """Where the records of a topic go that can't be processed."""
    return topic + DEAD_LETTERS


def _name(message: type[Message]) -> str:
    return message.__name__
