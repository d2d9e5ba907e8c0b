"""How long a service waits, and how often it tries again, before it takes something for failed.

All delays grow exponentially, so that a dependency in trouble is not kept there by its callers, and vary by
a jitter, so that what failed together is not tried again together. The jitter is derived from what is tried
again, not drawn, so that the same run has the same times.

Source: Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from zlib import crc32

_JITTER: Final = 0.2
"""The part of a delay that may be missing from it."""
_GROWTH: Final = 2
_LONGEST_DEADLINE: Final = 8
"""A deadline's longest interval, in multiples of its first."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What is waited for: an answer within `timeout_s` seconds, asked for `tries` times before giving up.

    Without a timeout, an operator is waited for; without a number of tries, it is asked for ever.
    """

    timeout_s: float | None
    tries: int | None = None

    def delay(self, tries: int, key: str) -> timedelta | None:
        """How long to wait after the `tries`th time of asking; None for as long as it takes."""
        if self.timeout_s is None:
            return None
        return _backoff(self.timeout_s, self.timeout_s * _LONGEST_DEADLINE, tries, key)

    def is_last(self, tries: int) -> bool:
        """Whether the `tries`th time of asking was the last."""
        return self.tries is not None and tries >= self.tries


@dataclass(frozen=True, slots=True)
class Recovery:
    """How patient a service is, the same in both modes; times are in seconds."""

    retry_first_s: float = 0.1
    retry_longest_s: float = 10.0
    retry_tries: int = 5
    undo_tries: int = 10
    step_timeout_s: float = 10.0
    order_timeout_s: float = 20.0
    deadline_tries: int = 3
    dedupe_window_s: float = 7 * 24 * 3600.0

    def retry_delay(self, tries: int, key: str) -> timedelta:
        """How long to wait after the `tries`th failure to process the message with this key."""
        return _backoff(self.retry_first_s, self.retry_longest_s, tries, key)

    def step(self) -> Limit:
        """For the answer to one step's command."""
        return Limit(self.step_timeout_s, self.deadline_tries)

    def undo(self) -> Limit:
        """For the answer to one undo: it is to succeed, so there are more tries."""
        return Limit(self.step_timeout_s, self.undo_tries)

    def order(self) -> Limit:
        """For the end of a whole order."""
        return Limit(self.order_timeout_s, self.deadline_tries)

    def undone_order(self) -> Limit:
        """For an order to be undone."""
        return Limit(self.order_timeout_s, self.undo_tries)

    def word(self) -> Limit:
        """For the end of an order about which somebody else decides: ask for ever, and never give up."""
        return Limit(self.order_timeout_s)

    def operator(self) -> Limit:
        """For a person."""
        return Limit(None)


Patience = Callable[[Recovery], Limit]
"""One of the limits above."""


def _backoff(first_s: float, longest_s: float, tries: int, key: str) -> timedelta:
    # The exponent is bounded, for a float is.
    delay = min(longest_s, first_s * _GROWTH ** min(tries - 1, 32))
    fraction = crc32(f"{key}/{tries}".encode()) / 2**32
    return timedelta(seconds=delay * (1 - _JITTER * fraction))
