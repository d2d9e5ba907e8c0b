"""Waiting for what becomes of an order, for as long as a client would."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from common.domain.order import OrderStatus
from common.runner import Runner
from common.services import ORDERS

# Built once: building a statement costs as much as running it.
FIND_ORDER: Final = select(ORDERS.table).where(ORDERS.table.c.order_id == bindparam("order_id"))
_LOOK_EVERY_S: Final = 0.25
"""How often an order is looked up: another instance may be the one to change it."""


class Waiting:
    """Waits for one instance of the Order service; once `closing` is set, nothing is waited for."""

    def __init__(self, runner: Runner, closing: asyncio.Event) -> None:
        self._runner = runner
        self._closing = closing

    async def until(
        self, order_id: str, statuses: Collection[OrderStatus], wait_s: int
    ) -> Mapping[str, Any] | None:
        """The order's row once it has one of the statuses; None if that takes more than `wait_s` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while (left := deadline - loop.time()) > 0 and not self._closing.is_set():
            # Listen first and look then, or what happens between is missed.
            news = asyncio.create_task(self._runner.progress(min(left, _LOOK_EVERY_S)))
            try:
                with suppress(SQLAlchemyError):  # the next look may succeed
                    row = await run_in_threadpool(self._look, order_id)
                    if row["status"] in statuses:
                        return row
                await news
            finally:
                news.cancel()
        return None

    def _look(self, order_id: str) -> Mapping[str, Any]:
        with self._runner.core.database.read() as connection:
            return connection.execute(FIND_ORDER, {"order_id": order_id}).one()._asdict()
