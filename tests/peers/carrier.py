"""The process that carries orders out with a peer, and is killed: `python -m tests.peers.carrier`.

Its arguments: the peer, a folder, the URL of a PostgreSQL server or "", after how many ends it kills itself
(0: it doesn't), how many orders have to end in all, and those to place as JSON. It prints the id of each
order accepted, and "all" once all have ended. It only dies while an order that was accepted hasn't ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

from msgspec import json
from sqlalchemy import func, select

from common.domain.order import ENDS, OrderStatus
from common.messages import PlaceOrder
from common.services import ORDERS
from common.store.database import Database
from common.store.postgresql import server_url
from compare.peers import make_peer
from compare.peers.peer import Peer, Terms
from tests.peers.orders import STOCK

_PAUSE_S: Final = 0.05


class Carrier:
    """A peer with orders to carry out."""

    def __init__(self, peer: Peer, deadly: int) -> None:
        self._peer = peer
        self._deadly = deadly
        self._ends = 0
        self._accepted = 0

    async def carry_out(self, orders: list[PlaceOrder], count: int) -> None:
        """Place the orders, and die, or wait for all."""
        await self._peer.start(self._ended)
        await asyncio.gather(*map(self._place, orders))
        # Not `settle`, which knows nothing of the orders of the process before.
        while self._deadly or await self._is_under_way(count):  # noqa: ASYNC110 - it is in databases
            await asyncio.sleep(_PAUSE_S)
        print("all", flush=True)  # noqa: T201 - its parent reads it
        # Nothing is stopped, as that would remove what the parent is to look at; nor is anything waited for.
        os._exit(0)

    async def _is_under_way(self, count: int) -> bool:
        return ended_orders(self._peer.services.order.database) < count or await self._peer.busy()

    async def _place(self, order: PlaceOrder) -> None:
        await self._peer.place([order])
        print(order.order_id, flush=True)  # noqa: T201 - as above
        self._accepted += 1
        self._die_in_time()

    def _ended(self, _: str, __: OrderStatus) -> None:
        self._ends += 1
        self._die_in_time()

    def _die_in_time(self) -> None:
        if self._deadly and self._deadly <= self._ends < self._accepted:
            os.kill(os.getpid(), signal.SIGKILL)


def ended_orders(database: Database) -> int:
    """How many orders have ended."""
    with database.read() as connection:
        query = select(func.count()).select_from(ORDERS.table).where(ORDERS.table.c.status.in_(ENDS))
        return int(connection.scalar(query) or 0)


def main(name: str, folder: str, server: str, deadly: str, count: str, orders: str) -> None:
    """Do what the arguments say."""
    terms = Terms(
        folder=Path(folder),
        stock=STOCK,
        synchronous="FULL",
        server=server_url(server) if server else None,
        run="crash",
    )
    carrier = Carrier(make_peer(name, terms), int(deadly))
    asyncio.run(carrier.carry_out(json.decode(orders, type=list[PlaceOrder]), int(count)))


if __name__ == "__main__":
    main(*sys.argv[1:])
