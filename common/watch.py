"""Looking after what a service needs, also while it has nothing to do: can it write, does the broker answer?

What is found is in the log, and in `/health/ready`. Without that, a full disk would first be noticed by a
customer, and an idle service would never miss its broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from common.core import Core
from common.patience import Needed, Patience, short
from common.subscription import Subscription

_LOOK_EVERY_S: Final = 5.0
_ANSWER_LIMIT_S: Final = 3.0
"""Longer than a request for health can wait: what is said here is in the log."""
_TRIAL: Final = "a trial"
_REQUESTS: Final = "requests"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a service can do its work: each is None when all is well, or says what is wrong."""

    database: str | None
    broker: str | None
    backlog: int
    """Records that wait to be published."""

    @property
    def ready(self) -> bool:
        """Whether nothing is wrong."""
        return self.database is None and self.broker is None


class Watch:
    """Watches for one runner; `in_turn` runs a write when no other one is under way."""

    def __init__(
        self,
        core: Core,
        subscription: Subscription,
        patience: Patience,
        in_turn: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> None:
        self._core = core
        self._subscription = subscription
        self._patience = patience
        self._in_turn = in_turn

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            await asyncio.gather(self._try_database(), self._ask_broker())
            await asyncio.sleep(_LOOK_EVERY_S)

    async def readiness(self) -> Readiness:
        """Ask database and broker how they are; it takes a second or so at most."""
        broker = self._patience.trouble(Needed.BROKER) or await self._subscription.trouble()
        backlog, unreadable = 0, None
        try:
            # Not in the service's thread, where it would wait for a write that takes long.
            backlog = await asyncio.to_thread(self._core.backlog)
        except SQLAlchemyError as error:
            unreadable = f"reading: {short(error)}"
        return Readiness(self._patience.trouble(Needed.DATABASE) or unreadable, broker, backlog)

    def request_failed(self, error: SQLAlchemyError) -> None:
        """Note that a request could not be served for want of the database, until the next write succeeds."""
        if not isinstance(error, IntegrityError):  # another instance was faster, which is no trouble
            self._patience.failed(Needed.DATABASE, _REQUESTS, f"a request: {short(error)}")

    async def _try_database(self) -> None:
        try:
            await self._in_turn(self._core.try_to_write)
        except SQLAlchemyError as error:
            self._patience.failed(Needed.DATABASE, _TRIAL, f"{_TRIAL}: {short(error)}")
        else:
            self._patience.works(Needed.DATABASE, _TRIAL, _REQUESTS)

    async def _ask_broker(self) -> None:
        reason = await self._subscription.silence(_ANSWER_LIMIT_S)
        if reason is None:
            self._patience.works(Needed.BROKER, _TRIAL)
        else:
            self._patience.failed(Needed.BROKER, _TRIAL, reason)
