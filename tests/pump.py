"""A broker of a few lines: it carries what the cores of a mode tell to the cores that listen.

It keeps what Kafka promises (a log per topic and partition, read in order, from the offset that the group has
committed) and permits what Kafka permits: records that come twice, and any interleaving of partitions. It has
a time of its own, which passes only where nothing is left to do but to wait.
"""

from __future__ import annotations

import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, select

from common.core import Core
from common.databases import tables_of
from common.domain.decision import Rules
from common.domain.inventory import Stock
from common.envelope import Headers, Outgoing
from common.messages import Message, PlaceOrder
from common.probe import Probe
from common.recovery import Recovery
from common.services import STOCK
from common.store.journal import Change, history
from common.store.rows import LoadedRows
from common.store.runtime import next_due
from common.wiring import Mode, Wiring
from tests.databases import SQLITE, Databases

T = TypeVar("T")

NOW: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
PARTITIONS: Final = 3
_BATCH: Final = 4

Place = tuple[str, int]
"""A topic and one of its partitions."""
State = dict[str, list[tuple[Any, ...]]]
"""By table: its rows, in the order of their keys."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A record as a consumer gets it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def delivered(record: Outgoing, offset: int = 0) -> Delivered:
    """What a consumer gets when `record` has been published."""
    return Delivered(record.topic, record.partition, offset, record.key, record.value, record.headers)


def order_id(number: int) -> str:
    """The id of an order: a UUIDv7, the same in every run."""
    return f"0198c0de-0000-7000-8000-{number:012x}"


def place_order(
    number: int = 1, *, item: str = "laptop", quantity: int = 2, price: int = 100_00
) -> PlaceOrder:
    """A request for an order; by default one that can be had and paid for."""
    return PlaceOrder(
        order_id=order_id(number), customer_id="alice", item=item, quantity=quantity, price_cents=price
    )


def open_core(
    wiring: Wiring,
    folder: Path,
    databases: Databases = SQLITE,
    *,
    recovery: Recovery | None = None,
    probe: Probe | None = None,
) -> Core:
    """A service over its database in `folder`; it survives the death of a process, not a power cut."""
    database = databases.open(wiring.name, folder, tables_of(wiring))
    return Core(wiring, Rules(), database, recovery=recovery, probe=probe)


def pages(core: Core, partitions: Sequence[int]) -> Iterator[list[Outgoing]]:
    """All that a service has left unpublished, page by page."""
    after = 0
    while left := core.unsent(partitions, after):
        yield left
        after = left[-1].parcel


def fill_stock(transaction: Connection, stock: Mapping[str, int]) -> None:
    """Put goods on the shelves."""
    rows = LoadedRows(STOCK)
    for item, available in stock.items():
        rows.put(Stock(item, available))
    rows.save(transaction, NOW.isoformat())


def rows_of(core: Core) -> State:
    """What is in the domain tables of a service."""
    with core.database.read() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in core.wiring.domain.storage.tables
        }


@dataclass
class Broker:
    """What outlives the services beside their databases."""

    logs: dict[Place, list[Delivered]] = field(default_factory=lambda: defaultdict(list))
    offsets: dict[tuple[str, Place], int] = field(default_factory=lambda: defaultdict(int))
    """By service and place: how many records it need not see again."""
    requests: deque[Message] = field(default_factory=deque)
    """Commands that are still to come from outside."""
    now: datetime = NOW


Wire = Callable[[Outgoing], Iterable[Outgoing]]
"""What comes to the broker of a record that is published: nothing, the record, or whatever becomes of it."""


def _sound(record: Outgoing) -> Iterable[Outgoing]:
    return (record,)


class Pump:
    """All services of a mode over one small broker; they begin with what it and their databases hold.

    `copies` is how often each record is delivered. With a `shuffle`, services, partitions and the sizes of
    batches take turns at random; without one, in a fixed order. `probe` makes a probe for all services.
    """

    def __init__(
        self,
        mode: Mode,
        folder: Path,
        stock: Mapping[str, int],
        *,
        broker: Broker | None = None,
        copies: int = 1,
        shuffle: Random | None = None,
        databases: Databases = SQLITE,
        recovery: Recovery | None = None,
        probe: Callable[[Broker], Probe] | None = None,
        wire: Wire = _sound,
    ) -> None:
        self.broker = broker or Broker()
        self.stopped: set[str] = set()
        """Services that neither consume nor wake."""
        self._mode = mode
        self._folder = folder
        self._copies = copies
        self._shuffle = shuffle
        self._databases = databases
        self._recovery = recovery
        self._probe = probe
        self._wire = wire
        shared = probe(self.broker) if probe else None
        self.cores = {
            wiring.name: open_core(wiring, folder, databases, recovery=recovery, probe=shared)
            for wiring in mode.services
        }
        for core in self.cores.values():
            for left in pages(core, range(PARTITIONS)):
                deque(self._publish(core, left), maxlen=0)
        with self.cores["inventory"].database.write() as transaction:
            fill_stock(transaction, stock)

    def request(self, commands: Iterable[Message]) -> None:
        """Have commands come from outside, in the next steps."""
        self.broker.requests += commands

    def steps(self, seconds: float = 0.0) -> Iterator[str]:
        """Run until nothing is left to do within so much time, pausing at each boundary where one may die."""
        end = self.broker.now + timedelta(seconds=seconds)
        while True:
            while self.broker.requests or any(map(self._works, self.cores)):
                yield from self._turn()
            due = self._next_due()
            if due is None or due > end:
                return
            assert due > self.broker.now, f"nobody wakes for what is due since {due}"
            self.broker.now = due

    def run(self, seconds: float = 0.0) -> None:
        """Run until nothing is left to do within so much time."""
        deque(self.steps(seconds), maxlen=0)

    def after_crash(self, folder: Path) -> Pump:
        """What there would be if every process died now, closing nothing, and was started again.

        The twin has its databases in `folder`, which is new; this one can go on.
        """
        self._databases.copy(self._folder, folder)
        return Pump(
            self._mode,
            folder,
            {},
            broker=deepcopy(self.broker),
            copies=self._copies,
            shuffle=self._shuffle,
            databases=self._databases,
            recovery=self._recovery,
            probe=self._probe,
            wire=self._wire,
        )

    def close(self) -> None:
        """Close every database."""
        for core in self.cores.values():
            core.database.close()

    def state(self) -> dict[str, State]:
        """By service: what is in its domain tables."""
        return {name: rows_of(core) for name, core in self.cores.items()}

    def histories(self) -> dict[str, list[Change]]:
        """By service: every change of state, in an order that doesn't depend on who was faster."""
        found = {}
        for name, core in self.cores.items():
            with core.database.read() as connection:
                found[name] = sorted(history(connection))
        return found

    def told(self) -> set[str]:
        """The ids of all messages that were published."""
        return {dict(record.headers)["ce_id"].decode() for log in self.broker.logs.values() for record in log}

    def _turn(self) -> Iterator[str]:
        """Have somebody do one thing: take a request, a batch, or what has become due."""
        turns = ["outside"] if self.broker.requests else []
        for name in self._any_order([*turns, *filter(self._works, self.cores)])[:1]:
            if name == "outside":
                yield from self._submit(self.broker.requests.popleft())
            elif batch := self._waiting(name):
                yield from self._consume(self.cores[name], batch)
            else:
                yield from self._wake(self.cores[name])

    def _works(self, name: str) -> bool:
        if name in self.stopped:
            return False
        return self.cores[name].due_in(self.broker.now) <= 0 or bool(self._waiting(name))

    def _submit(self, command: Message) -> Iterator[str]:
        core = self.cores["order"]
        partition = zlib.crc32(command.order_id.encode()) % PARTITIONS
        with core.database.write() as transaction:
            outgoing = core.submit(transaction, [(command, partition)], self.broker.now)
        yield f"{core.wiring} has taken {type(command).__name__}"
        yield from self._publish(core, outgoing)

    def _consume(self, core: Core, batch: Mapping[Place, list[Delivered]]) -> Iterator[str]:
        outgoing = core.process(self._interleaved(batch), self.broker.now)
        yield f"{core.wiring} has committed"
        yield from self._publish(core, outgoing)
        for place, records in batch.items():
            self.broker.offsets[core.wiring.name, place] += len(records)
        yield f"{core.wiring} has moved its offsets"

    def _wake(self, core: Core) -> Iterator[str]:
        outgoing = core.wake(range(PARTITIONS), self.broker.now)
        yield f"{core.wiring} has woken"
        yield from self._publish(core, outgoing)

    def _next_due(self) -> datetime | None:
        """When the first of all services that are not stopped has something to wake for."""
        found = []
        for name in self.cores.keys() - self.stopped:
            with self.cores[name].database.read() as connection:
                found.append(next_due(connection, range(PARTITIONS)))
        return min((datetime.fromisoformat(due) for due in found if due is not None), default=None)

    def _publish(self, core: Core, outgoing: list[Outgoing]) -> Iterator[str]:
        for record in outgoing:
            for arriving in self._wire(record):
                log = self.broker.logs[arriving.topic, arriving.partition]
                log += [delivered(arriving, len(log) + copy) for copy in range(self._copies)]
            yield f"{core.wiring} has published a record"
        core.acknowledge(outgoing)

    def _waiting(self, name: str) -> dict[Place, list[Delivered]]:
        """The next records of each place that a service has not consumed yet."""
        places = {
            place: log[self.broker.offsets[name, place] :]
            for place, log in self.broker.logs.items()
            if place[0] in self.cores[name].wiring.subscriptions
        }
        return {place: records[: self._batch_size()] for place, records in places.items() if records}

    def _interleaved(self, batch: Mapping[Place, list[Delivered]]) -> list[Delivered]:
        """One sequence of records that keeps the order within each partition."""
        turns = self._any_order(place for place, records in batch.items() for _ in records)
        queues = {place: iter(records) for place, records in batch.items()}
        return [next(queues[place]) for place in turns]

    def _any_order(self, things: Iterable[T]) -> list[T]:
        found = list(things)
        if self._shuffle is not None:
            self._shuffle.shuffle(found)
        return found

    def _batch_size(self) -> int:
        return self._shuffle.randint(1, _BATCH) if self._shuffle else _BATCH
