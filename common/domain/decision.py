"""What every decider takes and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from common.messages import Message

S = TypeVar("S")


class Decision(NamedTuple, Generic[S]):
    """The state after a command, and what there is to tell; no messages: the command was ignored.

    `late` says that this was to be expected: what was ignored has been overtaken by something else.
    """

    state: S
    messages: tuple[Message, ...] = ()
    late: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """The business rules that an operator may set."""

    payment_limit_cents: int = 500_00
