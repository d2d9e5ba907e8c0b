"""Placing orders over HTTP: what is accepted, what it is answered with, and what waiting does."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import SQLAlchemyError

import common.runner
from common.domain.order import OrderStatus
from common.http.app import create_app
from common.http.new_order import NewOrder
from tests.databases import each_connection
from tests.http.conftest import OrderService, ServedMode, client_of
from tests.running import until

LAPTOP = {"customer_id": "cust-1", "item": "laptop", "quantity": 1, "price": 200}
TOO_DEAR = LAPTOP | {"price": 600}
JSON = {"Content-Type": "application/json"}


def body(price: str = "200", quantity: str = "1") -> str:
    """A body with these literals in it."""
    return f'{{"customer_id": "cust-1", "item": "laptop", "quantity": {quantity}, "price": {price}}}'


async def test_accepted_at_once(service: OrderService) -> None:
    """An order is taken on as PENDING and told where it is, though the broker is away."""
    answer = await service.client.post("/orders", json=LAPTOP)

    assert answer.status_code == 202
    order = answer.json()
    assert answer.headers["Location"] == f"/orders/{order['order_id']}"
    assert order["order_id"][14] == "7"
    assert order["created_at"] == order["updated_at"]
    shown = {name: order[name] for name in (*LAPTOP, "total", "status", "reason")}
    assert shown == LAPTOP | {"price": "200.00", "total": "200.00", "status": "PENDING", "reason": None}
    assert service.counts() == (1, 1, 0)


async def test_shown_as_answered(service: OrderService) -> None:
    """What the order's own address shows is what the answer to placing it said, and its history."""
    placed = await service.client.post("/orders", json=LAPTOP)
    shown = (await service.client.get(placed.headers["Location"])).json()
    (first,) = shown.pop("history")
    assert shown == placed.json()
    assert list(shown) == list(placed.json())
    assert (first["from"], first["to"], first["cause"]) == ("NONE", "PENDING", shown["order_id"])


async def test_readable_in_a_terminal(service: OrderService) -> None:
    """An answer is indented and ends with a line break."""
    await service.client.post("/orders", json=LAPTOP)
    text = (await service.client.get("/orders")).text
    assert text.startswith('{\n  "items": [\n')
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("literal", "shown", "cents"),
    [
        ("200", "200.00", 200_00),
        ("200.0", "200.00", 200_00),
        ("199.99", "199.99", 199_99),
        ("199.990", "199.99", 199_99),
        ('"199.99"', "199.99", 199_99),
        ('"200"', "200.00", 200_00),
        ("0.01", "0.01", 1),
        ("0.29", "0.29", 29),
        ("1.15", "1.15", 115),
        ("4.35", "4.35", 435),
        ("2e2", "200.00", 200_00),
        ("1000000", "1000000.00", 1_000_000_00),
        ("1000000.00", "1000000.00", 1_000_000_00),
    ],
)
async def test_money_is_exact(service: OrderService, literal: str, shown: str, cents: int) -> None:
    """A price is what its digits say, as a number and as text."""
    answer = await service.client.post("/orders", content=body(literal), headers=JSON)
    assert answer.json()["price"] == shown
    assert service.order(answer.json()["order_id"]).price_cents == cents


@pytest.mark.parametrize(
    "literal",
    [
        "0", "-1", "0.001", "199.990000000000001", "199.999", "1000000.01", "1e7", "1e400", "1e-400",
        "1e999999999999", "9" * 400, "9" * 5000, "true", "null", "[200]", '"NaN"', '"1e2"', '"+5"', '" 5"',
        '"5 "', '"1_000"', '"٣"', '"-5"', '"0"', '""', '"199.999"', '"1,50"', '"12345678"',
    ],
)  # fmt: skip
async def test_no_such_price(service: OrderService, literal: str) -> None:
    """A price that is not exact, positive, or bounded is refused, whatever its form."""
    answer = await service.client.post("/orders", content=body(literal), headers=JSON)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["location"], fault["pointer"]) == ("body", "/price")
    assert service.counts() == (0, 0, 0)


@pytest.mark.parametrize(
    "literal", ["0", "-1", "10001", "1.5", "1e9", "1e-9", '"1"', "true", "null", "9" * 30]
)
async def test_no_such_quantity(service: OrderService, literal: str) -> None:
    """A quantity is a whole number from 1 to 10,000, not text."""
    answer = await service.client.post("/orders", content=body(quantity=literal), headers=JSON)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/quantity"]
    assert service.counts() == (0, 0, 0)


@pytest.mark.parametrize(("literal", "quantity"), [("1", 1), ("1.0", 1), ("1e2", 100), ("10000", 10_000)])
async def test_whole_quantities(service: OrderService, literal: str, quantity: int) -> None:
    """To JSON, 1.0 is the number 1."""
    answer = await service.client.post("/orders", content=body(quantity=literal), headers=JSON)
    assert answer.json()["quantity"] == quantity


def test_the_published_price() -> None:
    """The schema leaves decimals to words, since in floats 19.99 is no multiple of 0.01."""
    number, _ = NewOrder.model_json_schema()["properties"]["price"]["anyOf"]
    assert number["description"] == "at most two decimals"
    assert "multipleOf" not in json.dumps(number)


async def test_the_largest_order(service: OrderService) -> None:
    """The largest price times the largest quantity is still exact."""
    answer = await service.client.post("/orders", json=LAPTOP | {"price": 1_000_000, "quantity": 10_000})
    assert answer.json()["total"] == "10000000000.00"


@pytest.mark.parametrize("text", ["a", "Müller & Söhne", "日本", "a b", "x" * 100, "a/b", "'; --"])
async def test_any_visible_text(service: OrderService, text: str) -> None:
    """Customers and items may have any name that can be seen."""
    answer = await service.client.post("/orders", json=LAPTOP | {"customer_id": text, "item": text})
    assert (answer.json()["customer_id"], answer.json()["item"]) == (text, text)


@pytest.mark.parametrize("wait", ["wait=5", 'respond-async, wait="5"', "WAIT = 5; foo"])
async def test_waits_for_the_end(mode: ServedMode, wait: str) -> None:
    """With `Prefer: wait`, the answer is the order's end: 201, COMPLETED or FAILED."""
    answer = await mode["order"].post("/orders", json=LAPTOP, headers={"Prefer": wait})
    assert (answer.status_code, answer.json()["status"]) == (201, "COMPLETED")
    assert answer.headers["Preference-Applied"] == "wait=5"

    answer = await mode["order"].post("/orders", json=TOO_DEAR, headers={"Prefer": wait})
    assert (answer.status_code, answer.json()["status"]) == (201, "FAILED")
    assert answer.json()["reason"] == "payment_declined"


async def test_preferences_on_several_lines(mode: ServedMode) -> None:
    """A preference counts on whichever line of the header it stands; of several, the first counts."""
    lines = [("Prefer", "respond-async"), ("Prefer", "foo, wait=5"), ("Prefer", "wait=9")]
    answer = await mode["order"].post("/orders", json=LAPTOP, headers=lines)
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (201, "wait=5")


async def test_waits_no_longer(service: OrderService) -> None:
    """An order that doesn't end in time is answered with 202, when the time is up."""
    before = monotonic()
    answer = await service.client.post("/orders", json=LAPTOP, headers={"Prefer": "wait=1"})
    assert 1 <= monotonic() - before < 5
    assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("prefer", ["", "wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "waiting=5", ",;="])
async def test_unknown_preferences_are_ignored(service: OrderService, prefer: str) -> None:
    """A preference that is unknown or malformed changes nothing."""
    answer = await service.client.post("/orders", json=LAPTOP, headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


async def test_the_wait_is_capped(service: OrderService) -> None:
    """No client makes a service wait for longer than 30 s; a service that closes doesn't wait at all."""
    closing = asyncio.Event()
    closing.set()
    async with client_of(create_app(service.runner, closing=closing)) as client:
        answer = await client.post("/orders", json=LAPTOP, headers={"Prefer": "wait=99999"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=30")


async def test_a_closing_service_lets_go(service: OrderService) -> None:
    """A request that waits ends soon when the service is to stop."""
    closing = asyncio.Event()
    async with client_of(create_app(service.runner, closing=closing)) as client:
        waiting = asyncio.create_task(client.post("/orders", json=LAPTOP, headers={"Prefer": "wait=30"}))

        async def taken() -> bool:
            return service.counts()[0] == 1

        await until(taken)
        closing.set()
        answer = await asyncio.wait_for(waiting, 5)
    assert answer.status_code == 202


async def test_repeats_get_the_first_answer(service: OrderService) -> None:
    """The same key and order again get the same answer, whatever its spelling, and make no second order."""
    key = {"Idempotency-Key": "key/1"}
    first = await service.client.post("/orders", json=LAPTOP, headers=key)
    again = await service.client.post("/orders", content=body('"200.00"'), headers=JSON | key)

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert service.counts() == (1, 1, 1)


async def test_repeats_after_the_end(mode: ServedMode) -> None:
    """A repeat tells what the first answer told: the end, if that was waited for, and else the beginning."""
    for prefer, status in (({"Prefer": "wait=5"}, 201), ({}, 202)):
        headers = {"Idempotency-Key": f"key-{status}", **prefer}
        first = await mode["order"].post("/orders", json=TOO_DEAR, headers=headers)
        # Another order that has ended shows that this one had its time.
        await mode["order"].post("/orders", json=LAPTOP, headers={"Prefer": "wait=5"})
        again = await mode["order"].post("/orders", json=TOO_DEAR, headers=headers)
        assert (first.status_code, again.status_code) == (status, status)
        assert again.content == first.content


async def test_a_repeat_while_the_first_waits(mode: ServedMode) -> None:
    """A repeat of a request that still waits is told the beginning at once, and the other request, too."""
    await mode.broker.down()
    headers = {"Idempotency-Key": "impatient", "Prefer": "wait=30"}
    first = asyncio.create_task(mode["order"].post("/orders", json=LAPTOP, headers=headers))

    async def taken() -> bool:
        return bool((await mode["order"].get("/orders")).json()["total"] == 1)

    await until(taken)
    repeats = [await mode["order"].post("/orders", json=LAPTOP, headers=headers) for _ in range(2)]
    await mode.broker.up()
    answers = [await first, *repeats, await mode["order"].post("/orders", json=LAPTOP, headers=headers)]
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    shown = (await mode["order"].get(answers[0].headers["Location"])).json()
    assert shown["status"] == OrderStatus.COMPLETED


async def test_a_repeat_after_the_first_has_died(service: OrderService) -> None:
    """A request that was ended while it waited blocks its key for nobody."""
    headers = {"Idempotency-Key": "orphan", "Prefer": "wait=30"}
    first = asyncio.create_task(service.client.post("/orders", json=LAPTOP, headers=headers))

    async def taken() -> bool:
        return service.counts() == (1, 1, 1)

    await until(taken)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    repeats = [await service.client.post("/orders", json=LAPTOP, headers=headers) for _ in range(2)]
    assert [repeat.status_code for repeat in repeats] == [202, 202]
    assert repeats[0].content == repeats[1].content
    assert service.counts() == (1, 1, 1)


@contextmanager
def database_lost_after_commit(service: OrderService, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A database that fails at every statement once a transaction that took an order on is committed."""
    core = service.runner.core
    engine, submit = core.database.engine, core.submit
    connections: list[Any] = []
    lost = False

    def forbid(action: int, what: str | None, *_: object) -> int:
        ends = action == sqlite3.SQLITE_TRANSACTION and what != "BEGIN"
        return sqlite3.SQLITE_OK if ends else sqlite3.SQLITE_DENY

    def supervise(connection: Any) -> None:  # noqa: ANN401 - a DBAPI connection is untyped
        connections.append(connection)
        if lost:
            connection.set_authorizer(forbid)

    def lose(_: Connection) -> None:
        nonlocal lost
        lost = True
        for connection in connections:
            connection.set_authorizer(forbid)

    def submit_and_lose(transaction: Connection, *arguments: Any) -> Any:  # noqa: ANN401 - as it is called
        told = submit(transaction, *arguments)
        # Behind what the request itself does as the last act of its transaction.
        event.listen(transaction, "commit", lose)
        return told

    with monkeypatch.context() as patched, each_connection(engine, supervise):
        patched.setattr(core, "submit", submit_and_lose)
        yield
        assert lost
        with pytest.raises(SQLAlchemyError, match="not authorized"):
            service.counts()


@pytest.mark.parametrize("more", [{}, {"Idempotency-Key": "k"}, {"Idempotency-Key": "k", "Prefer": "wait=1"}])
async def test_what_is_committed_is_told(
    service: OrderService, more: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once an order is committed its request is accepted, whatever becomes of the database."""
    with database_lost_after_commit(service, monkeypatch):
        answer = await service.client.post("/orders", json=LAPTOP, headers=more)
    assert answer.status_code == 202
    shown = (await service.client.get(answer.headers["Location"])).json()
    del shown["history"]
    assert shown == answer.json()
    if more:
        again = await service.client.post("/orders", json=LAPTOP, headers=more)
        assert (again.status_code, again.content) == (202, answer.content)
    assert service.counts() == (1, 1, int(bool(more)))


async def test_an_end_that_cannot_be_recorded(mode: ServedMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end is told only if a repeat will be told it, too."""
    dialect = mode.runners["order"].core.database.engine.dialect
    execute = dialect.do_execute
    failures = []

    def fail(cursor: DBAPICursor, statement: str, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - passed on as they are
        if statement.startswith("UPDATE idempotency"):
            failures.append(statement)
            raise sqlite3.OperationalError("database is locked")
        execute(cursor, statement, *arguments, **options)

    headers = {"Idempotency-Key": "k", "Prefer": "wait=10"}
    with monkeypatch.context() as patched:
        patched.setattr(dialect, "do_execute", fail)
        first = await mode["order"].post("/orders", json=LAPTOP, headers=headers)
    again = await mode["order"].post("/orders", json=LAPTOP, headers=headers)
    assert len(failures) == 1
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.content == again.content


async def test_an_end_that_an_overloaded_service_cannot_record(
    mode: ServedMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that was taken on stands, though the service should take nothing more by the time it ends."""
    headers = {"Idempotency-Key": "k", "Prefer": "wait=10"}
    core = mode.runners["order"].core
    submit, taken = core.submit, []

    def submit_and_be_overloaded(*arguments: Any) -> Any:  # noqa: ANN401 - as it is called
        told = submit(*arguments)
        if told:
            taken.append(told)
            monkeypatch.setattr(common.runner, "_MOST_UNPUBLISHED", 0)
        return told

    monkeypatch.setattr(core, "submit", submit_and_be_overloaded)
    first = await mode["order"].post("/orders", json=LAPTOP, headers=headers)
    monkeypatch.undo()
    again = await mode["order"].post("/orders", json=LAPTOP, headers=headers)
    assert len(taken) == 1
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.content == again.content


async def test_another_order_under_the_same_key(service: OrderService) -> None:
    """A key that was used for another order is refused."""
    key = {"Idempotency-Key": "once"}
    await service.client.post("/orders", json=LAPTOP, headers=key)
    answer = await service.client.post("/orders", json=TOO_DEAR, headers=key)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:saga-lab:problem:idempotency-key-reused")
    assert service.counts() == (1, 1, 1)


async def test_a_key_is_forgotten_after_the_window(service: OrderService) -> None:
    """A key holds for as long as the ids of messages are kept; then it is free again."""
    key = {"Idempotency-Key": "weekly"}
    core, week = service.runner.core, timedelta(days=7)
    before = datetime.now(UTC)
    await service.client.post("/orders", json=LAPTOP, headers=key)
    core.clean_up(before + week)
    assert service.counts() == (1, 1, 1)
    core.clean_up(datetime.now(UTC) + week + timedelta(seconds=1))
    assert service.counts() == (1, 1, 0)
    assert (await service.client.post("/orders", json=TOO_DEAR, headers=key)).status_code == 202


async def test_many_at_once_under_one_key(service: OrderService) -> None:
    """However many requests come at once with one key, one order is made."""
    key = {"Idempotency-Key": "many"}
    posts = (service.client.post("/orders", json=LAPTOP, headers=key) for _ in range(20))
    answers = await asyncio.gather(*posts)
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert service.counts() == (1, 1, 1)


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ä".encode("latin-1"), b"\x01"])
async def test_no_such_key(service: OrderService, key: Any) -> None:  # noqa: ANN401 - text or bytes
    """A key has 1 to 255 visible ASCII characters."""
    answer = await service.client.post("/orders", json=LAPTOP, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert [fault["location"] for fault in answer.json()["errors"]] == ["header"]
    assert service.counts() == (0, 0, 0)


async def test_orders_go_out_when_the_broker_is_back(mode: ServedMode) -> None:
    """Orders that are placed while the broker is away end when it is back."""
    await mode.broker.down()
    placed = await mode["order"].post("/orders", json=LAPTOP)
    assert placed.status_code == 202
    await mode.broker.up()
    waiting = {"Prefer": "wait=20"}
    later = await mode["order"].post("/orders", json=LAPTOP, headers=waiting)
    assert later.json()["status"] == OrderStatus.COMPLETED
