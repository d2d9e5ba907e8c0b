"""When to wait for more before going on: many orders are served best together, and one alone at once."""

from __future__ import annotations

from typing import Final

COLLECT_S: Final = 0.002
"""For which records are collected in a crowd: less makes smaller batches, more makes all of them late."""
_LASTS_S: Final = 0.02
"""For which several orders at once are a sign of more to come."""


class Crowd:
    """Whether several orders are under way at once, by what arrives at a service.

    Of an order that is alone, one record arrives at a time, however soon the next order follows it.
    """

    def __init__(self) -> None:
        self._until = 0.0

    def is_there(self, orders: int, now: float) -> bool:
        """Whether it is, now (in seconds) that records of so many different orders have arrived together."""
        if orders > 1:
            self._until = now + _LASTS_S
        return now < self._until
