"""Cleaning up forgets what is too old to come again, in bites, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from uuid_utils import UUID

from common import core as core_module
from common.core import Core
from common.messages import ReserveInventory
from common.recovery import Recovery
from common.store.journal import first_seen
from common.store.schema import INBOX
from tests.pump import NOW, PARTITIONS, Delivered, fill_stock, open_core, rows_of
from tests.unit.records import (
    INVENTORY,
    Failing,
    command,
    counts,
    due,
    free_laptops,
    reopened,
    reserve,
    waiting,
)

WINDOW: Final = timedelta(days=7)
LATER: Final = NOW + WINDOW + timedelta(seconds=1)


def order_of(when: datetime, number: int = 0) -> str:
    """An order id as it is given out at that time: a UUIDv7."""
    return str(UUID(int=(int(when.timestamp() * 1000) << 80) + (7 << 76) + number))


def reserve_at(when: datetime, number: int = 0) -> Delivered:
    """Hold a laptop for an order that was placed at that time."""
    return command(ReserveInventory(order_id=order_of(when, number), item="laptop", quantity=1))


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[Core]:
    """The orchestrated Inventory service, with many laptops."""
    core = open_core(INVENTORY, tmp_path)
    with core.database.write() as transaction:
        fill_stock(transaction, {"laptop": 100})
    yield core
    core.database.close()


def inbox(core: Core) -> list[str]:
    """The ids that are in the inbox."""
    with core.database.read() as connection:
        return list(connection.scalars(select(INBOX.c.message_id).order_by(INBOX.c.message_id)))


def test_a_duplicate_within_the_window_is_dropped_after_a_clean_up(inventory: Core) -> None:
    """What may come again is remembered, up to the last moment."""
    record = reserve_at(NOW)
    inventory.process([record], NOW)
    assert not inventory.clean_up(NOW + WINDOW)
    assert inventory.process([record], NOW + WINDOW) == []
    assert free_laptops(inventory) == 99


def test_what_is_older_than_the_window_is_forgotten(inventory: Core) -> None:
    """The stated price of it: a duplicate from before the window would be taken for news."""
    inventory.process([reserve_at(NOW)], NOW)
    assert not inventory.clean_up(LATER)
    assert inbox(inventory) == []
    assert [row[1] for row in rows_of(inventory)["reservations"]] == ["RESERVED"]
    assert len(inventory.process([reserve_at(NOW)], LATER)) == 1
    assert free_laptops(inventory) == 99, "though here the decider has the last word"


def test_a_message_of_an_old_order_that_came_lately_is_kept(inventory: Core) -> None:
    """It is the time of the message's coming that counts, not that of its order."""
    inventory.process([reserve_at(NOW)], NOW + timedelta(days=3))
    inventory.clean_up(LATER)
    assert len(inbox(inventory)) == 1
    inventory.clean_up(LATER + timedelta(days=3))
    assert inbox(inventory) == []


def test_what_could_not_be_read_is_forgotten_in_its_time_as_well(inventory: Core) -> None:
    """A record that is known by its place only is no exception."""
    broken = replace(reserve(), value=b"{", headers=())
    inventory.process([broken], NOW)
    inventory.clean_up(NOW + WINDOW)
    assert inventory.process([broken], NOW + WINDOW) == []
    assert len(inbox(inventory)) == 1
    inventory.clean_up(LATER)
    assert inbox(inventory) == []


def test_a_window_can_be_set(tmp_path: Path) -> None:
    """An operator whose dead letters are replayed later remembers for longer."""
    core = open_core(INVENTORY, tmp_path, recovery=Recovery(dedupe_window_s=60))
    core.process([reserve_at(NOW)], NOW)
    core.clean_up(NOW + timedelta(seconds=60))
    assert len(inbox(core)) == 1
    core.clean_up(NOW + timedelta(seconds=61))
    assert inbox(core) == []
    core.database.close()


def test_it_is_done_in_bites(inventory: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call forgets a bounded number, and says whether there may be more."""
    monkeypatch.setattr(core_module, "_MOST_FORGOTTEN", 4)
    inventory.process([reserve_at(NOW, number) for number in range(10)], NOW)
    left = []
    while inventory.clean_up(LATER):
        left.append(len(inbox(inventory)))
    assert left == [6, 2]
    assert inbox(inventory) == []


def test_what_is_not_sent_yet_is_never_touched(inventory: Core, tmp_path: Path) -> None:
    """An outage of any length loses nothing: the outbox has no window."""
    waiting_records = inventory.process([reserve_at(NOW, number) for number in range(3)], NOW)
    inventory.clean_up(NOW + timedelta(days=365))
    again = reopened(inventory, tmp_path)
    assert again.unsent(range(PARTITIONS)) == waiting_records
    assert counts(again)[1:] == (3, 3), "nor is the history"
    again.database.close()


def test_retries_and_deadlines_are_never_touched(tmp_path: Path) -> None:
    """What is still to be done is no matter of age."""
    core = open_core(INVENTORY, tmp_path, probe=Failing(ReserveInventory))
    core.process([reserve_at(NOW)], NOW)
    when = due(core)
    core.clean_up(NOW + timedelta(days=365))
    assert due(core) == when
    assert len(waiting(core)) == 1
    core.database.close()


@given(
    messages=st.lists(st.tuples(st.integers(-20, 0), st.integers(0, 20)), max_size=30),
    days=st.integers(0, 30),
)
def test_exactly_what_is_older_than_the_window_goes(
    messages: list[tuple[int, int]], days: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of any messages, each some time after its order, only those go that came before the window."""
    core = open_core(INVENTORY, tmp_path_factory.mktemp("clean"))
    came = {}
    for number, (placed, delay) in enumerate(messages):
        when = NOW + timedelta(days=placed + delay)
        message_id = f"{order_of(NOW + timedelta(days=placed), number)}-digest"
        came[message_id] = when
        with core.database.write() as transaction:
            first_seen(transaction, [message_id], when.isoformat().replace("+00:00", "Z"))
    now = NOW + timedelta(days=days)
    core.clean_up(now)
    assert set(inbox(core)) == {message_id for message_id, when in came.items() if when >= now - WINDOW}
    core.database.close()
