"""Where a lab may look in, and interfere: the boundaries between which a service can die.

A live service has a probe that does nothing. The lab's own raise errors, or end the service, at one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from common.envelope import Cause
from common.messages import Message


class Boundary(StrEnum):
    """A point in the handling of a batch; what a crash there does is the same for every service."""

    BEFORE = "before"
    """Consumed, and nothing done: all of it comes again."""
    DECIDED = "decided"
    """Decided, but not committed: the transaction is rolled back, and all of it comes again."""
    COMMITTED = "committed"
    """Committed, but not published: the outbox has it."""
    PUBLISHED = "published"
    """Published, but the offsets are not committed: it comes again, and the inbox drops it."""
    ACKNOWLEDGED = "acknowledged"
    """All done."""


class Probe:
    """Does nothing; a subclass may raise from either method."""

    def deciding(self, command: Message, because: Cause) -> None:
        """A command is about to be decided; an error raised here counts as one of the decider's."""

    def passing(self, boundary: Boundary, commands: Sequence[Message]) -> None:
        """The batch of these commands has come to a boundary."""
