"""What the tests of the core share: records as the services get them, and what they make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import structs
from sqlalchemy import func, select

import choreographed
import orchestrated
from common.core import Core
from common.dead_letters import DeadLetter, read_dead_letter
from common.envelope import Outgoing, Record, origin, read_message, seal
from common.errors import TransientError
from common.messages import Message, Reason, ReleaseInventory, ReserveInventory
from common.probe import Probe
from common.store import journal
from common.store.journal import history
from common.store.runtime import next_due
from common.store.schema import INBOX, OUTBOX, RETRIES
from tests.pump import NOW, PARTITIONS, Delivered, Pump, State, delivered, open_core, order_id, rows_of

INVENTORY: Final = orchestrated.MODE.service("inventory")
ORDER: Final = orchestrated.MODE.service("order")
PAYMENT: Final = orchestrated.MODE.service("payment")
BOTH: Final = (orchestrated.MODE, choreographed.MODE)
MODES: Final = pytest.mark.parametrize("mode", BOTH, ids=lambda mode: mode.name)


class Failing(Probe):
    """Has the deciding of some commands fail, so many times for each order, or always."""

    def __init__(
        self,
        *commands: type[Message],
        times: float = float("inf"),
        error: type[Exception] = TransientError,
        orders: Iterable[str] | None = None,
    ) -> None:
        self.times = times
        self.failed: Counter[tuple[str, str]] = Counter()
        self._commands = commands
        self._error = error
        self._orders = orders

    def deciding(self, command: Message, because: object) -> None:
        failed = (type(command).__name__, command.order_id)
        concerned = self._orders is None or command.order_id in self._orders
        if isinstance(command, self._commands) and concerned and self.failed[failed] < self.times:
            self.failed[failed] += 1
            raise self._error(f"{because} is made to fail")


# One service


def command(message: Message, partition: int = 0, index: int = 0, attempt: int = 1) -> Delivered:
    """A message as the orchestrator sends it."""
    because = structs.replace(origin(message.order_id, partition), attempt=attempt)
    return delivered(seal(message, because, source="/test", topic="saga.commands", index=index, now=NOW))


def reserve(number: int = 1, quantity: int = 2, partition: int = 0, attempt: int = 1) -> Delivered:
    """Hold laptops for an order."""
    asked = ReserveInventory(order_id=order_id(number), item="laptop", quantity=quantity)
    return command(asked, partition, attempt=attempt)


def release(number: int = 1, attempt: int = 1) -> Delivered:
    """Give an order's laptops back."""
    asked = ReleaseInventory(order_id=order_id(number), reason=Reason.PAYMENT_DECLINED)
    return command(asked, index=1, attempt=attempt)


def with_headers(record: Delivered, **changes: bytes) -> Delivered:
    """The record with some headers changed."""
    return replace(record, headers=tuple((dict(record.headers) | changes).items()))


def newer(record: Delivered) -> Delivered:
    """The record with a major version that nobody knows yet."""
    kind = dict(record.headers)["ce_type"].decode()
    return with_headers(record, ce_dataschema=f"urn:saga-lab:{kind}:2".encode())


def told(outgoing: Iterable[Outgoing]) -> list[Message]:
    """The messages in their envelopes, dead letters left out."""
    return [read_message(delivered(record))[1] for record in outgoing if not record.topic.endswith(".dlq")]


def letters(outgoing: Iterable[Outgoing | Delivered]) -> list[DeadLetter]:
    """The dead letters among what is told."""
    return [
        read_dead_letter(delivered(record) if isinstance(record, Outgoing) else record)
        for record in outgoing
        if record.topic.endswith(".dlq")
    ]


def due(core: Core) -> datetime | None:
    """When the service has something to wake for."""
    with core.database.read() as connection:
        found = next_due(connection, range(PARTITIONS))
    return None if found is None else datetime.fromisoformat(found)


def woken(core: Core, until: datetime) -> Iterator[tuple[datetime, list[Outgoing]]]:
    """Wake the service whenever it has something to wake for: when that was, and what it then told."""
    while (now := due(core)) is not None and now <= until:
        outgoing = core.wake(range(PARTITIONS), now)
        core.acknowledge(outgoing)
        yield now, outgoing


def free_laptops(core: Core) -> int:
    """The stock that nobody holds."""
    [(_, available, *_)] = rows_of(core)["stock"]
    return int(available)


def held_by(core: Core) -> list[str]:
    """The orders that have a reservation, whatever became of it."""
    return [str(row[0]) for row in rows_of(core)["reservations"]]


def counts(core: Core) -> tuple[int, int, int]:
    """How many messages are in the inbox, records in the outbox, and changes in the history."""
    with core.database.read() as connection:
        inbox = connection.scalar(select(func.count()).select_from(INBOX)) or 0
        outbox = connection.scalar(select(func.sum(OUTBOX.c.records))) or 0
        return inbox, int(outbox), len(history(connection))


def waiting(core: Core) -> list[tuple[str, int, str]]:
    """The retries of a service: order, tries so far, and when the next one is due."""
    columns = (RETRIES.c.order_id, RETRIES.c.tries, RETRIES.c.due_at)
    with core.database.read() as connection:
        return [tuple(row) for row in connection.execute(select(*columns).order_by(RETRIES.c.order_id))]


def counters(core: Core) -> dict[str, int]:
    """What a service has counted in its database."""
    with core.database.read() as connection:
        return journal.counts(connection)


def reopened(core: Core, folder: Path) -> Core:
    """The same service after a crash: all that was in memory is gone."""
    core.database.close()
    service = core.service
    return open_core(core.wiring, folder, recovery=service.recovery, probe=service.probe)


# Whole modes


def end_of(state: dict[str, State], number: int = 1) -> tuple[str | None, ...]:
    """What became of an order: its status and reason, its reservation, its payment."""

    def row(service: str, table: str) -> tuple[Any, ...]:
        found = [row for row in state[service][table] if row[0] == order_id(number)]
        return found[0] if found else (None,) * 7

    order_row = row("order", "orders")
    return order_row[5], order_row[6], row("inventory", "reservations")[1], row("payment", "payments")[1]


def losing(*kinds: type[Message], times: float = 1) -> Callable[[Outgoing], Iterable[Outgoing]]:
    """A wire that loses the first records of these types that each order has."""
    lost: dict[tuple[bytes | None, bytes], int] = {}

    def wire(record: Outgoing) -> Iterable[Outgoing]:
        kind = dict(record.headers)["ce_type"]
        seen = lost.get((record.key, kind), 0)
        if kind.decode() not in {one.__name__ for one in kinds} or seen >= times:
            return (record,)
        lost[record.key, kind] = seen + 1
        return ()

    return wire


def on_topic(pump: Pump, *kinds: type[Message]) -> list[Record]:
    """The records of these types that the broker has, those of dead letters left out."""
    names = {kind.__name__.encode() for kind in kinds}
    return [
        record
        for log in pump.broker.logs.values()
        for record in log
        if dict(record.headers).get("ce_type") in names and not record.topic.endswith(".dlq")
    ]


def dead_letters(pump: Pump) -> list[DeadLetter]:
    """All dead letters that the broker has."""
    return [letter for log in pump.broker.logs.values() for letter in letters(log)]


def total(pump: Pump, name: str) -> int:
    """What all services of a mode have counted together, in their databases."""
    return sum(counters(core).get(name, 0) for core in pump.cores.values())


def check_books(pump: Pump, stock: dict[str, int], orders: Sequence[int]) -> None:
    """The invariants: stock is conserved, all have ended, and only completed orders hold or cost anything."""
    state = pump.state()
    held: Counter[str] = Counter()
    for row in state["inventory"]["reservations"]:
        if row[1] == "RESERVED":
            held[row[2]] += row[3]
    assert {row[0]: row[1] + held[row[0]] for row in state["inventory"]["stock"]} == stock
    assert all(row[1] >= 0 for row in state["inventory"]["stock"])
    for number in orders:
        status, _, reservation, payment = end_of(state, number)
        assert status in {"COMPLETED", "FAILED", "COMPENSATION_FAILED"}, f"order {number} is {status}"
        if status == "COMPLETED":
            assert (reservation, payment) == ("RESERVED", "CHARGED")
        if status == "FAILED":
            assert reservation != "RESERVED"
            assert payment != "CHARGED"
        if "orchestrator" in state and status != "COMPENSATION_FAILED":
            [saga] = [row for row in state["orchestrator"]["sagas"] if row[0] == order_id(number)]
            assert saga[5] == status
