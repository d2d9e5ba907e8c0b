"""Taking orders on: at once, exactly once per `Idempotency-Key`, and waiting for the end only if asked to.

The key is claimed in the transaction that writes the order and its outbox row, so there is no moment at which
one is there without the other. Once that is committed, the order stands, and no trouble turns the answer into
an error any more.

All requests with one key get one answer, and the database decides which: the first that is recorded there.
Without a wait, that is 202 with the order as PENDING, recorded with the order. With one, it is left open
until either the order's end is recorded as the answer (201), or a repeat comes, for which 202 is recorded;
the request that still waits then tells 202 as well. So a repeat neither waits nor is sent away, whether the
first request is still under way, has timed out or has died. No answer's text is stored: an order as it was
when it was taken on, and one that has ended, can each be told again from its row.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Final

from msgspec.structs import asdict
from sqlalchemy import Connection, event, select, update
from sqlalchemy.exc import SQLAlchemyError
from uuid_utils import uuid7

from common.domain.order import ENDS, OrderStatus
from common.envelope import timestamp
from common.errors import OverloadedError
from common.http.new_order import NewOrder
from common.http.problems import ProblemError
from common.http.views import view
from common.http.waiting import FIND_ORDER, Waiting
from common.messages import PlaceOrder
from common.patience import short
from common.runner import Runner
from common.store.journal import claim_key
from common.store.schema import IDEMPOTENCY

log = logging.getLogger(__name__)

_REUSED: Final = "urn:saga-lab:problem:idempotency-key-reused"
_OPEN: Final = HTTPStatus.PROCESSING
"""Recorded for a key while its answer is open."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told about an order that was to be placed."""

    status: HTTPStatus
    order: dict[str, Any]
    replayed: bool = False


@dataclass
class _Placement:
    """An order that is to be placed, under a key or without; `settle` it, and `row` is the order to tell."""

    command: PlaceOrder
    key: str | None
    waits: bool
    order_id: str = field(init=False)
    """Of the order to tell: an earlier one, if that was placed under the same key."""
    replayed: bool = field(init=False)
    answered: HTTPStatus = field(init=False)
    row: Mapping[str, Any] = field(init=False)

    def settle(self, transaction: Connection) -> Sequence[PlaceOrder]:
        """Claim the key for the order; or find what its requests are told, and make no order.

        Raises:
            ProblemError: the key was used for another order.
        """
        # An earlier try of this was rolled back, if there was one.
        self.order_id, self.replayed, self.answered = self.command.order_id, False, HTTPStatus.ACCEPTED
        if self.key is not None and not self._claim(transaction, self.key):
            earlier = transaction.execute(select(IDEMPOTENCY).where(IDEMPOTENCY.c.key == self.key)).one()
            self._repeat(transaction, earlier)
            return ()
        # The row is read as the last act of the transaction that writes it: a later read might fail, with the
        # order in place.
        event.listen(transaction, "commit", self._read)
        return (self.command,)

    def answer_with_end(self, transaction: Connection) -> Sequence[PlaceOrder]:
        """Record the order's end as the answer, unless a repeat has been told its beginning meanwhile.

        There is nothing more to do.
        """
        if not self._record(transaction, HTTPStatus.CREATED):
            self.answered = HTTPStatus.ACCEPTED
        return ()

    def _claim(self, transaction: Connection, key: str) -> bool:
        """Claim the key, unless it is claimed; of two instances at once, the second waits for the first."""
        row = {
            "key": key,
            "fingerprint": _fingerprint(self.command),
            "order_id": self.command.order_id,
            "answered": _OPEN if self.waits else HTTPStatus.ACCEPTED,
            "claimed_at": timestamp(datetime.now(UTC)),
        }
        return claim_key(transaction, row)

    def _repeat(self, transaction: Connection, earlier: Any) -> None:  # noqa: ANN401 - a row
        if earlier.fingerprint != _fingerprint(self.command):
            detail = "This Idempotency-Key was used for another order: use a new one, or send the same again."
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, _REUSED)
        self.replayed = True
        self.order_id = earlier.order_id
        if not self._record(transaction, HTTPStatus.ACCEPTED):
            self.answered = HTTPStatus(earlier.answered)
        self._read(transaction)

    def _record(self, transaction: Connection, answer: HTTPStatus) -> bool:
        still_open = (IDEMPOTENCY.c.key == self.key) & (IDEMPOTENCY.c.answered == _OPEN)
        done = transaction.execute(update(IDEMPOTENCY).where(still_open).values(answered=answer))
        return done.rowcount == 1

    def _read(self, transaction: Connection) -> None:
        self.row = transaction.execute(FIND_ORDER, {"order_id": self.order_id}).one()._asdict()


class Placing:
    """Takes orders for one instance of the Order service."""

    def __init__(self, runner: Runner, waiting: Waiting) -> None:
        self._runner = runner
        self._waiting = waiting

    async def place(self, new: NewOrder, key: str | None, wait_s: int) -> Answer:
        """Place an order, or tell what the key's requests are told.

        Raises:
            ProblemError: the key was used for another order.
            OverloadedError: too much waits for the broker; the order was not placed.
            SQLAlchemyError: the database can't be used; the order was not placed.
        """
        placement = _Placement(new.command(str(uuid7())), key, waits=wait_s > 0)
        await self._runner.submit(placement.settle)
        if wait_s and not placement.replayed:
            await self._wait_for_end(placement, wait_s)
        ended = placement.answered is HTTPStatus.CREATED
        order = view(placement.row) if ended else _as_accepted(placement.row)
        return Answer(placement.answered, order, placement.replayed)

    async def _wait_for_end(self, placement: _Placement, wait_s: int) -> None:
        """Make the order's end the answer if it comes in time."""
        row = await self._waiting.until(placement.order_id, ENDS, wait_s)
        if row is None:
            return
        placement.row = row
        placement.answered = HTTPStatus.CREATED
        if placement.key is None:
            return
        try:
            await self._runner.submit(placement.answer_with_end)
        except (OverloadedError, SQLAlchemyError) as error:
            placement.answered = HTTPStatus.ACCEPTED
            log.warning(
                "An order's end is not told, for it can't be recorded as the answer: %s", short(error)
            )


def _as_accepted(row: Mapping[str, Any]) -> dict[str, Any]:
    """The order as it was when it was taken on, whatever has become of it."""
    was = {"status": OrderStatus.PENDING, "reason": None, "updated_at": row["created_at"]}
    return view({**row, **was})


def _fingerprint(command: PlaceOrder) -> str:
    """The same for what means the same, however it is written."""
    meaning = {name: value for name, value in asdict(command).items() if name != "order_id"}
    return sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
