"""Taking one protection away, to see what it prevents.

Nothing of this is in the services: what is taken away is taken around their unchanged core, in the simulated
world only. A live service can't be started without a protection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

from common.domain.decision import Decision, Rules
from common.domain.inventory import Inventory
from common.messages import COMPENSATIONS, Message, PlaceOrder, SagaStarted
from common.wiring import Wiring


class Protection(StrEnum):
    """What keeps a saga whole when things go wrong."""

    INBOX = "inbox"
    """A message that was handled is known, and dropped when it comes again."""
    OUTBOX = "outbox"
    """What is decided is kept, in the same transaction, until the broker has acknowledged it."""
    TOMBSTONES = "tombstones"
    """An undo that comes before its action is remembered, so that the action is refused when it comes."""
    DEADLINES = "deadlines"
    """What is waited for in vain is asked for again, and given up in the end."""
    KEY_ORDERING = "key-ordering"
    """All records of one order are in one partition, and so stay in order."""
    ROW_LOCKS = "row-locks"
    """Of two instances that need the same row, the second waits for the first."""
    COMMIT_ORDER = "commit-order"
    """An offset is committed after what its record led to is committed, and published."""


MEANINGS: Final = {
    Protection.INBOX: "a message that comes again is dropped",
    Protection.OUTBOX: "what is decided outlives a crash before it is published",
    Protection.TOMBSTONES: "an action that comes after its undo is refused",
    Protection.DEADLINES: "what never comes is asked for again, or given up",
    Protection.KEY_ORDERING: "records of one order don't overtake each other",
    Protection.ROW_LOCKS: "two instances don't decide on the same row at once",
    Protection.COMMIT_ORDER: "an offset is committed last",
}
"""By protection: what holds with it, for people."""

_BEGINNINGS: Final = frozenset({PlaceOrder, SagaStarted, *COMPENSATIONS})
"""What an order's row begins with; if it begins with anything else, that row is a tombstone."""


def without(wiring: Wiring, protections: Collection[Protection]) -> Wiring:
    """The wiring as it is if those protections that are in it are taken away."""
    if Protection.TOMBSTONES in protections:
        domain = replace(wiring.domain, decide=_forgetful(wiring.domain.decide))
        wiring = replace(wiring, domain=domain)
    if Protection.DEADLINES in protections:
        wiring = replace(wiring, deadlines={})
    return wiring


def _forgetful(decide: Callable[[Any, Any, Rules], Decision[Any]]) -> Callable[..., Decision[Any]]:
    """A decider that answers what comes before its time, and does not remember it."""

    def decide_without_tombstones(state: Any, command: Message, rules: Rules) -> Decision[Any]:  # noqa: ANN401 - states differ by service
        decision = decide(state, command, rules)
        known = state.reservation if isinstance(state, Inventory) else state
        if known is None and type(command) not in _BEGINNINGS:
            return decision._replace(state=state)
        return decision

    return decide_without_tombstones
