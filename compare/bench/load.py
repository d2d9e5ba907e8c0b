"""What is ordered: the same orders for every subject, determined by their numbers alone.

An order's number is in its id, so that the load generator keeps nothing of an order that has ended: what it
kept would count as the subject's memory.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor
from typing import Final
from uuid import UUID

from pydantic import Field

from common.domain.order import OrderStatus
from common.messages import PlaceOrder, Reason
from compare.bench.subject import Expected
from compare.recording import Frozen

PRICE_CENTS: Final = 20_00
DECLINED_CENTS: Final = 900_00
"""Above the limit of a payment."""
PIECES: Final = 1_000_000_000
"""Of each item, in the beginning: nothing runs out, so that an order's end depends on its price alone."""
_CUSTOMERS: Final = 1_000
_PER_MS: Final = 4096
_COUNTER_MASK: Final = _PER_MS - 1
_RANDOM_BITS: Final = 62


class Load(Frozen):
    """Orders by number, from 0; `declined` of them, spread evenly, are of too high a price."""

    declined: float = Field(ge=0, le=1, description="share of the orders whose payment is declined")
    items: int = Field(ge=1, description="how many items they are spread over: with 1, all want the same row")
    begun_ms: int = Field(description="Unix time that the ids begin with")
    salt: int = Field(description="62 bits that tell the ids of this load from those of others")

    @property
    def stock(self) -> dict[str, int]:
        """Pieces by item, in the beginning."""
        return {self._item(number): PIECES for number in range(self.items)}

    def order(self, number: int) -> PlaceOrder:
        """The order with this number."""
        return PlaceOrder(
            order_id=self._id(number),
            customer_id=f"customer-{number % _CUSTOMERS}",
            item=self._item(number),
            quantity=1,
            price_cents=self._price(number),
        )

    def number(self, order_id: str) -> int:
        """The number of the order with this id; KeyError if it isn't one of these."""
        try:
            bits = UUID(order_id).int
        except ValueError:
            raise KeyError(order_id) from None
        number = ((bits >> 80) - self.begun_ms) * _PER_MS + (bits >> 64 & _COUNTER_MASK)
        if number < 0 or self._id(number) != order_id:
            raise KeyError(order_id)
        return number

    def is_declined(self, number: int) -> bool:
        """Whether the payment of this order is declined."""
        return floor((number + 1) * self.declined) > floor(number * self.declined)

    def expected(self, number: int) -> Expected:
        """What has to become of this order."""
        declined = self.is_declined(number)
        return Expected(
            status=OrderStatus.FAILED if declined else OrderStatus.COMPLETED,
            reason=Reason.PAYMENT_DECLINED if declined else None,
            item=self._item(number),
            quantity=1,
            amount_cents=self._price(number),
        )

    def _price(self, number: int) -> int:
        return DECLINED_CENTS if self.is_declined(number) else PRICE_CENTS

    def _item(self, number: int) -> str:
        return f"item-{number % self.items}"

    def _id(self, number: int) -> str:
        """A UUIDv7 with the number in its time and counter: RFC 9562, section 6.2, method 1."""
        milliseconds, counter = divmod(number, _PER_MS)
        high = (self.begun_ms + milliseconds) << 16 | 7 << 12 | counter
        return str(UUID(int=high << 64 | 2 << _RANDOM_BITS | self.salt))


def draw(declined: float, items: int) -> Load:
    """A load with ids of its own."""
    return Load(
        declined=declined,
        items=items,
        begun_ms=time.time_ns() // 1_000_000,
        salt=secrets.randbits(_RANDOM_BITS),
    )


@dataclass(frozen=True, slots=True)
class Placed(Mapping[str, Expected]):
    """What has to become of the first `count` orders of a load, by id; it is worked out when asked for."""

    load: Load
    count: int

    def __getitem__(self, order_id: str) -> Expected:
        number = self.load.number(order_id)
        if number >= self.count:
            raise KeyError(order_id)
        return self.load.expected(number)

    def __iter__(self) -> Iterator[str]:
        return (self.load.order(number).order_id for number in range(self.count))

    def __len__(self) -> int:
        return self.count
