"""Taking orders on: at once, exactly once per `Idempotency-Key`, and waiting for the end only if asked to.

The key is claimed in the transaction that writes the order and its outbox row, so there is no moment at which
one is there without the other. No answer is stored: an order as it was when it was taken on, and one that has
ended, can each be told again from its row.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Final

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Connection, bindparam, select, update
from uuid_utils import uuid7

from common.domain.order import OrderStatus
from common.http.new_order import NewOrder
from common.http.problems import ProblemError
from common.http.views import view
from common.messages import PlaceOrder
from common.runner import Runner
from common.services import ORDERS
from common.store.schema import IDEMPOTENCY

_REUSED: Final = "urn:saga-lab:problem:idempotency-key-reused"
# Built once: building a statement costs as much as running it.
_FIND: Final = select(ORDERS.table).where(ORDERS.table.c.order_id == bindparam("order_id"))
_LOOK_EVERY_S: Final = 0.25
"""How often an order is looked up while its end is waited for: another instance may be the one to end it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told about an order that was to be placed."""

    status: HTTPStatus
    order: dict[str, Any]
    replayed: bool = False


@dataclass
class _Claim:
    """An order under an idempotency key; `earlier` is what the key led to before, if it did."""

    key: str
    fingerprint: str
    command: PlaceOrder
    earlier: Any = None

    def settle(self, transaction: Connection) -> PlaceOrder | None:
        """Claim the key for the order, or find whose it is."""
        self.earlier = transaction.execute(select(IDEMPOTENCY).where(IDEMPOTENCY.c.key == self.key)).first()
        if self.earlier is not None:
            return None
        order_id, answered = self.command.order_id, HTTPStatus.ACCEPTED
        transaction.execute(
            IDEMPOTENCY.insert().values(
                key=self.key, fingerprint=self.fingerprint, order_id=order_id, answered=answered
            )
        )
        return self.command

    def answer_with_end(self, transaction: Connection) -> None:
        """Remember that the first answer tells the order's end."""
        mine = IDEMPOTENCY.c.key == self.key
        transaction.execute(update(IDEMPOTENCY).where(mine).values(answered=HTTPStatus.CREATED))


class Placing:
    """Takes orders for one instance of the Order service; once `closing` is set, no end is waited for."""

    def __init__(self, runner: Runner, closing: asyncio.Event) -> None:
        self._runner = runner
        self._closing = closing

    async def place(self, new: NewOrder, key: str | None, wait_s: int) -> Answer:
        """Place an order, or tell what the key's first request was told.

        Raises:
            ProblemError: the key was used for another order.
        """
        command = new.command(str(uuid7()))
        if key is None:
            await self._runner.submit(lambda _: command)
            return await self._first_answer(command.order_id, wait_s)
        claim = _Claim(key, _fingerprint(new), command)
        await self._runner.submit(claim.settle)
        if claim.earlier is not None:
            return await self._repeat(claim)
        answer = await self._first_answer(command.order_id, wait_s)
        if answer.status is HTTPStatus.CREATED:
            await self._runner.submit(claim.answer_with_end)
        return answer

    async def _first_answer(self, order_id: str, wait_s: int) -> Answer:
        order = await self._end_of(order_id, wait_s) if wait_s else None
        if order is not None:
            return Answer(HTTPStatus.CREATED, view(order))
        return Answer(HTTPStatus.ACCEPTED, _as_accepted(await self._row(order_id)))

    async def _repeat(self, claim: _Claim) -> Answer:
        if claim.earlier.fingerprint != claim.fingerprint:
            detail = "This Idempotency-Key was used for another order: use a new one, or send the same again."
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, _REUSED)
        row = await self._row(claim.earlier.order_id)
        ended = claim.earlier.answered == HTTPStatus.CREATED
        status = HTTPStatus(claim.earlier.answered)
        return Answer(status, view(row) if ended else _as_accepted(row), replayed=True)

    async def _end_of(self, order_id: str, wait_s: int) -> Mapping[str, Any] | None:
        """Wait for the order's end; None if that doesn't come in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while (left := deadline - loop.time()) > 0 and not self._closing.is_set():
            # Listen first and look then, or what happens between is missed.
            news = asyncio.create_task(self._runner.progress(min(left, _LOOK_EVERY_S)))
            try:
                row = await self._row(order_id)
                if row["status"] != OrderStatus.PENDING:
                    return row
                await news
            finally:
                news.cancel()
        return None

    async def _row(self, order_id: str) -> Mapping[str, Any]:
        return await run_in_threadpool(self._read, order_id)

    def _read(self, order_id: str) -> Mapping[str, Any]:
        with self._runner.core.database.read() as connection:
            return connection.execute(_FIND, {"order_id": order_id}).one()._asdict()


def _as_accepted(row: Mapping[str, Any]) -> dict[str, Any]:
    """The order as it was when it was taken on, whatever has become of it."""
    was = {"status": OrderStatus.PENDING, "reason": None, "updated_at": row["created_at"]}
    return view({**row, **was})


def _fingerprint(new: NewOrder) -> str:
    """The same for what means the same, however it is written."""
    meaning = new.command("").model_dump()
    return sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
