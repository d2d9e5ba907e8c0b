"""What a saga costs each service, without a broker: `python -m compare.bench.steps`.

The cores of a mode hand their records to each other in memory, wave by wave, so that what is measured is the
lab's own work and its database's. The rest of what a saga costs is the client's and the broker's, and the raw
relay of `python -m compare bench` has that as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Final

from rich.console import Console
from rich.table import Table

from common.command_line import Parser
from common.core import Core
from common.databases import tables_of
from common.domain.decision import Rules
from common.envelope import Headers, Outgoing
from common.garbage import collect_seldom
from common.services import STOCK, fill_stock
from common.store.database import Database
from common.wiring import Mode, Wiring
from compare.bench.load import Load, draw
from compare.lab import MODES

_BATCHES: Final = (1, 10, 100, 1000)
_SAGAS: Final = 5_000
_LEAST_WAVES: Final = 9
_MOST_WAVES: Final = 300
_DECLINED: Final = 0.2
_ITEMS: Final = 100
_MICRO: Final = 1e6


@dataclass(frozen=True, slots=True)
class _Consumed:
    """A record as a service consumes it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Round:
    """The services of one mode, each with a database in a file, and what they have spent."""

    def __init__(self, mode: Mode, load: Load, folder: Path) -> None:
        self.spent: dict[str, float] = {}
        """Processor seconds by service."""
        self._load = load
        self._placed = 0
        self._cores = {wiring.name: _core(wiring, load, folder) for wiring in mode.services}

    def wave(self, orders: int) -> None:
        """Place so many orders at once, and carry them to their ends."""
        self.spent = dict.fromkeys(self._cores, 0.0)
        told = self._place(orders)
        while told:
            records = [
                _Consumed(one.topic, one.partition, offset, one.key, one.value, one.headers)
                for offset, one in enumerate(told)
            ]
            told = [one for name in self._cores for one in self._process(name, records)]

    def close(self) -> None:
        """Close the databases."""
        for core in self._cores.values():
            core.database.close()

    def _place(self, orders: int) -> list[Outgoing]:
        commands = [(self._load.order(self._placed + index), 0) for index in range(orders)]
        self._placed += orders
        core, began = self._cores["order"], process_time()
        with core.database.write() as transaction:
            told = core.submit(transaction, commands, datetime.now(UTC))
        core.acknowledge(told)
        self.spent["order"] += process_time() - began
        return told

    def _process(self, name: str, records: Sequence[_Consumed]) -> list[Outgoing]:
        core = self._cores[name]
        topics = core.wiring.subscriptions
        heard = [record for record in records if record.topic in topics]
        began = process_time()
        told = core.process(heard, datetime.now(UTC))
        core.acknowledge(told)
        self.spent[name] += process_time() - began
        return told


def _core(wiring: Wiring, load: Load, folder: Path) -> Core:
    database = Database(f"sqlite:///{folder / wiring.name}.db", tables_of(wiring))
    if STOCK.table in database.tables:
        fill_stock(database, load.stock)
    return Core(wiring, Rules(), database)


def cost(mode: Mode, batch: int) -> dict[str, float]:
    """Microseconds of processor time per saga, by service: the medians over waves of `batch` orders.

    Raises:
        SQLAlchemyError: SQLite can't be used.
    """
    with TemporaryDirectory(prefix="saga-lab-") as folder:
        services = Round(mode, draw(_DECLINED, _ITEMS), Path(folder))
        try:
            services.wave(batch)
            spent: dict[str, list[float]] = {wiring.name: [] for wiring in mode.services}
            for _ in range(min(_MOST_WAVES, max(_LEAST_WAVES, _SAGAS // batch))):
                services.wave(batch)
                for name, seconds in services.spent.items():
                    spent[name].append(seconds / batch * _MICRO)
        finally:
            services.close()
    return {name: median(costs) for name, costs in spent.items()}


def main(arguments: Sequence[str]) -> int:
    """Measure and print; returns the exit code."""
    Parser(prog="python -m compare.bench.steps", description=__doc__).parse_args(arguments)
    collect_seldom()
    console = Console(highlight=False)
    for mode in MODES.values():
        table = Table(box=None, pad_edge=False, title=f"{mode.name}: us of processor time per saga")
        table.add_column("orders in a batch", justify="right")
        names = [wiring.name for wiring in mode.services]
        for name in (*names, "all"):
            table.add_column(name, justify="right")
        for batch in _BATCHES:
            found = cost(mode, batch)
            cells = (*(found[name] for name in names), sum(found.values()))
            table.add_row(str(batch), *(f"{micro:.0f}" for micro in cells))
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
