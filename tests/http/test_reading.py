"""Looking at a service's rows: pages, filters, single rows with their history."""

from __future__ import annotations

import pytest

from tests.http.conftest import OrderService, ServedMode
from tests.http.test_orders import LAPTOP, TOO_DEAR

UNKNOWN = "0198c0de-0000-7000-8000-000000000000"


async def test_pages(service: OrderService) -> None:
    """Following `next` shows every order once, newest first."""
    placed = [(await service.client.post("/orders", json=LAPTOP)).json()["order_id"] for _ in range(5)]
    shown, url, pages = [], "/orders?limit=2", 0
    while url:
        page = (await service.client.get(url)).json()
        assert page["total"] == 5
        shown += [order["order_id"] for order in page["items"]]
        url, pages = page["next"], pages + 1
    assert shown == placed[::-1]
    assert pages == 3


async def test_filters(mode: ServedMode) -> None:
    """A page of one status has the orders of that status only, and keeps to it on the next."""
    for body in (LAPTOP, TOO_DEAR, LAPTOP):
        await mode["order"].post("/orders", json=body, headers={"Prefer": "wait=5"})
    page = (await mode["order"].get("/orders", params={"status": "COMPLETED", "limit": 1})).json()
    assert (page["total"], len(page["items"])) == (2, 1)
    rest = (await mode["order"].get(page["next"])).json()
    assert [order["status"] for order in rest["items"]] == ["COMPLETED"]
    assert rest["next"] is None


async def test_every_service_shows_its_part(mode: ServedMode) -> None:
    """An order that was declined can be followed through every service."""
    order = (await mode["order"].post("/orders", json=TOO_DEAR, headers={"Prefer": "wait=5"})).json()
    order_id = order["order_id"]

    stock = (await mode["inventory"].get("/stock/laptop")).json()
    assert (stock["item"], stock["available"]) == ("laptop", 100)
    assert (await mode["inventory"].get("/stock")).json()["items"] == [stock]
    reservation = (await mode["inventory"].get(f"/reservations/{order_id}")).json()
    assert reservation["status"] == "RELEASED"
    assert [change["to"] for change in reservation["history"]] == ["RESERVED", "RELEASED"]
    payment = (await mode["payment"].get(f"/payments/{order_id}")).json()
    assert (payment["status"], payment["amount"], payment["reason"]) == (
        "DECLINED",
        "600.00",
        "payment_declined",
    )
    history = (await mode["order"].get(f"/orders/{order_id}")).json()["history"]
    assert [change["to"] for change in history] == ["PENDING", "FAILED"]
    assert history[1]["cause"].startswith(order_id)


async def test_sagas(mode: ServedMode) -> None:
    """The orchestrator shows each saga's state and how it came there; nobody does in the other mode."""
    if "orchestrator" not in mode.clients:
        assert (await mode["order"].get("/sagas")).status_code == 404
        return
    order = (await mode["order"].post("/orders", json=TOO_DEAR, headers={"Prefer": "wait=5"})).json()
    (saga,) = (await mode["orchestrator"].get("/sagas?state=FAILED")).json()["items"]
    detail = (await mode["orchestrator"].get(f"/sagas/{order['order_id']}")).json()
    changes = [(change["from"], change["to"]) for change in detail.pop("history")]
    assert detail == saga
    assert changes == [
        ("PENDING", "RESERVING_INVENTORY"),
        ("RESERVING_INVENTORY", "PROCESSING_PAYMENT"),
        ("PROCESSING_PAYMENT", "COMPENSATING"),
        ("COMPENSATING", "FAILED"),
    ]


async def test_an_upper_case_id(service: OrderService) -> None:
    """A UUID means the same in any case (RFC 9562)."""
    placed = await service.client.post("/orders", json=LAPTOP)
    answer = await service.client.get(placed.headers["Location"].upper().replace("/ORDERS", "/orders"))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("service_name", "path"),
    [
        ("order", f"/orders/{UNKNOWN}"),
        ("inventory", f"/reservations/{UNKNOWN}"),
        ("inventory", "/stock/unicorn"),
        ("inventory", "/stock/a/b"),
        ("payment", f"/payments/{UNKNOWN}"),
    ],
)
async def test_unknown_rows(mode: ServedMode, service_name: str, path: str) -> None:
    """What isn't there is a 404, as a problem."""
    answer = await mode[service_name].get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert answer.json()["instance"] == path


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=201", "/limit"),
        ("limit=x", "/limit"),
        ("after=x", "/after"),
        ("status=pending", "/status"),
    ],
)
async def test_bad_parameters(service: OrderService, query: str, pointer: str) -> None:
    """A parameter out of its range is named."""
    answer = await service.client.get(f"/orders?{query}")
    assert answer.status_code == 422
    assert [(fault["location"], fault["pointer"]) for fault in answer.json()["errors"]] == [
        ("query", pointer)
    ]
