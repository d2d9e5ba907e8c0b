"""Gathering what a replay has left in the broker and in the databases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, select

from common.core import Core
from common.domain.inventory import ReservationStatus
from common.envelope import Record
from common.services import ORDERS, PAYMENTS, RESERVATIONS, STOCK
from common.store.journal import history
from compare.plan import WARM_UP_ITEM, PlacedOrder, Plan
from compare.recording import OrderEnd, Recording
from compare.trace import changes_of, relative, trace_of
from orchestrated.orchestrator import SAGAS

Rows = dict[str, Mapping[str, Any]]


class Ending(NamedTuple):
    """How a replay ended: why before all was over, or None if it was; and after how many seconds."""

    unfinished: str | None
    wall_s: float


def gather_evidence(
    plan: Plan, cores: Mapping[str, Core], records: Iterable[Record], prefix: str, ending: Ending
) -> Recording:
    """Put a recording together from the databases of the services and the records that the observer read."""
    order_ids = frozenset(order.command.order_id for order in plan.orders)
    warm_up = frozenset({plan.warm_up.order_id})
    trace, others = trace_of(records, order_ids | warm_up, prefix)
    tables = {name: _tables(core) for name, core in cores.items()}
    changes = (
        change for name, core in cores.items() for change in changes_of(name, _history(core), order_ids)
    )
    return Recording(
        mode=cores["order"].wiring.mode,
        trace=tuple(record for record in trace if record.order_id in order_ids),
        changes=relative(changes),
        orders=tuple(
            _end(order, {key: row for part in tables.values() for key, row in part.items()})
            for order in plan.orders
        ),
        stock={
            row["item"]: row["available"]
            for row in tables["inventory"][STOCK.table.name].values()
            if row["item"] != WARM_UP_ITEM
        },
        stray_records=others,
        duplicates_dropped=sum(core.counts["duplicate"] for core in cores.values()),
        ignored_commands=sum(core.counts["ignored"] for core in cores.values()),
        unreadable_records=sum(core.counts["unreadable"] for core in cores.values()),
        unfinished=ending.unfinished,
        wall_s=round(ending.wall_s, 3),
    )


def _tables(core: Core) -> dict[str, Rows]:
    with core.database.read() as connection:
        return {table.name: _rows(connection, table) for table in core.wiring.domain.storage.tables}


def _rows(connection: Connection, table: Table) -> Rows:
    key = next(iter(table.primary_key)).name
    return {row[key]: dict(row) for row in connection.execute(select(table)).mappings()}


def _history(core: Core) -> list[Any]:
    with core.database.read() as connection:
        return history(connection)


def _end(order: PlacedOrder, tables: Mapping[str, Rows]) -> OrderEnd:
    order_id = order.command.order_id
    row = tables[ORDERS.table.name].get(order_id, {})
    reservation = tables[RESERVATIONS.table.name].get(order_id, {})
    payment = tables[PAYMENTS.table.name].get(order_id, {})
    saga = tables.get(SAGAS.table.name, {}).get(order_id, {})
    held = reservation.get("status") == ReservationStatus.RESERVED
    return OrderEnd(
        number=order.number,
        order_id=order_id,
        spec=order.spec_index,
        status=row.get("status", "(never placed)"),
        reason=row.get("reason"),
        reservation=reservation.get("status"),
        quantity_held=reservation["quantity"] if held else 0,
        payment=payment.get("status"),
        amount_cents=payment.get("amount_cents", 0),
        saga=saga.get("state"),
    )
