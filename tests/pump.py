"""A broker of a few lines: it carries what the cores of a mode tell to the cores that listen.

It keeps what Kafka promises (a log per topic and partition, read in order, from the offset that the group has
committed) and permits what Kafka permits: records that come twice, and any interleaving of partitions.
"""

from __future__ import annotations

import shutil
import zlib
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, select

from common.core import Core
from common.domain.decision import Rules
from common.domain.inventory import Stock
from common.envelope import Headers, Outgoing
from common.messages import Message, PlaceOrder
from common.services import STOCK
from common.store.database import Database
from common.store.journal import Change, history
from common.store.rows import LoadedRows
from common.wiring import Mode, Wiring

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


def open_core(wiring: Wiring, folder: Path) -> Core:
    """A service over its database file in `folder`; it survives the death of a process, not a power cut."""
    url = f"sqlite:///{folder / wiring.name}.db"
    return Core(wiring, Rules(), Database(url, wiring.domain.storage.tables, synchronous="OFF"))


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


class Pump:
    """All services of a mode over one small broker; they begin with what it and the files in `folder` hold.

    `copies` is how often each record is delivered. With a `shuffle`, services, partitions and the sizes of
    batches take turns at random; without one, in a fixed order.
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
    ) -> None:
        self.broker = broker or Broker()
        self.cores = {wiring.name: open_core(wiring, folder) for wiring in mode.services}
        self._mode = mode
        self._folder = folder
        self._copies = copies
        self._shuffle = shuffle
        for core in self.cores.values():
            deque(self._publish(core, core.unsent(range(PARTITIONS))), maxlen=0)
        with self.cores["inventory"].database.write() as transaction:
            fill_stock(transaction, stock)

    def request(self, commands: Iterable[Message]) -> None:
        """Have commands come from outside, in the next steps."""
        self.broker.requests += commands

    def steps(self) -> Iterator[str]:
        """Run until nothing is left to do, pausing at each boundary where a process may die."""
        while self.broker.requests:
            yield from self._submit(self.broker.requests.popleft())
        while (ready := self._ready()) is not None:
            core, batch = ready
            outgoing = core.process(self._interleaved(batch), NOW)
            yield f"{core.wiring} has committed"
            yield from self._publish(core, outgoing)
            for place, records in batch.items():
                self.broker.offsets[core.wiring.name, place] += len(records)
            yield f"{core.wiring} has moved its offsets"

    def run(self) -> None:
        """Run until nothing is left to do."""
        deque(self.steps(), maxlen=0)

    def after_crash(self, folder: Path) -> Pump:
        """What there would be if every process died now, closing nothing, and was started again.

        The twin has its databases in `folder`, which it creates; this one can go on.
        """
        shutil.copytree(self._folder, folder)
        return Pump(self._mode, folder, {}, broker=deepcopy(self.broker), copies=self._copies)

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

    def _submit(self, command: Message) -> Iterator[str]:
        core = self.cores["order"]
        partition = zlib.crc32(command.order_id.encode()) % PARTITIONS
        with core.database.write() as transaction:
            outgoing = core.submit(transaction, command, partition, NOW)
        yield f"{core.wiring} has taken an order"
        yield from self._publish(core, outgoing)

    def _publish(self, core: Core, outgoing: list[Outgoing]) -> Iterator[str]:
        for record in outgoing:
            log = self.broker.logs[record.topic, record.partition]
            log += [delivered(record, len(log) + copy) for copy in range(self._copies)]
            yield f"{core.wiring} has published a record"
        core.acknowledge(outgoing)

    def _ready(self) -> tuple[Core, dict[Place, list[Delivered]]] | None:
        """A service for which records wait, and the next of them; None when all is consumed."""
        for name in self._any_order(self.cores):
            waiting = {
                place: log[self.broker.offsets[name, place] :][: self._batch_size()]
                for place, log in self.broker.logs.items()
                if place[0] in self.cores[name].wiring.subscriptions
            }
            batch = {place: records for place, records in waiting.items() if records}
            if batch:
                return self.cores[name], batch
        return None

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
