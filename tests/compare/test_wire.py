"""The wire: what it does to a record, it does to that one, once, and nothing of one order is overtaken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from common.envelope import Outgoing, origin, seal
from common.errors import BrokerError
from common.messages import InventoryReserved, OrderCreated
from compare.injection import Injection
from compare.wire import Wire, WiredPublisher
from tests.compare.recordings import CHOREOGRAPHED, PAID, scenario
from tests.pump import NOW, order_id

TOPIC: Final = "orders.events"


class Broker:
    """Keeps what it is sent; as often as `away` says, it isn't there."""

    def __init__(self, away: int = 0) -> None:
        self.records: list[Outgoing] = []
        self.arrived = asyncio.Event()
        self._away = away

    async def start(self) -> None:
        """Nothing to connect to."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Keep the records, or be away."""
        if self._away:
            self._away -= 1
            raise BrokerError("away")
        self.records += records
        self.arrived.set()
        self.arrived = asyncio.Event()

    async def stop(self) -> None:
        """Nothing to disconnect from."""

    async def until(self, count: int) -> None:
        """Wait until so many records are here."""
        async with asyncio.timeout(10):
            while len(self.records) < count:
                await self.arrived.wait()


class NoEnds:
    """No order ever ends, or each has ended at once."""

    def __init__(self, *, ended: bool) -> None:
        self._ended = ended

    async def until_ended(self, order_id: str) -> None:
        """Wait for the end of an order."""
        del order_id
        if not self._ended:
            await asyncio.Event().wait()


def created(number: int = 1, attempt: int = 1) -> Outgoing:
    """What asks Inventory to reserve, in choreography."""
    message = OrderCreated(
        order_id=order_id(number), customer_id="alice", item="laptop", quantity=1, price_cents=1
    )
    because = origin(message.order_id, 0)
    because = type(because)(because.id, because.correlation_id, because.trace_id, 0, attempt)
    return seal(message, because, source="/choreographed/order", topic=TOPIC, index=0, now=NOW)


def reserved(number: int = 1) -> Outgoing:
    """Something else about the order, on the same topic for the sake of the test."""
    message = InventoryReserved(order_id=order_id(number), item="laptop", quantity=1)
    because = origin(message.order_id, 0)
    return seal(message, because, source="/choreographed/order", topic=TOPIC, index=1, now=NOW)


@asynccontextmanager
async def wired(
    *faults: dict[str, Any], ended: bool = False, away: int = 0
) -> AsyncIterator[tuple[WiredPublisher, Broker, Injection, Wire]]:
    """A service's publisher, what the broker gets, and the wire between them."""
    broker = Broker(away)
    names = {order_id(number): None for number in range(1, 5)}
    injection = Injection(scenario(PAID, faults=faults), CHOREOGRAPHED, names)
    wire = Wire(injection, broker, NoEnds(ended=ended))
    try:
        yield WiredPublisher("order", wire, broker), broker, injection, wire
    finally:
        await wire.stop()


async def test_without_faults_it_is_a_wire() -> None:
    """What is handed over arrives, as it is and in its order."""
    async with wired() as (publisher, broker, _, wire):
        await publisher.publish([created(1), created(2)])
        assert broker.records == [created(1), created(2)]
        assert wire.idle


async def test_a_lost_record_never_arrives() -> None:
    """Not when it is handed over again, either; but told again with a higher attempt, it does."""
    async with wired({"fault": "lose", "step": "reserve"}) as (publisher, broker, injection, _):
        await publisher.publish([created(1), created(2)])
        await publisher.publish([created(1)])
        assert broker.records == [created(2)]
        await publisher.publish([created(1, attempt=2)])
        assert broker.records == [created(2), created(1, attempt=2)]
        [struck] = injection.struck
        assert (struck.order_id, struck.service, struck.over is not None) == (order_id(1), "order", True)


@pytest.mark.parametrize(("times", "arrive"), [(2, 1), ("always", 0)])
async def test_a_record_can_get_lost_several_times(times: object, arrive: int) -> None:
    """As often as the fault says, or always, each time that it is told again."""
    fault = {"fault": "lose", "step": "reserve", "times": times}
    async with wired(fault) as (publisher, broker, injection, _):
        for attempt in (1, 2, 3):
            await publisher.publish([created(1, attempt)])
        assert len(broker.records) == arrive
        assert len(injection.struck) == 3 - arrive


async def test_the_nth_record_is_struck() -> None:
    """Records of the step are counted by order, whatever is told again; strangers' don't count."""
    async with wired({"fault": "lose", "step": "reserve", "nth": 2}) as (publisher, broker, _, _):
        await publisher.publish([created(9), created(1), created(1), created(2), created(3)])
        assert broker.records == [created(9), created(1), created(1), created(3)]


async def test_a_duplicate_is_put_on_the_broker_so_many_times_more() -> None:
    """The copies are the record, with its id, and are made once."""
    fault = {"fault": "duplicate", "step": "reserve", "times": 2}
    async with wired(fault) as (publisher, broker, _, _):
        await publisher.publish([created(1), created(2)])
        await publisher.publish([created(1, attempt=2)])
        assert broker.records == [created(1)] * 3 + [created(2), created(1, attempt=2)]


async def test_poison_keeps_the_envelope_and_breaks_the_body() -> None:
    """So it comes to the one who would have read it."""
    async with wired({"fault": "poison", "step": "reserve"}) as (publisher, broker, _, _):
        await publisher.publish([created(1)])
        [record] = broker.records
        assert (record.headers, record.key) == (created(1).headers, created(1).key)
        with pytest.raises(UnicodeDecodeError):
            (record.value or b"").decode()


async def test_a_delayed_record_holds_up_what_is_behind_it() -> None:
    """Of its order on its topic; others pass, and a repetition while it is held adds nothing."""
    fault = {"fault": "delay", "step": "reserve", "seconds": 0.2}
    async with wired(fault) as (publisher, broker, injection, wire):
        await publisher.publish([created(1), reserved(1), created(2)])
        await publisher.publish([created(1)])
        assert broker.records == [created(2)]
        assert not wire.idle
        assert injection.struck[0].over is None
        await broker.until(3)
        assert broker.records == [created(2), created(1), reserved(1)]
        await publisher.publish([reserved(2)])
        assert broker.records[-1] == reserved(2)


async def test_what_is_held_arrives_though_the_broker_was_away() -> None:
    """The wire tries again until it has it."""
    fault = {"fault": "delay", "step": "reserve", "seconds": 0.01}
    async with wired(fault, away=2) as (publisher, broker, _, _):
        await publisher.publish([created(1)])
        await broker.until(1)
        assert broker.records == [created(1)]


async def test_a_reordered_record_is_overtaken_by_another_order() -> None:
    """By the next of its type, and never by one of its own order."""
    async with wired({"fault": "reorder", "step": "reserve"}) as (publisher, broker, _, _):
        await publisher.publish([created(1), reserved(1), created(2)])
        await broker.until(3)
        assert broker.records == [created(2), created(1), reserved(1)]


async def test_a_replayed_record_comes_again_after_the_end() -> None:
    """Once its order has ended, the record that was there comes once more, with its id."""
    fault = {"fault": "replay", "step": "reserve"}
    async with wired(fault, ended=True) as (publisher, broker, _, _):
        await publisher.publish([created(1)])
        await broker.until(2)
        assert broker.records == [created(1), created(1)]


async def test_nothing_is_replayed_before_the_end() -> None:
    """As long as the order has not ended, the wire waits."""
    async with wired({"fault": "replay", "step": "reserve"}) as (publisher, broker, _, wire):
        await publisher.publish([created(1)])
        assert broker.records == [created(1)]
        assert not wire.idle
