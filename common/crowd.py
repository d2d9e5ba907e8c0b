"""When to wait for more before going on: many orders are served best together, and one alone at once."""

from __future__ import annotations

from typing import Final

LASTS_S: Final = 0.02
"""For which several orders at once are a sign of more to come."""


class Crowd:
    """Whether several orders are under way at once, by what arrives at a service: records, or requests.

    Of an order that is alone, one of them arrives at a time, however soon the next order follows it.
    """

    def __init__(self) -> None:
        self._until = 0.0

    def notice(self, orders: int, now: float) -> bool:
        """Note that so many orders have arrived together at a time, in seconds; whether it is a crowd."""
        if orders > 1:
            self._until = now + LASTS_S
        return now < self._until
