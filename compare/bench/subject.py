"""What the benchmark measures, whatever it is made of: a mode, the raw relay, or another framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.domain.order import OrderStatus
from common.messages import PlaceOrder, Reason

Ended = Callable[[str, OrderStatus], None]
"""Is told of each order that has ended: its id, and COMPLETED or FAILED. It is called on the event loop."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a subject has spent since the measured window began; None where it has none, or can't know."""

    records: int | None
    """Put on the broker."""
    bytes: int | None
    """Of those records: keys, values and headers."""
    commits: int | None
    """Transactions of the services' databases that may have written something."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What has to become of an order."""

    status: OrderStatus
    reason: Reason | None
    """None for one that is to be COMPLETED."""
    item: str
    quantity: int
    amount_cents: int
    """Of the whole order."""


class Subject(Protocol):
    """Something that carries out orders, and can be measured at it."""

    @property
    def name(self) -> str:
        """What it is called in results."""

    async def start(self, ended: Ended) -> None:
        """Be ready to take orders on, and tell `ended` of each that has ended from now on.

        Raises:
            LabError: it can't start; the text says how to mend it.
        """

    async def place(self, orders: Sequence[PlaceOrder]) -> None:
        """Take on all these orders; return once they are as durably accepted as they will be.

        Raises:
            LabError: it can't go on.
        """

    async def settle(self) -> None:
        """Return once all orders have ended and nothing moves any more; the caller limits the time.

        Raises:
            LabError: it can't go on.
        """

    def check(self) -> None:
        """Return at once, or raise a LabError if it can't go on: what it waits for would never come."""

    def mark(self) -> None:
        """Count costs from now on."""

    async def costs(self) -> Costs:
        """What has been spent since `mark`."""

    async def judge(self, expected: Mapping[str, Expected]) -> tuple[str, ...]:
        """What is wrong, given what has to become of each order ever placed; nothing if all is right."""

    async def stop(self) -> None:
        """End all that was started, and remove what was left on servers; idempotent."""
