"""Each peer carries out the saga rightly, and its judge sees when it doesn't."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import select, update

from common.domain.inventory import ReservationStatus
from common.domain.order import OrderStatus
from common.messages import PlaceOrder, Reason
from common.services import ORDERS, PAYMENTS, RESERVATIONS, STOCK
from compare.peers import make_peer
from compare.peers.peer import Peer, Terms
from tests.peers.conftest import NAMES
from tests.peers.orders import PRICE_CENTS, make_orders

LIMIT_S = 30

MakeTerms = Callable[[dict[str, int]], Terms]

pytestmark = [pytest.mark.live, pytest.mark.parametrize("name", NAMES)]


@dataclass
class Running:
    """A peer that runs, and the ends that it has told of."""

    peer: Peer
    ends: Counter[tuple[str, OrderStatus]] = field(default_factory=Counter)


@asynccontextmanager
async def running(name: str, terms: Terms) -> AsyncIterator[Running]:
    """A peer, from its start to its end."""
    peer = make_peer(name, terms)
    run = Running(peer)

    def ended(order_id: str, status: OrderStatus) -> None:
        run.ends[order_id, status] += 1

    try:
        await peer.start(ended)
        yield run
    finally:
        await peer.stop()


async def settled(peer: Peer) -> None:
    """Wait for all that was placed."""
    async with asyncio.timeout(LIMIT_S):
        await peer.settle()


async def test_orders_end_rightly_and_once(name: str, terms: MakeTerms, stock: dict[str, int]) -> None:
    """Orders are completed or undone as they have to be, each end is told once, and the judge agrees."""
    orders = make_orders(12)
    async with running(name, terms(stock)) as run:
        await run.peer.place([order for order, _ in orders.values()])
        await settled(run.peer)
        assert await run.peer.judge({key: due for key, (_, due) in orders.items()}) == ()
        assert run.ends == Counter((key, due.status) for key, (_, due) in orders.items())
        run.peer.check()


async def test_an_order_that_is_placed_again_is_carried_out_once(
    name: str, terms: MakeTerms, stock: dict[str, int]
) -> None:
    """Whoever isn't sure that an order was accepted may place it again."""
    if name == "faststream":
        pytest.skip("it promises nothing of the kind")
    orders = make_orders(3)
    async with running(name, terms(stock)) as run:
        await run.peer.place([order for order, _ in orders.values()])
        await settled(run.peer)
        await run.peer.place([])
        for order, _ in orders.values():
            await run.peer.submit(order)
        assert await run.peer.judge({key: due for key, (_, due) in orders.items()}) == ()


async def test_what_is_out_of_stock_is_refused(name: str, terms: MakeTerms) -> None:
    """Of two that want the last piece one gets it; the other fails for that reason, and is not charged."""
    orders = [
        PlaceOrder(
            order_id=f"order-{one}", customer_id=one, item="laptop", quantity=1, price_cents=PRICE_CENTS
        )
        for one in ("ann", "bob")
    ]
    async with running(name, terms({"laptop": 1})) as run:
        await run.peer.place(orders)
        await settled(run.peer)
        databases = run.peer.services.databases
        with databases["order"].read() as connection:
            ends = connection.execute(select(ORDERS.table.c.status, ORDERS.table.c.reason)).all()
        with databases["inventory"].read() as connection:
            left = connection.scalar(select(STOCK.table.c.available))
            held = connection.scalars(select(RESERVATIONS.table.c.status)).all()
        with databases["payment"].read() as connection:
            charged = connection.scalars(select(PAYMENTS.table.c.order_id)).all()
    assert sorted(map(tuple, ends), key=str) == [
        (OrderStatus.COMPLETED, None),
        (OrderStatus.FAILED, Reason.OUT_OF_STOCK),
    ]
    assert left == 0
    assert sorted(held) == [ReservationStatus.REJECTED, ReservationStatus.RESERVED]
    assert len(charged) == 1


async def test_a_wrong_outcome_is_seen(name: str, terms: MakeTerms, stock: dict[str, int]) -> None:
    """The judge finds an order that was to end in another way, and goods that are missing."""
    orders = make_orders(3)
    async with running(name, terms(stock)) as run:
        await run.peer.place([order for order, _ in orders.values()])
        await settled(run.peer)
        with run.peer.services.inventory.database.write() as transaction:
            transaction.execute(update(STOCK.table).values(available=STOCK.table.c.available - 1))
        due = {key: replace(due, amount_cents=due.amount_cents + 1) for key, (_, due) in orders.items()}
        faults = await run.peer.judge(due)
    assert any("a payment is wrong" in fault for fault in faults)
    assert any("of 1000 laptop" in fault for fault in faults)


async def test_costs_count_from_the_mark_on(name: str, terms: MakeTerms, stock: dict[str, int]) -> None:
    """Costs that are known are of what came after the mark; what can't be known isn't told."""
    async with running(name, terms(stock)) as run:
        await run.peer.place([order for order, _ in make_orders(3).values()])
        await settled(run.peer)
        run.peer.mark()
        before = await run.peer.costs()
        await run.peer.place([order for order, _ in make_orders(3).values()])
        await settled(run.peer)
        after = await run.peer.costs()
    if before.commits is None:
        assert after.commits is None
    else:
        assert before.commits == 0 or name.startswith(
            "dbos"
        )  # which has threads that look after other things
        assert after.commits is not None
        assert after.commits >= 3 * 4
    assert (before.records, after.records) == ((0, 2 * 4 + 5) if name == "faststream" else (None, None))
