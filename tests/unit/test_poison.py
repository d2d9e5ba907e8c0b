"""A record that can't be read, at any step of either mode: its order ends, and no other suffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

import choreographed
import orchestrated
from common.envelope import Outgoing
from common.messages import (
    InventoryReleased,
    InventoryReserved,
    Message,
    OrderCreated,
    PaymentDeclined,
    PaymentProcessed,
    ProcessPayment,
    ReleaseInventory,
    ReserveInventory,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
)
from common.wiring import Mode
from tests.pump import Delivered, Pump, delivered, place_order
from tests.unit.records import MODES, check_books, dead_letters, end_of, newer, total


def spoiled(record: Outgoing) -> Outgoing:
    """The record with a body that can't be decoded."""
    return replace(record, value=b"\xff not JSON")


def of_newer_schema(record: Outgoing) -> Outgoing:
    """The record as a newer producer would tell it."""
    sound = newer(delivered(record))
    return replace(record, headers=sound.headers)


def spoiling(
    kind: type[Message], spoil: Callable[[Outgoing], Outgoing]
) -> Callable[[Outgoing], Iterable[Outgoing]]:
    """A wire that spoils the first record of a type that each order has."""
    seen: set[bytes | None] = set()

    def wire(record: Outgoing) -> Iterable[Outgoing]:
        ours = dict(record.headers).get("ce_type") == kind.__name__.encode() and record.key not in seen
        if not ours or record.topic.endswith(".dlq"):
            return (record,)
        seen.add(record.key)
        return (spoil(record),)

    return wire


End = tuple[str | None, ...]

COMPLETED: Final[End] = ("COMPLETED", None, "RESERVED", "CHARGED")
NOT_STARTED: Final[End] = ("FAILED", "dead_letter", None, None)
NOT_RESERVED: Final[End] = ("FAILED", "dead_letter", "REJECTED", None)
NOT_CHARGED: Final[End] = ("FAILED", "dead_letter", "RELEASED", "DECLINED")
DECLINED: Final[End] = ("FAILED", "payment_declined", "RELEASED", "DECLINED")
POISON: Final[list[tuple[Mode, type[Message], End, int]]] = [
    # By mode and type: the end of an order, and how many services have given up its record.
    (orchestrated.MODE, SagaStarted, NOT_STARTED, 1),
    (orchestrated.MODE, ReserveInventory, NOT_RESERVED, 1),
    (orchestrated.MODE, InventoryReserved, COMPLETED, 1),
    (orchestrated.MODE, ProcessPayment, NOT_CHARGED, 1),
    (orchestrated.MODE, PaymentProcessed, COMPLETED, 1),
    (orchestrated.MODE, SagaCompleted, COMPLETED, 1),
    (orchestrated.MODE, PaymentDeclined, DECLINED, 1),
    (orchestrated.MODE, ReleaseInventory, DECLINED, 1),
    (orchestrated.MODE, InventoryReleased, DECLINED, 1),
    (orchestrated.MODE, SagaFailed, DECLINED, 1),
    (choreographed.MODE, OrderCreated, NOT_RESERVED, 1),
    (choreographed.MODE, InventoryReserved, NOT_CHARGED, 1),
    (choreographed.MODE, PaymentProcessed, COMPLETED, 1),
    (choreographed.MODE, PaymentDeclined, DECLINED, 1),
    (choreographed.MODE, InventoryReleased, DECLINED, 1),
]
PRICES: Final = dict.fromkeys([COMPLETED, NOT_STARTED, NOT_RESERVED, NOT_CHARGED], 100_00) | {
    DECLINED: 400_00
}


@pytest.mark.parametrize("spoil", [spoiled, of_newer_schema])
@pytest.mark.parametrize(
    ("mode", "kind", "end", "services"),
    POISON,
    ids=[f"{mode.name}-{kind.__name__}" for mode, kind, *_ in POISON],
)
def test_poison_ends_its_order_and_no_other(
    mode: Mode,
    kind: type[Message],
    end: End,
    services: int,
    spoil: Callable[[Outgoing], Outgoing],
    tmp_path: Path,
) -> None:
    """Whichever record of an order can't be read, the order ends, and goods and money are as they must be."""
    pump = Pump(mode, tmp_path, {"laptop": 10}, wire=spoiling(kind, spoil))
    pump.request([place_order(1, price=PRICES[end])])
    pump.run(600)
    assert end_of(pump.state()) == end
    assert len(dead_letters(pump)) == total(pump, "dead_letter") == services
    check_books(pump, {"laptop": 10}, [1])
    pump.close()


@MODES
def test_poison_that_nobody_can_place_is_given_up_by_all_who_read_the_topic(
    mode: Mode, tmp_path: Path
) -> None:
    """A record without headers is no one's business for sure, and holds up nobody."""
    pump = Pump(mode, tmp_path, {"laptop": 10})
    for topic in mode.topics:
        pump.broker.logs[topic, 0].append(Delivered(topic, 0, 0, None, b"\x00", ()))
    pump.request(place_order(number) for number in range(1, 6))
    pump.run()
    assert {end_of(pump.state(), number) for number in range(1, 6)} == {COMPLETED}
    readers = [(topic, str(one)) for one in mode.services for topic in one.subscriptions]
    assert sorted((letter.origin.split("[")[0], letter.service) for letter in dead_letters(pump)) == sorted(
        readers
    )
    pump.close()
