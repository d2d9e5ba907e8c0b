"""The load generator: closed and open loops over a subject that ends orders as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from common.domain.order import OrderStatus
from common.errors import LabError
from common.messages import PlaceOrder
from compare.bench.drive import Drive
from compare.bench.load import Load, draw
from compare.bench.subject import Costs, Ended, Expected


class Instant:
    """A subject whose orders end as soon as the event loop comes to it, but for those that it loses.

    With `stalls_s`, it takes the first orders that long to be taken on.
    """

    name = "instant"

    def __init__(self, load: Load, lost: Sequence[int] = (), stalls_s: float = 0.0) -> None:
        self.most_under_way = 0
        self.broken = False
        self._load = load
        self._lost = {load.order(number).order_id for number in lost}
        self._stalls_s = stalls_s
        self._under_way = 0

    async def start(self, ended: Ended) -> None:
        self._ended = ended

    async def place(self, orders: Sequence[PlaceOrder]) -> None:
        stalls_s, self._stalls_s = self._stalls_s, 0.0
        if stalls_s:
            await asyncio.sleep(stalls_s)
        self._under_way += len(orders)
        self.most_under_way = max(self.most_under_way, self._under_way)
        for order in orders:
            if order.order_id not in self._lost:
                asyncio.get_running_loop().call_soon(self._end, order.order_id)

    def check(self) -> None:
        if self.broken:
            raise LabError("it is broken")

    async def settle(self) -> None: ...

    def mark(self) -> None: ...

    async def costs(self) -> Costs:
        return Costs(None, None, None)

    async def judge(self, _: Mapping[str, Expected]) -> tuple[str, ...]:
        return ()

    async def stop(self) -> None: ...

    def _end(self, order_id: str) -> None:
        self._under_way -= 1
        self._ended(order_id, self._load.expected(self._load.number(order_id)).status)


async def driven(subject: Instant, load: Load) -> Drive:
    """A drive over a subject that has started."""
    drive = Drive(subject, load)
    await subject.start(drive.ended)
    return drive


async def test_a_closed_loop_keeps_no_more_under_way_than_it_may() -> None:
    """The next are placed when some have ended, and not before."""
    load = draw(0.25, 1)
    subject = Instant(load)
    tally = await (await driven(subject, load)).closed(7, 100, 30, 5)
    assert subject.most_under_way == 7
    assert (tally.placed, tally.ended, len(tally.failed)) == (100, 100, 25)


async def test_a_closed_loop_ends_when_its_time_is_over() -> None:
    """A slow subject isn't waited for until all orders are placed."""
    load = draw(0, 1)
    drive = await driven(Instant(load, lost=[0]), load)
    tally = await drive.closed(1, 100, 0.01, 0.01)
    assert (tally.placed, tally.ended) == (1, 0)


async def test_orders_that_never_end_are_counted() -> None:
    """They are neither waited for for ever nor forgotten."""
    load = draw(0, 1)
    drive = await driven(Instant(load, lost=[3, 5]), load)
    tally = await drive.open(1_000, 20, 0.05)
    assert (tally.placed, tally.ended) == (20, 18)


async def test_an_open_loop_counts_from_the_intended_start() -> None:
    """While a subject stalls, orders become due; what they wait until they are placed is theirs, too."""
    load = draw(0, 1)
    drive = await driven(Instant(load, stalls_s=0.2), load)
    tally = await drive.open(100, 20, 5)
    assert tally.ended == 20
    assert max(tally.completed) >= 0.2


async def test_an_open_loop_places_whatever_becomes_of_the_others() -> None:
    """Orders that don't end keep no other from being placed."""
    load = draw(0, 1)
    drive = await driven(Instant(load, lost=range(50)), load)
    tally = await drive.open(1_000, 50, 0.01)
    assert tally.placed == 50


async def test_an_end_that_is_told_again_counts_once() -> None:
    """A subject that delivers at least once may tell it twice."""
    load = draw(0, 1)
    drive = await driven(Instant(load), load)
    tally = await drive.closed(1, 3, 5, 5)
    drive.ended(load.order(0).order_id, OrderStatus.COMPLETED)
    assert (tally.ended, drive.all_ended) == (3, 3)


async def test_an_end_after_the_phase_belongs_to_no_later_one() -> None:
    """Else a late order of one phase would shorten the next one's times."""
    load = draw(0, 1)
    drive = await driven(Instant(load, lost=[0]), load)
    await drive.closed(1, 1, 0.01, 0.01)
    drive.ended(load.order(0).order_id, OrderStatus.COMPLETED)
    assert (drive.tally.ended, drive.all_ended) == (0, 1)


async def test_a_subject_that_cant_go_on_is_an_error() -> None:
    """What is waited for would never come."""
    load = draw(0, 1)
    subject = Instant(load, lost=[0])
    drive = await driven(subject, load)
    subject.broken = True
    with pytest.raises(LabError, match="broken"):
        await drive.closed(1, 1, 30, 30)
