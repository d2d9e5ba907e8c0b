"""What interferes with the action under way: a death at a boundary, a failing decider, a second instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from common.envelope import Cause, inbox_key
from common.errors import PermanentError, TransientError
from common.messages import Message, Resumption
from common.probe import Boundary, Probe
from compare.simulation.actions import DEATHS, Mishap

_ERRORS: Final[dict[Mishap, type[Exception]]] = {
    Mishap.FAILS: TransientError,
    Mishap.FAILS_FOR_GOOD: PermanentError,
}
"""By mishap: the error that the decider fails with."""


class DiedError(BaseException):
    """A service dies here. It is no Exception, so nothing of the service handles it."""


class Hook(Probe):
    """What interferes with the action under way; there is one for all services."""

    def __init__(self) -> None:
        self.dies_at: Boundary | None = None
        self.error: type[Exception] | None = None
        self.meanwhile: Callable[[], None] | None = None
        """What is done once the rows are read, and nothing is decided."""
        self.decided: list[str] = []
        """What was decided in the transaction under way, as the inbox knows it."""
        self.failed: list[str] = []
        """The orders at which the decider has failed in it."""
        self.failing: list[tuple[type[Message], str]] = []
        """What is to be tried again: the command, and what the inbox knows it by."""

    def deciding(self, command: Message, because: Cause) -> None:
        """Do what is to be done meanwhile, then fail if that is to be."""
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if self.error is not None:
            self.failed.append(command.order_id)
            if self.error is TransientError and not isinstance(command, Resumption):
                self.failing.append((type(command), inbox_key(because.id, because.attempt)))
            text = f"{type(command).__name__} of order {because.correlation_id} fails: simulated"
            raise self.error(text)
        if not isinstance(command, Resumption):  # it goes on with something, whose cause it has
            self.decided.append(inbox_key(because.id, because.attempt))

    def passing(self, boundary: Boundary, commands: Sequence[Message]) -> None:  # noqa: ARG002 - a probe's
        """Die, if this is where."""
        if boundary is self.dies_at:
            raise DiedError

    def arm(self, mishap: Mishap | None, meanwhile: Callable[[], None] | None = None) -> None:
        """Have a mishap happen to what is done next, and something be done in the midst of it."""
        self.dies_at = DEATHS.get(mishap) if mishap else None
        self.error = _ERRORS.get(mishap) if mishap else None
        self.meanwhile = meanwhile
        self.decided.clear()
        self.failed.clear()
        self.failing.clear()
