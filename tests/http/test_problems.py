"""Every error is a problem document, tells no internals, and has changed nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

import common.runner
from tests.http.conftest import OrderService
from tests.http.test_orders import JSON, LAPTOP, body

BAD_BODIES: dict[str, tuple[int, Any]] = {
    "no body": (422, b""),
    "no object": (422, b"[]"),
    "nothing in it": (422, b"{}"),
    "unknown field": (422, b'{"customer_id": "c", "item": "i", "quantity": 1, "price": 1, "x": 1}'),
    "no JSON": (400, b"{"),
    "trailing text": (400, body().encode() + b"x"),
    "NaN": (400, body("NaN").encode()),
    "Infinity": (400, body("-Infinity").encode()),
    "not UTF-8": (400, body().encode("utf-16")),
    "byte order mark": (400, b"\xef\xbb\xbf" + body().encode()),
    "a name twice": (400, b'{"price": 1, "price": 2}'),
    "too deep": (400, b"[" * 16_000),
    "too large": (413, body().encode() + b" " * 16_384),
    "half a character as a value": (
        422,
        rb'{"customer_id": "\ud800", "item": "i", "quantity": 1, "price": 1}',
    ),
    "half a character as a name": (422, rb'{"\ud800": 1}'),
    "control character": (422, rb'{"customer_id": "a\u0000b", "item": "i", "quantity": 1, "price": 1}'),
    "line break": (422, rb'{"customer_id": "a\n", "item": "i", "quantity": 1, "price": 1}'),
    "blank": (422, b'{"customer_id": " ", "item": "i", "quantity": 1, "price": 1}'),
    "empty": (422, b'{"customer_id": "", "item": "i", "quantity": 1, "price": 1}'),
    "too long": (422, b'{"customer_id": "%b", "item": "i", "quantity": 1, "price": 1}' % (b"x" * 101)),
    "number for text": (422, b'{"customer_id": 1, "item": "i", "quantity": 1, "price": 1}'),
    "many faults": (422, b"{" + b", ".join(b'"x%d": 1' % n for n in range(900)) + b"}"),
}


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check the form of a problem document, and return it."""
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail", "instance"} <= problem.keys()
    return problem


@pytest.mark.parametrize(("status", "content"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_bad_bodies(service: OrderService, status: int, content: bytes) -> None:
    """Whatever is wrong with a body is told as a problem, and makes no order."""
    answer = await service.client.post("/orders", content=content, headers=JSON)
    problem = check_problem(answer, status)
    assert len(answer.content) < 6_000
    if status == 422:
        assert all(fault["location"] == "body" for fault in problem["errors"])
    assert service.counts() == (0, 0, 0)


async def test_too_large_in_pieces(service: OrderService) -> None:
    """The limit holds for a body whose length isn't told beforehand."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    check_problem(await service.client.post("/orders", content=pieces(), headers=JSON), 413)
    assert service.counts() == (0, 0, 0)


@pytest.mark.parametrize("media_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "x"])
async def test_other_media_types(service: OrderService, media_type: str | None) -> None:
    """A body that isn't said to be JSON is not taken for it."""
    headers = {"Content-Type": media_type} if media_type is not None else {}
    check_problem(await service.client.post("/orders", content=body(), headers=headers), 415)
    assert service.counts() == (0, 0, 0)


async def test_media_type_with_parameters(service: OrderService) -> None:
    """A charset, and any case, do no harm."""
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await service.client.post("/orders", content=body(), headers=headers)).status_code == 202


@pytest.mark.parametrize("path", ["/", "/order", "/orders/", "/orders/x/y", "/%00", "/%FF", "/ä?b=ü"])
async def test_unknown_paths(service: OrderService, path: str) -> None:
    """A path that leads nowhere is a problem."""
    check_problem(await service.client.get(path), 404)


async def test_wrong_method(service: OrderService) -> None:
    """A method that a path doesn't know is told with those that it does."""
    answer = await service.client.delete("/orders")
    check_problem(answer, 405)
    assert answer.headers["Allow"] == "GET, POST"


async def test_no_uuid(service: OrderService) -> None:
    """An order's id that is none is told as a fault of the path."""
    problem = check_problem(await service.client.get("/orders/1"), 422)
    assert [(fault["location"], fault["pointer"]) for fault in problem["errors"]] == [("path", "/order_id")]


async def test_a_bug_leaks_nothing(service: OrderService, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody has foreseen is told as a 500 without its text."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(service.runner.core, "submit", broken)
    answer = await service.client.post("/orders", json=LAPTOP)
    check_problem(answer, 500)
    assert "secret" not in answer.text
    assert service.counts() == (0, 0, 0)


async def test_a_database_in_trouble(service: OrderService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that can't be used at the moment is a 503 that asks to try again."""

    def locked(*_: object) -> None:
        raise OperationalError("secret", {}, Exception("database is locked"))

    monkeypatch.setattr(service.runner.core, "submit", locked)
    answer = await service.client.post("/orders", json=LAPTOP)
    check_problem(answer, 503)
    assert "secret" not in answer.text
    assert answer.headers["Retry-After"] == "1"


async def test_an_overloaded_service(service: OrderService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that can't pass on what it has taken takes nothing more, and says so with a 503."""
    monkeypatch.setattr(common.runner, "_MOST_UNPUBLISHED", 2)
    answers = [await service.client.post("/orders", json=LAPTOP) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 503, 503]
    problem = check_problem(answers[-1], 503)
    assert "nothing was changed" in problem["detail"]
    assert answers[-1].headers["Retry-After"] == "1"
    assert service.counts() == (2, 2, 0)
