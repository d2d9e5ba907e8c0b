"""Waiting for broker and database to recover: try again for ever, say why, and let go when it is to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from common.errors import BrokerError

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 2.0
_COMPLAIN_EVERY_S: Final = 10.0


class StoppingError(Exception):
    """The service is to stop: whatever is being waited for is given up."""


class Patience:
    """How one service waits for its surroundings; `service` is its name in the log."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._stopping = asyncio.Event()
        self._interruptible: asyncio.Future[Any] | None = None
        self._troubles: dict[str, str] = {"connecting": "not connected yet"}

    @property
    def stopping(self) -> bool:
        """Whether the service is to stop."""
        return self._stopping.is_set()

    @property
    def trouble(self) -> str | None:
        """What is being waited for; None if nothing is."""
        return "; ".join(self._troubles.values()) or None

    def stop(self) -> None:
        """Give up whatever is being waited for, now and later."""
        self._stopping.set()
        if self._interruptible is not None:
            self._interruptible.cancel()

    async def insist(self, doing: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try again and again while broker or database are in trouble; `doing` says what, in the log.

        Raises:
            StoppingError: the service is to stop before it has succeeded.
        """
        for delay in _backoff():
            try:
                result = await attempt()
            except (BrokerError, KafkaError, SQLAlchemyError) as error:
                self._troubles[doing] = f"{doing}: {short(error)}"
                log.warning("%s has trouble %s, and tries again: %s", self._service, doing, short(error))
            else:
                self._troubles.pop(doing, None)
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
        """Do it, and complain now and then that it isn't done yet."""
        working = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({working}, timeout=_COMPLAIN_EVERY_S))[0]:
                self._troubles["connecting"] = complaint
                log.warning("%s: %s", self._service, complaint)
        finally:
            working.cancel()
        working.result()


async def until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Do all at once until one ends, raise the error that it ends with, and cancel the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


def short(error: Exception) -> str:
    """An error's own words, without statements and parameters."""
    return str(error.orig if isinstance(error, DBAPIError) else error) or repr(error)


def _backoff() -> Iterator[float]:
    """Seconds to wait before each next try, doubling up to a limit, for ever."""
    delay = _FIRST_RETRY_S
    while True:
        yield delay
        delay = min(2 * delay, _LAST_RETRY_S)
