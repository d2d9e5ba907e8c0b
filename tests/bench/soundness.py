"""The databases of a mode after orders have gone through it, sound: what the judge's tests then violate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import text

from common.store.database import Database
from common.wiring import Mode
from compare.bench.load import Load, Placed
from tests.pump import Pump

ORDERS: Final = 10
_NAMED: Final = {"paid": 0, "declined": 3}
LOAD: Final = Load(declined=0.3, items=2, begun_ms=1_767_323_045_678, salt=7)


@contextmanager
def after_orders(mode: Mode, folder: Path) -> Iterator[Mapping[str, Database]]:
    """The databases of a mode's services once all orders have ended, by service."""
    pump = Pump(mode, folder, LOAD.stock)
    pump.request(LOAD.order(number) for number in range(ORDERS))
    pump.run()
    for core in pump.cores.values():
        core.tidy()
    try:
        yield {name: core.database for name, core in pump.cores.items()}
    finally:
        pump.close()


def expected() -> Placed:
    """What has to become of those orders."""
    return Placed(LOAD, ORDERS)


def change(database: Database, statement: str) -> None:
    """Change what is in a database, as a defect would; `:paid` and `:declined` are ids of orders."""
    values = {name: LOAD.order(number).order_id for name, number in _NAMED.items() if f":{name}" in statement}
    with database.write() as transaction:
        transaction.execute(text(statement), values)
