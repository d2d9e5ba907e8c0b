"""A service's database, of either kind: rows come back as they were, and writers wait for each other.

What only one kind can do is at the end, and in `test_postgresql.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Final

import pytest
from msgspec import Struct
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from common.domain.inventory import Inventory, Reservation, ReservationStatus, Stock
from common.envelope import Outgoing
from common.messages import Reason, ReleaseInventory, ReserveInventory, Step
from common.services import INVENTORY, ORDER, RESERVATIONS, STOCK
from common.services import fill_stock as fill_stock_once
from common.store.database import Database
from common.store.journal import (
    add_to_outbox,
    backlog,
    claim_key,
    first_seen,
    forget_received,
    forget_sent,
    unsent,
)
from common.store.rows import LoadedRows, RowTable
from common.store.schema import IDEMPOTENCY
from common.store.statements import Statement
from orchestrated.orchestrator import SAGAS
from orchestrated.saga import OrderSaga, SagaState
from tests.databases import Databases
from tests.pump import NOW, fill_stock

AT: Final = NOW.isoformat()
LATER: Final = NOW.replace(year=2027).isoformat()


TABLES: Final = (STOCK.table, RESERVATIONS.table, SAGAS.table)

Open = Callable[[], Database]
"""Opens the test's database as a further instance of its service."""


@pytest.fixture
def instance(databases: Databases, tmp_path: Path) -> Iterator[Open]:
    """Instances of one service, over one database."""
    opened = []

    def open_() -> Database:
        opened.append(databases.open("some", tmp_path, TABLES))
        return opened[-1]

    yield open_
    for database in opened:
        database.close()


@pytest.fixture
def database(instance: Open) -> Database:
    """A database with every table that the tests need."""
    return instance()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An SQLite file of the test's own."""
    return f"sqlite:///{tmp_path / 'some.db'}"


def available(connection: Connection) -> int:
    """How many laptops nobody holds."""
    return sum(connection.scalars(select(STOCK.table.c.available)))


def take_one(connection: Connection) -> None:
    """Read the stock and write one less."""
    rows = LoadedRows(STOCK)
    rows.load(connection, ["laptop"])
    stock = rows.get("laptop")
    assert stock is not None
    rows.put(Stock(stock.item, stock.available - 1))
    rows.save(connection, AT)


SAGA_ROWS: Final = [
    OrderSaga("order-1", "alice", "laptop", 2, 100_00),
    OrderSaga(
        "order-2",
        "bob",
        "phone",
        1,
        2**40,
        state=SagaState.COMPENSATING,
        begun=(Step.RESERVE, Step.PAY),
        reason=Reason.PAYMENT_DECLINED,
    ),
]


def test_rows_come_back_as_they_were(database: Database) -> None:
    """Enumerations, tuples, None and large amounts survive the database, with their types."""
    with database.write() as transaction:
        rows = LoadedRows(SAGAS)
        for saga in SAGA_ROWS:
            rows.put(saga)
        rows.save(transaction, AT)
    with database.write() as transaction:
        loaded = LoadedRows(SAGAS)
        loaded.load(transaction, ["order-1", "order-2", "order-3"])
    assert [loaded.get("order-1"), loaded.get("order-2"), loaded.get("order-3")] == [*SAGA_ROWS, None]
    second = loaded.get("order-2")
    assert second is not None
    assert (type(second.state), type(second.begun), type(second.reason)) == (SagaState, tuple, Reason)


def test_a_new_row_is_inserted_and_a_known_one_updated(database: Database) -> None:
    """A row keeps the time at which it was made, and gets the time at which it was last changed."""
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 5})
    with database.write() as transaction:
        rows = LoadedRows(STOCK)
        rows.load(transaction, ["laptop", "phone"])
        rows.put(Stock("laptop", 4))
        rows.put(Stock("phone", 9))
        rows.save(transaction, LATER)
    with database.read() as connection:
        stored = connection.execute(select(STOCK.table).order_by(STOCK.table.c.item)).all()
    assert [tuple(row) for row in stored] == [("laptop", 4, AT, LATER), ("phone", 9, LATER, LATER)]


def test_a_row_that_has_not_changed_is_not_written(database: Database) -> None:
    """What a decider leaves as it is keeps its time stamps."""
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 5})
    with database.write() as transaction:
        rows = LoadedRows(STOCK)
        rows.load(transaction, ["laptop"])
        rows.put(Stock("laptop", 5))
        rows.save(transaction, LATER)
    with database.read() as connection:
        assert connection.execute(select(STOCK.table.c.updated_at)).scalar_one() == AT


def test_a_batch_sees_its_own_changes(database: Database) -> None:
    """Within a batch a row is what the batch has made of it, before anything is written."""
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 5})
        rows = LoadedRows(STOCK)
        rows.load(transaction, ["laptop"])
        rows.put(Stock("laptop", 4))
        assert rows.get("laptop") == Stock("laptop", 4)
        assert available(transaction) == 5


def test_a_release_finds_the_item_by_its_reservation(database: Database) -> None:
    """A release names no item; its reservation does, be it of the same batch or of an earlier one."""
    reserve = ReserveInventory(order_id="order-1", item="laptop", quantity=2)
    release = ReleaseInventory(order_id="order-1", reason=Reason.PAYMENT_DECLINED)
    reservation = Reservation("order-1", ReservationStatus.RESERVED, "laptop", 2)
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 5})
        repository = INVENTORY.storage.open()
        repository.load(transaction, [reserve, release])
        assert repository.state(release) == Inventory()
        repository.keep(Inventory(Stock("laptop", 3), reservation))
        assert repository.state(release) == Inventory(Stock("laptop", 3), reservation)
        repository.save(transaction, AT)
    with database.write() as transaction:
        repository = INVENTORY.storage.open()
        repository.load(transaction, [release])
        assert repository.state(release) == Inventory(Stock("laptop", 3), reservation)


def test_nothing_is_kept_where_there_is_nothing(databases: Databases, tmp_path: Path) -> None:
    """A decision that leaves no state behind writes no row."""
    orders = databases.open("order", tmp_path, ORDER.storage.tables)
    with orders.write() as transaction:
        repository = ORDER.storage.open()
        repository.load(transaction, [])
        repository.keep(None)
        repository.save(transaction, AT)
        assert transaction.execute(select(ORDER.storage.tables[0])).all() == []
    orders.close()


def test_an_inventory_without_anything_in_it_is_not_kept(database: Database) -> None:
    """Where neither stock nor reservation is known, neither table gets a row."""
    with database.write() as transaction:
        repository = INVENTORY.storage.open()
        repository.keep(Inventory())
        repository.save(transaction, AT)
        assert [transaction.execute(select(table)).all() for table in INVENTORY.storage.tables] == [[], []]


def test_an_error_rolls_everything_back(database: Database) -> None:
    """A transaction that fails leaves nothing behind."""
    with pytest.raises(ZeroDivisionError), database.write() as transaction:  # noqa: PT012 - the write is the point
        fill_stock(transaction, {"laptop": 5})
        _ = 1 // 0
    with database.read() as connection:
        assert connection.execute(select(STOCK.table)).all() == []


def test_two_writers_lose_no_update(instance: Open, database: Database) -> None:
    """Two instances that read, decide and write at the same time wait for each other's turn."""
    each = 25
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 2 * each})

    def write() -> None:
        writer = instance()
        for _ in range(each):
            with writer.write() as transaction:
                take_one(transaction)

    with ThreadPoolExecutor(2) as threads:
        for writer in [threads.submit(write), threads.submit(write)]:
            writer.result()
    with database.read() as connection:
        assert available(connection) == 0


def test_a_reader_does_not_wait_for_a_writer(instance: Open, database: Database) -> None:
    """While one instance writes, another reads what was committed before, at once."""
    reader = instance()
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 5})
    with database.write() as transaction:
        take_one(transaction)
        with reader.read() as connection:
            assert available(connection) == 5
    with reader.read() as connection:
        assert available(connection) == 4


def test_a_writer_does_not_wait_for_a_reader(instance: Open, database: Database) -> None:
    """A view stays as it was when it was opened, while another instance commits."""
    writer = instance()
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 5})
    with database.read() as connection:
        assert available(connection) == 5
        with writer.write() as transaction:
            take_one(transaction)
        assert available(connection) == 5


def test_a_database_that_is_there_is_opened_as_it_is(instance: Open, database: Database) -> None:
    """An instance that starts beside another, or after a crash, finds the tables and what is in them."""
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 5})
    with instance().read() as connection:
        assert available(connection) == 5


def test_instances_that_start_at_once_share_what_they_make(databases: Databases, tmp_path: Path) -> None:
    """Of several instances that find no tables, each finds them in the end, and the stock is filled once."""
    together = Barrier(4)

    def start() -> Database:
        together.wait()
        opened = databases.open("some", tmp_path, TABLES)
        fill_stock_once(opened, {"laptop": 5})
        return opened

    with ThreadPoolExecutor(4) as threads:
        started = [threads.submit(start) for _ in range(4)]
    for each in [future.result() for future in started]:
        with each.read() as connection:
            assert available(connection) == 5
        each.close()


def test_of_instances_that_claim_a_key_at_once_one_gets_it(databases: Databases, tmp_path: Path) -> None:
    """The others wait for it, and find the key there; none of them fails."""
    together = Barrier(4)
    instances = [databases.open("some", tmp_path, [*TABLES, IDEMPOTENCY]) for _ in range(4)]

    def claim(number: int) -> bool:
        row = {"key": "k", "fingerprint": "f", "order_id": str(number), "answered": 202, "claimed_at": "now"}
        together.wait()
        with instances[number].write() as transaction:
            return claim_key(transaction, row)

    with ThreadPoolExecutor(4) as threads:
        claims = list(threads.map(claim, range(4)))
    assert sorted(claims) == [False, False, False, True]
    for instance in instances:
        instance.close()


def test_what_only_reads_cannot_write(database: Database) -> None:
    """A view is no way around the locks: what would write in it is an error."""
    with pytest.raises(DBAPIError), database.read() as connection:
        fill_stock(connection, {"laptop": 5})
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 5})


def test_keys_are_in_the_order_of_their_bytes(database: Database) -> None:
    """Pages of rows are cut alike on every database, whatever language a server may sort by."""
    items = ["b", "A", "a", "B", "\u00e4", "a b", "ab", "a-c", "-", "_", "10", "9", "\uff5e", "\U0001f4bb"]
    with database.write() as transaction:
        fill_stock(transaction, dict.fromkeys(items, 1))
    key = STOCK.table.c.item
    with database.read() as connection:
        assert list(connection.scalars(select(key).order_by(key))) == sorted(items)
        assert set(connection.scalars(select(key).where(key > "a"))) == {item for item in items if item > "a"}


@pytest.mark.parametrize(
    "item", ["O'Neil", '"', "100 %", "%s %(x)s", ":x", "\\", "NULL", " ", "\u200b\u0301", "\U0001f4bb" * 200]
)
def test_any_text_comes_back_as_it_was(database: Database, item: str) -> None:
    """Nothing in a text means anything to a database."""
    with database.write() as transaction:
        fill_stock(transaction, {item: 2**60})
        rows = LoadedRows(STOCK)
        rows.load(transaction, [item, f"{item}x"])
    assert rows.get(item) == Stock(item, 2**60)


def test_the_outbox_keeps_its_order(database: Database) -> None:
    """However many records one transaction leaves in the outbox, they come out in the order they went in."""
    records = [
        Outgoing(f"id-{number}", "topic", 0, b"\x00\xff", b"value", (("name", b"caf\xc3\xa9"),))
        for number in reversed(range(2_500))
    ]
    with database.write() as transaction:
        add_to_outbox(transaction, records)
    with database.read() as connection:
        assert unsent(connection, [0], 0, 1) == records
        assert unsent(connection, [0], records[-1].parcel, 1) == []


def told(name: str, partition: int) -> Outgoing:
    """A record for the outbox, with whatever a stranger's may be made of."""
    return Outgoing(
        name, "topic", partition, None, b"\x00\xff", (("a", b""), ("a", b"\xff"), ("\u00e4", b"b"))
    )


def test_the_outbox_is_read_in_whole_parcels(database: Database) -> None:
    """What one transaction tells on one partition stays together, and is found by its partition."""
    parcels: list[list[Outgoing]] = []
    for number in range(5):
        even, odd, more = told(f"{number}a", 0), told(f"{number}b", 1), told(f"{number}c", 0)
        with database.write() as transaction:
            add_to_outbox(transaction, [even, odd, more])
        assert even.parcel == more.parcel != odd.parcel
        parcels += [[even, more], [odd]]
    with database.read() as connection:
        assert unsent(connection, [0, 1], 0, 10) == [record for parcel in parcels for record in parcel]
        assert unsent(connection, [1], 0, 3) == [parcel[0] for parcel in parcels[1:6:2]]
        assert unsent(connection, [1], parcels[5][-1].parcel, 3) == [parcel[0] for parcel in parcels[7::2]]
        assert unsent(connection, [0], parcels[3][-1].parcel, 1) == parcels[4]
        assert unsent(connection, [2], 0, 10) == unsent(connection, [], 0, 10) == []


def test_a_parcel_is_forgotten_as_a_whole(database: Database) -> None:
    """What is acknowledged is dropped, or already left out when what waits is counted; the rest stays."""
    first, second = [told("a", 0), told("b", 1), told("c", 0)], [told("d", 0)]
    with database.write() as transaction:
        add_to_outbox(transaction, first)
        add_to_outbox(transaction, second)
    sent = first[0].parcel
    with database.read() as connection:
        assert (backlog(connection, []), backlog(connection, [sent])) == (4, 2)
    with database.write() as transaction:
        forget_sent(transaction, {sent})
    with database.write() as transaction:
        forget_sent(transaction, {sent})
        forget_sent(transaction, set())
        assert unsent(transaction, [0, 1], 0, 10) == [first[1], second[0]]
        assert (backlog(transaction, []), backlog(transaction, [sent])) == (2, 2)


def test_the_number_of_a_parcel_is_never_given_twice(database: Database) -> None:
    """A parcel that is forgotten late can't be mistaken for a newer one."""
    numbers = []
    for _ in range(3):
        record = told("a", 0)
        with database.write() as transaction:
            add_to_outbox(transaction, [record])
        with database.write() as transaction:
            forget_sent(transaction, [record.parcel])
        numbers.append(record.parcel)
    assert len(set(numbers)) == 3
    assert sorted(numbers) == numbers


def test_a_statement_takes_any_number_of_elements(database: Database) -> None:
    """After a long outage there may be more of them than a statement of the database has variables."""
    names = [f"id-{number:05}" for number in range(70_000)]
    with database.write() as transaction:
        fill_stock(transaction, {names[0]: 1, names[-1]: 2})
        assert first_seen(transaction, names, AT) == set(names)
        assert first_seen(transaction, [*names, "another"], AT) == {"another"}
        forget_received(transaction, names)
        assert first_seen(transaction, [*names, "another"], AT) == set(names)
        rows = LoadedRows(STOCK)
        rows.load(transaction, names)
        assert [rows.get(name) for name in names[:2]] == [Stock(names[0], 1), None]
        assert rows.get(names[-1]) == Stock(names[-1], 2)
        for name in names:
            rows.drop(name)
        rows.save(transaction, AT)
        assert available(transaction) == 0


def test_an_error_of_a_plain_statement_is_one_of_sqlalchemy(database: Database) -> None:
    """Whoever waits out a database's troubles, or adds what is there already, knows it by that."""
    with database.write() as transaction:
        fill_stock(transaction, {"laptop": 5})
    with pytest.raises(IntegrityError), database.write() as transaction:
        fill_stock(transaction, {"phone": 1, "laptop": 5})
    with pytest.raises(DBAPIError), database.write() as transaction:
        Statement("SELECT nothing FROM nowhere").run(transaction)
    with database.write() as transaction:
        assert available(transaction) == 5
        take_one(transaction)


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", 10_000)]
)
def test_sqlite_is_set_up_to_survive_a_power_cut(url: str, pragma: str, value: object) -> None:
    """Commits are on the disk before they count, and writers wait for each other."""
    careful = Database(url, [])
    with careful.read() as connection:
        assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value
    careful.close()


def test_sqlite_can_be_set_up_to_survive_a_process_only(url: str) -> None:
    """A database that goes with its run needn't wait for the disk at each commit."""
    quick = Database(url, [], synchronous="OFF")
    with quick.read() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 0
    quick.close()


class Parcel(Struct, frozen=True, array_like=True):
    """A row with every kind of column."""

    number: str
    weight_g: int
    label: str
    state: SagaState | None
    stops: tuple[str, ...]


def test_a_table_is_derived_from_its_struct() -> None:
    """The first field is the key, the others follow in their order, and two time stamps are added."""
    parcels = RowTable(Parcel, "parcels")
    assert parcels.table.columns.keys() == [
        "number",
        "weight_g",
        "label",
        "state",
        "stops",
        "created_at",
        "updated_at",
    ]
    assert [column.name for column in parcels.table.primary_key] == ["number"]
    row = Parcel("1", 500, "fragile", None, ("Rome", "Oslo"))
    other = Parcel("2", 2**40, "", SagaState.COMPENSATING, ())
    assert parcels.columns([row, other]) == [
        ["1", 500, "fragile", None, '["Rome","Oslo"]'],
        ["2", 2**40, "", "COMPENSATING", "[]"],
    ]
    assert parcels.rows(parcels.columns([row, other])) == [row, other]
    assert parcels.rows([["1", 500, "fragile", None, ["Rome", "Oslo"]]]) == [row]
    assert parcels.rows([]) == []
    assert parcels.columns([]) == []
    STOCK.table.metadata.remove(parcels.table)
