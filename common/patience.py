"""Waiting for broker and database to recover: try again for ever, say why, and let go when it is to stop.

The log has a line when one of them fails, one now and then while it does, and one when it is back, with the
time that this took; however often it is tried, and however many tasks wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import Any, Final, TypeVar

from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from common.errors import BrokerError

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 2.0
_COMPLAIN_AFTER_S: Final = 10.0
_REMIND_EVERY_S: Final = 60.0
_SETTLED_S: Final = 10.0
"""How long something must have worked for its next failure to be told at once."""


class StoppingError(Exception):
    """The service is to stop: whatever is being waited for is given up."""


class Needed(StrEnum):
    """What a service can't do without."""

    DATABASE = "database"
    BROKER = "broker"

    @classmethod
    def by(cls, error: Exception) -> Needed:
        """What such an error is about."""
        return cls.DATABASE if isinstance(error, SQLAlchemyError) else cls.BROKER


@dataclass
class _Condition:
    """How it stands with what is needed; `failing` has, by what can't be done, the reason."""

    name: str
    failing: dict[str, str] = field(default_factory=dict)
    since: float = 0.0
    told: bool = False
    quiet_until: float = 0.0


class Patience:
    """How one service waits for its surroundings; `service` is its name in the log.

    `database` and `broker` tell where those are.
    """

    def __init__(self, service: str, *, database: str = "", broker: str = "") -> None:
        self._service = service
        self._stopping = asyncio.Event()
        self._interruptible: asyncio.Future[Any] | None = None
        self._conditions = {
            Needed.DATABASE: _Condition(f"database {database}".rstrip()),
            Needed.BROKER: _Condition(f"broker {broker}".rstrip()),
        }
        broker_condition = self._conditions[Needed.BROKER]
        broker_condition.failing["connecting"] = "not connected yet"
        broker_condition.since = monotonic()

    @property
    def stopping(self) -> bool:
        """Whether the service is to stop."""
        return self._stopping.is_set()

    def trouble(self, needed: Needed) -> str | None:
        """What can't be done for want of it, and why; None if nothing is known to fail."""
        return "; ".join(dict.fromkeys(self._conditions[needed].failing.values())) or None

    def stop(self) -> None:
        """Give up whatever is being waited for, now and later."""
        self._stopping.set()
        if self._interruptible is not None:
            self._interruptible.cancel()

    def failed(self, needed: Needed, doing: str, reason: str) -> None:
        """Note that something can't be done for want of it, and say so in the log unless that is known."""
        condition, now = self._conditions[needed], monotonic()
        if not condition.failing:
            condition.since = now
        condition.failing[doing] = reason
        if now < condition.quiet_until:
            return
        still = f" after {now - condition.since:.0f} s, still" if condition.told else ""
        log.warning(
            "%s: the %s can't be used%s (%s); it is tried again until it can",
            self._service, condition.name, still, reason,
        )  # fmt: skip
        condition.told = True
        condition.quiet_until = now + _REMIND_EVERY_S

    def works(self, needed: Needed, *doings: str) -> None:
        """Note that these can be done."""
        condition = self._conditions[needed]
        known = [condition.failing.pop(doing) for doing in doings if doing in condition.failing]
        if condition.failing or not (known and condition.told):
            return
        now = monotonic()
        log.warning("%s: the %s is back after %.1f s", self._service, condition.name, now - condition.since)
        condition.told = False
        condition.quiet_until = now + _SETTLED_S

    async def insist(self, doing: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try again and again while broker or database are in trouble; `doing` says what, in the log.

        Raises:
            StoppingError: the service is to stop before it has succeeded.
        """
        overtaken = False
        for delay in _backoff():
            try:
                result = await attempt()
            except (BrokerError, KafkaError, SQLAlchemyError) as error:
                # Of two instances that add a row at once, one is told so, and finds it at its next try.
                if overtaken or not isinstance(error, IntegrityError):
                    self.failed(Needed.by(error), doing, f"{doing}: {short(error)}")
                overtaken = True
            else:
                for needed in Needed:
                    self.works(needed, doing)
                return result
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            if self.stopping:
                break
        raise StoppingError

    async def unless_stopping(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it.

        Raises:
            StoppingError: the service is to stop before it is done; it is cancelled.
        """
        self._interruptible = asyncio.ensure_future(work)
        if self.stopping:
            self._interruptible.cancel()
        try:
            result: T = await self._interruptible
        except asyncio.CancelledError:
            if self.stopping:
                raise StoppingError from None
            raise
        return result

    async def complaining(self, work: Coroutine[Any, Any, None], complaint: str) -> None:
        """Connect to the broker by `work`, and complain now and then that it isn't done yet."""
        working = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({working}, timeout=_COMPLAIN_AFTER_S))[0]:
                self.failed(Needed.BROKER, "connecting", complaint)
        finally:
            working.cancel()
        working.result()


async def until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Do all at once until one ends, raise the error that it ends with, and cancel the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        for task in tasks:
            task.add_done_callback(_forget_error)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


def _forget_error(task: asyncio.Task[None]) -> None:
    """Have asyncio not complain of an error that nobody asks for: all is given up."""
    if not task.cancelled():
        task.exception()


def short(error: Exception) -> str:
    """An error's own words in one line, without statements and parameters."""
    text = str(error.orig if isinstance(error, DBAPIError) else error)
    return " ".join(text.split()) or repr(error)


def _backoff() -> Iterator[float]:
    """Seconds to wait before each next try, doubling up to a limit, for ever."""
    delay = _FIRST_RETRY_S
    while True:
        yield delay
        delay = min(2 * delay, _LAST_RETRY_S)
