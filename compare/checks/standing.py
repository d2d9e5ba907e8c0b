"""How an order stands by one account of it: the databases' or the records'.

Neither account looks at the other's evidence, so that the same invariants can be judged twice, independently,
and a lie of either shows where the two differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from common.domain.order import OrderStatus
from compare.scenario import OrderSpec

NEVER_PLACED: Final = "(never placed)"
ENDINGS: Final = frozenset({OrderStatus.COMPLETED, OrderStatus.FAILED, OrderStatus.COMPENSATION_FAILED})
"""The statuses in which nothing moves any more; the last one only until an operator wants it to."""


class Source(StrEnum):
    """Who gives an account."""

    DATABASES = "databases"
    RECORDS = "records"


class Deed(StrEnum):
    """What is done to stock or money."""

    RESERVED = "RESERVED"
    RELEASED = "RELEASED"
    CHARGED = "CHARGED"
    REFUNDED = "REFUNDED"


UNDOES: Final = {Deed.RELEASED: Deed.RESERVED, Deed.REFUNDED: Deed.CHARGED}
"""What undoes what."""


class Act(NamedTuple):
    """A deed, and the pieces or cents that it is about: 0 if there was nothing to undo.

    The time is in milliseconds from placing the order: when it may have been done, at the earliest.
    """

    deed: Deed
    amount: int
    at_ms: float


@dataclass(frozen=True)
class Standing:
    """How an order stands, and how it came to that; `held` and `charged` are pieces and cents."""

    number: int
    order_id: str
    spec: OrderSpec
    placed_ms: float
    status: str = NEVER_PLACED
    reason: str | None = None
    held: int = 0
    payment: str | None = None
    charged: int = 0
    saga: str | None = None
    ends: tuple[str, ...] = ()
    """Every end that it came to, in order; an operator can have one follow on COMPENSATION_FAILED."""
    acts: tuple[Act, ...] = ()

    @property
    def name(self) -> str:
        """The order, for people."""
        return f"order {self.number} ({self.order_id})"

    @property
    def due_cents(self) -> int:
        """What it costs."""
        return self.spec.price_cents * self.spec.quantity

    @property
    def outcome(self) -> str:
        """The status with its reason."""
        return f"{self.status} for {self.reason}" if self.reason else self.status


@dataclass(frozen=True)
class Account:
    """What one source says."""

    source: Source
    standings: tuple[Standing, ...]
    """Of every order, in the order of their numbers."""
    stock: dict[str, int]
    """Pieces of each item that nobody holds in the end."""
