"""Gathering what a replay has left in the broker and in the databases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, select

from common.core import Core
from common.domain.inventory import ReservationStatus
from common.envelope import Record
from common.services import ORDERS, PAYMENTS, RESERVATIONS, STOCK
from common.store.journal import Change, history
from compare.plan import WARM_UP_ITEM, PlacedOrder, Plan
from compare.recording import DeadLetterSeen, OrderEnd, Recording, Requested, Strike
from compare.trace import changes_of, relative, trace_of
from orchestrated.orchestrator import SAGAS

Rows = dict[str, Mapping[str, Any]]

_MOST_STRAYS: Final = 10
"""Records that nobody should have sent, of which the recording tells where they are."""


class Happened(NamedTuple):
    """What a replay knows of itself, beside what it has left in the broker and in the databases."""

    unfinished: str | None
    """Why it ended before all was over; None if it was."""
    wall_s: float
    counts: Mapping[str, Mapping[str, int]] = {}
    """By service, if any of its instances has died; else what the one instance has in memory is all."""
    strikes: tuple[Strike, ...] = ()
    not_applicable: tuple[str, ...] = ()
    requested: tuple[Requested, ...] = ()


def gather_evidence(
    plan: Plan, cores: Mapping[str, Core], records: Iterable[Record], prefix: str, happened: Happened
) -> Recording:
    """Put a recording together from the databases of the services and the records that the observer read."""
    order_ids = frozenset(order.command.order_id for order in plan.orders)
    warm_up = frozenset({plan.warm_up.order_id})
    histories = {name: _history(core) for name, core in cores.items()}
    placed = _placed(histories["order"], order_ids)
    seen = trace_of(records, order_ids | warm_up, prefix, placed)
    tables = {name: _tables(core) for name, core in cores.items()}
    rows = {key: row for part in tables.values() for key, row in part.items()}
    changes = (change for name in cores for change in changes_of(name, histories[name], order_ids))
    odd = (*seen.strays, *seen.unknown)
    return Recording(
        mode=cores["order"].wiring.mode,
        trace=tuple(record for record in seen.trace if record.order_id in order_ids),
        changes=relative(changes),
        orders=tuple(_end(order, rows, placed) for order in plan.orders),
        stock={
            row["item"]: row["available"]
            for row in tables["inventory"][STOCK.table.name].values()
            if row["item"] != WARM_UP_ITEM
        },
        stray_records=len(seen.strays),
        unknown_records=len(seen.unknown),
        strays=odd[:_MOST_STRAYS],
        counts={name: dict(happened.counts.get(name, core.counts)) for name, core in cores.items()},
        dead_letters=tuple(
            _with_step(letter, cores) for letter in seen.dead_letters if letter.order_id in order_ids
        ),
        strikes=happened.strikes,
        not_applicable=happened.not_applicable,
        requested=happened.requested,
        unfinished=happened.unfinished,
        wall_s=round(happened.wall_s, 3),
    )


def _with_step(letter: DeadLetterSeen, cores: Mapping[str, Core]) -> DeadLetterSeen:
    """The dead letter with the step that its service would have carried out because of the record."""
    core = cores.get(letter.service.rpartition("/")[2])
    reaction = core.wiring.reaction_to.get(letter.type) if core else None
    return letter.model_copy(update={"step": reaction.command.STEP}) if reaction else letter


def _placed(order_history: Iterable[Change], order_ids: frozenset[str]) -> dict[str, datetime]:
    """By order: when it was placed, as the Order service has it."""
    placed: dict[str, datetime] = {}
    for change in order_history:
        if change.order_id in order_ids and change.cause_id == change.order_id:
            placed.setdefault(change.order_id, datetime.fromisoformat(change.at))
    return placed


def _tables(core: Core) -> dict[str, Rows]:
    with core.database.read() as connection:
        return {table.name: _rows(connection, table) for table in core.wiring.domain.storage.tables}


def _rows(connection: Connection, table: Table) -> Rows:
    key = next(iter(table.primary_key)).name
    return {row[key]: dict(row) for row in connection.execute(select(table)).mappings()}


def _history(core: Core) -> list[Change]:
    with core.database.read() as connection:
        return history(connection)


def _end(order: PlacedOrder, tables: Mapping[str, Rows], placed: Mapping[str, datetime]) -> OrderEnd:
    order_id = order.command.order_id
    row = tables[ORDERS.table.name].get(order_id, {})
    reservation = tables[RESERVATIONS.table.name].get(order_id, {})
    payment = tables[PAYMENTS.table.name].get(order_id, {})
    saga = tables.get(SAGAS.table.name, {}).get(order_id, {})
    since_first = placed[order_id] - min(placed.values()) if order_id in placed else None
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
        placed_ms=None if since_first is None else round(since_first.total_seconds() * 1000, 3),
    )
