"""The records of a mode's sagas, as the raw relay sends them on: real ones, taken from the services.

One saga that completes and one whose payment is declined run through the services' cores, in memory. What
each service told, and which record made it tell that, is all that the relay knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Final

from common.core import Core
from common.databases import tables_of
from common.domain.decision import Rules
from common.domain.order import OrderStatus
from common.envelope import Headers, Outgoing
from common.messages import OrderCompleted, OrderFailed
from common.services import STOCK, fill_stock
from common.store.database import Database
from common.wiring import Mode, Wiring
from compare.bench.load import Load, draw
from compare.bench.spec import Hops

_ENDS: Final = {
    OrderCompleted.__name__.encode(): OrderStatus.COMPLETED,
    OrderFailed.__name__.encode(): OrderStatus.FAILED,
}
_ID: Final = "ce_id"
_SOME_OF_EACH: Final = 0.5
_LOOKED_AT: Final = 1_000
"""Orders among which one of each kind is looked for; a share below one in so many has no such path."""


@dataclass(frozen=True, slots=True)
class Template:
    """A record to be sent, but for its key."""

    topic: str
    value: bytes | None
    headers: list[tuple[str, bytes]]
    """As the client wants them."""
    end: OrderStatus | None
    """How the order has ended with it; None if it hasn't."""
    size: int
    """Bytes of key, value and headers."""


@dataclass(frozen=True, slots=True)
class Script:
    """All that the relay of a mode's services knows."""

    first: dict[bool, Template] = field(default_factory=dict)
    """By whether the payment will be declined: what a new order begins with."""
    then: dict[str, dict[bytes, Template]] = field(default_factory=dict)
    """By service and id of what arrives: what it sends on."""
    hops: dict[bool, int] = field(default_factory=dict)
    """By whether the payment will be declined: records from the first to the end, each caused by the last."""

    @property
    def id_at(self) -> int:
        """Where in a record's headers its id is, by which a service knows what to send on."""
        first = next(iter(self.first.values()))
        return [name for name, _ in first.headers].index(_ID)


@dataclass(frozen=True, slots=True)
class _Arriving:
    """A record as a service consumes it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def script(mode: Mode, load: Load, prefix: str) -> Script:
    """Take the records of a mode's sagas over the orders of a load; `prefix` goes before the names of topics.

    Raises:
        SQLAlchemyError: SQLite can't be used.
    """
    cores = {wiring.name: _core(wiring, load, prefix) for wiring in mode.services}
    numbers = {load.is_declined(number): number for number in reversed(range(_LOOKED_AT))}
    found = Script(then={name: {} for name in cores})
    try:
        for declined, number in sorted(numbers.items()):
            found.first[declined] = _follow(cores, load, number, found)
    finally:
        for core in cores.values():
            core.database.close()
    return found


@cache
def hops(mode: Mode) -> Hops:
    """How far it is to the end of a saga of a mode; all of one kind go the same way.

    Raises:
        SQLAlchemyError: SQLite can't be used.
    """
    found = script(mode, draw(_SOME_OF_EACH, 1), "").hops
    return Hops(completed=found[False], declined=found[True])


def _core(wiring: Wiring, load: Load, prefix: str) -> Core:
    database = Database("sqlite://", tables_of(wiring))
    if STOCK.table in database.tables:
        fill_stock(database, load.stock)
    return Core(wiring, Rules(), database, prefix)


def _follow(cores: Mapping[str, Core], load: Load, number: int, found: Script) -> Template:
    """Carry one saga to its end, and note what each service tells because of what; the first is returned."""
    now = datetime.now(UTC)
    order = cores["order"]
    with order.database.write() as transaction:
        (first,) = order.submit(transaction, [(load.order(number), 0)], now)
    waiting = deque([(first, 1)])
    while waiting:
        record, hop = waiting.popleft()
        arriving = _Arriving(record.topic, 0, 0, record.key, record.value, record.headers)
        for name, core in cores.items():
            if record.topic.removeprefix(core.service.prefix) in core.wiring.subscriptions:
                for told in core.process([arriving], now):
                    template = found.then[name][dict(record.headers)[_ID]] = _template(told)
                    if template.end is not None:
                        found.hops[load.is_declined(number)] = hop + 1
                    waiting.append((told, hop + 1))
    return _template(first)


def _template(record: Outgoing) -> Template:
    headers = dict(record.headers)
    size = len(record.key or b"") + len(record.value or b"")
    size += sum(len(name) + len(value) for name, value in record.headers)
    return Template(record.topic, record.value, list(record.headers), _ENDS.get(headers["ce_type"]), size)
