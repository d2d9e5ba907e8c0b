"""The judge of a measurement: whether every order ended as it had to, once, with every effect it had to have.

It reads the services' databases when all is over, page by page, so that a hundred thousand orders take
seconds and no memory to speak of. `judge_domain` looks at what any implementation has (orders, stock,
reservations, payments); `judge_lab` adds what only the lab's own runtime keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Table, func, select

from common.domain.inventory import ReservationStatus
from common.domain.order import ENDS, OrderStatus
from common.domain.payment import PaymentStatus
from common.services import ORDERS, PAYMENTS, RESERVATIONS, STOCK
from common.store.database import Database
from common.store.journal import counts
from common.store.runtime import DEADLINES
from common.store.schema import HISTORY, OUTBOX, RETRIES
from compare.bench.subject import Expected
from orchestrated.orchestrator import SAGAS

_PAGE: Final = 5_000
_NAMED: Final = 3
"""Orders that a fault names; the rest are counted."""
_HELD: Final = ReservationStatus.RESERVED
_UNSOUND: Final = ("dead_letter", "ignored", "timed_out")
"""What the services count that must not happen in a run without faults."""

Row = Any
"""A row of a query, with a column per attribute."""


def judge_domain(
    databases: Mapping[str, Database], expected: Mapping[str, Expected], stock: Mapping[str, int]
) -> tuple[str, ...]:
    """What is wrong with orders, payments, reservations and stock; nothing if all is right.

    `databases` are those of the services `order`, `payment` and `inventory`, by these names; `expected` has
    each order that was ever placed, and `stock` the pieces of each item in the beginning.

    Raises:
        SQLAlchemyError: a database can't be read.
    """
    faults: list[str] = []
    with databases["order"].read() as connection:
        faults += _compare("order", connection, ORDERS.table, expected, _order_fault)
    with databases["payment"].read() as connection:
        faults += _compare("payment", connection, PAYMENTS.table, expected, _payment_fault)
    with databases["inventory"].read() as connection:
        faults += _compare("reservation", connection, RESERVATIONS.table, expected, _reservation_fault)
        faults += _stock_faults(connection, stock)
    return tuple(faults)


def judge_lab(
    databases: Mapping[str, Database], expected: Mapping[str, Expected], stock: Mapping[str, int]
) -> tuple[str, ...]:
    """What is wrong in a mode of the lab: in the domain, and in all that its runtime keeps beside it.

    `databases` are those of all the mode's services, by their names.

    Raises:
        SQLAlchemyError: a database can't be read.
    """
    faults = list(judge_domain(databases, expected, stock))
    completed = sum(1 for one in expected.values() if one.status is OrderStatus.COMPLETED)
    failed = len(expected) - completed
    transitions: dict[str, dict[str, int]] = {
        "order": {OrderStatus.COMPLETED: completed, OrderStatus.FAILED: failed},
        "payment": {PaymentStatus.CHARGED: completed, PaymentStatus.REFUNDED: 0},
        "inventory": {ReservationStatus.RESERVED: len(expected), ReservationStatus.RELEASED: failed},
    }
    for name, database in databases.items():
        with database.read() as connection:
            faults += (f"{name}: {fault}" for fault in _history_faults(connection, transitions.get(name, {})))
            faults += (f"{name}: {fault}" for fault in _leftovers(connection))
    with databases["order"].read() as connection:
        faults += _ends(connection)
    if "orchestrator" in databases:
        with databases["orchestrator"].read() as connection:
            faults += _compare("saga", connection, SAGAS.table, expected, _saga_fault)
    return tuple(faults)


def _compare(
    what: str,
    connection: Connection,
    table: Table,
    expected: Mapping[str, Expected],
    fault_of: Callable[[Row, Expected], str | None],
) -> Iterator[str]:
    """Look at each row of a table that has one for each order."""
    wrong: list[str] = []
    unknown: list[str] = []
    found = 0
    for row in _rows(connection, table):
        try:
            due = expected[row.order_id]
        except KeyError:
            unknown.append(row.order_id)
            continue
        found += 1
        if (fault := fault_of(row, due)) is not None:
            wrong.append(f"{row.order_id} {fault}")
    if found < len(expected):
        yield f"{len(expected) - found} of {len(expected)} orders have no {what}"
    if unknown:
        yield f"{len(unknown)} rows for a {what} of no order that was placed: {_some(unknown)}"
    if wrong:
        yield f"{len(wrong)} times, a {what} is wrong: {_some(wrong)}"


def _rows(connection: Connection, table: Table) -> Iterator[Row]:
    """All rows in the order of their ids, page by page."""
    after = ""
    while page := connection.execute(
        select(table).where(table.c.order_id > after).order_by(table.c.order_id).limit(_PAGE)
    ).all():
        yield from page
        after = page[-1].order_id


def _order_fault(row: Row, due: Expected) -> str | None:
    if row.status != due.status or row.reason != due.reason:
        return f"is {row.status} ({row.reason}), not {due.status} ({due.reason})"
    if (row.item, row.quantity, row.price_cents * row.quantity) != (due.item, due.quantity, due.amount_cents):
        return f"is over {row.quantity} {row.item} at {row.price_cents}"
    return None


def _payment_fault(row: Row, due: Expected) -> str | None:
    status = PaymentStatus.CHARGED if due.status is OrderStatus.COMPLETED else PaymentStatus.DECLINED
    if row.status != status or row.amount_cents != due.amount_cents:
        return f"is {row.status} of {row.amount_cents}, not {status} of {due.amount_cents}"
    return None


def _reservation_fault(row: Row, due: Expected) -> str | None:
    status = _HELD if due.status is OrderStatus.COMPLETED else ReservationStatus.RELEASED
    if (row.status, row.item, row.quantity) != (status, due.item, due.quantity):
        return f"is {row.status}, {row.quantity} {row.item}, not {status}, {due.quantity} {due.item}"
    return None


def _saga_fault(row: Row, due: Expected) -> str | None:
    return None if row.state == due.status else f"is {row.state}, not {due.status}"


def _stock_faults(connection: Connection, stock: Mapping[str, int]) -> Iterator[str]:
    """Whether each item's pieces are all there: on the shelf, or held for an order."""
    reservations, shelf = RESERVATIONS.table, STOCK.table
    held_by_item = (
        select(reservations.c.item, func.sum(reservations.c.quantity))
        .where(reservations.c.status == _HELD)
        .group_by(reservations.c.item)
    )
    held = {item: int(pieces) for item, pieces in connection.execute(held_by_item)}
    available = {row.item: row.available for row in connection.execute(select(shelf))}
    for item, pieces in stock.items():
        left = available.get(item)
        if left is None:
            yield f"there is no stock of {item} any more"
        elif left < 0:
            yield f"{left} pieces of {item} are left"
        elif left + held.get(item, 0) != pieces:
            yield f"of {pieces} {item}, {left} are left and {held.get(item, 0)} held"


def _history_faults(connection: Connection, transitions: Mapping[str, int]) -> Iterator[str]:
    """Whether each change of state came as often as it had to, and none of them twice for an order."""
    twice = (
        select(HISTORY.c.order_id, HISTORY.c.to_status)
        .where(HISTORY.c.to_status.in_(transitions))
        .group_by(HISTORY.c.order_id, HISTORY.c.to_status)
        .having(func.count() > 1)
    )
    again = [f"{row.order_id} {row.to_status}" for row in connection.execute(twice.limit(_NAMED))]
    if again:
        yield f"became so more than once: {_some(again)}"
    totals = (
        select(HISTORY.c.to_status, func.count().label("total"))
        .where(HISTORY.c.to_status.in_(transitions))
        .group_by(HISTORY.c.to_status)
    )
    found = {row.to_status: row.total for row in connection.execute(totals)}
    for status, due in transitions.items():
        if found.get(status, 0) != due:
            yield f"{found.get(status, 0)} became {status}, not {due}"


def _ends(connection: Connection) -> Iterator[str]:
    """Whether an order has ended in more than one way, or has left its end again."""
    ended = (
        select(HISTORY.c.order_id)
        .where(HISTORY.c.to_status.in_(ENDS))
        .group_by(HISTORY.c.order_id)
        .having(func.count() > 1)
    )
    several = connection.scalars(ended.limit(_NAMED)).all()
    if several:
        yield f"orders with more than one end: {_some(several)}"
    left = connection.scalars(
        select(HISTORY.c.order_id).where(HISTORY.c.from_status.in_(ENDS)).limit(_NAMED)
    ).all()
    if left:
        yield f"orders that have left their end: {_some(left)}"


def _leftovers(connection: Connection) -> Iterator[str]:
    """What must not be there any more once all has settled, and what must never have been."""
    waiting = {"unpublished parcels": OUTBOX, "retries": RETRIES, "deadlines": DEADLINES.table}
    for what, table in waiting.items():
        left = connection.scalar(select(func.count()).select_from(table))
        if left:
            yield f"{left} {what} are left"
    counted = counts(connection)
    for name in _UNSOUND:
        if counted.get(name):
            yield f"{counted[name]} counted as {name}"


def _some(faults: Sequence[str]) -> str:
    rest = len(faults) - _NAMED
    return "; ".join(faults[:_NAMED]) + (f"; and {rest} more" if rest > 0 else "")
