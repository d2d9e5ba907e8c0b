"""The services do what their OpenAPI documents say: schemathesis tries to show that they don't."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import orchestrated
from tests.http.conftest import served

SERVICES = [wiring.name for wiring in orchestrated.MODE.services]
HOOKS = "tests.http.schemathesis_hooks"
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The services of the orchestrated mode, behind real sockets, with one order that has ended."""
    with served(orchestrated.MODE, tmp_path_factory.mktemp("served")) as found:
        order = {"customer_id": "cust-1", "item": "laptop", "quantity": 1, "price": 200}
        url = f"{found['order']}/orders"
        assert httpx.post(url, json=order, headers={"Prefer": "wait=10"}).status_code == 201
        yield found


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", SERVICES)
def test_as_described(urls: dict[str, str], name: str, tmp_path: Path) -> None:
    """Whatever is sent, well-formed or not, the answer is one that the document describes."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{urls[name]}/openapi.json"]
    options = ["--checks=all", "--max-examples=20", "--seed=1", "--no-color", "--generation-database=none"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [*command, *options], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_problems_are_declared(urls: dict[str, str], name: str) -> None:
    """Every operation has a summary, and declares its errors as problems only."""
    document = httpx.get(f"{urls[name]}/openapi.json").json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    for operation in operations:
        assert operation["summary"]
        for status, answer in operation["responses"].items():
            expected = "application/problem+json" if int(status) >= 400 else "application/json"
            assert list(answer["content"]) == [expected]


@pytest.mark.parametrize("name", SERVICES)
def test_fields_are_explained(urls: dict[str, str], name: str) -> None:
    """Every field of a row has a description."""
    schemas = httpx.get(f"{urls[name]}/openapi.json").json()["components"]["schemas"]
    rows = [
        schemas[row] for row in ("Order", "Stock", "Reservation", "Payment", "OrderSaga") if row in schemas
    ]
    for row in rows:
        assert all("description" in field for field in row["properties"].values())


@pytest.mark.parametrize("name", SERVICES)
def test_docs(urls: dict[str, str], name: str) -> None:
    """The document can be tried out in a browser."""
    page = httpx.get(f"{urls[name]}/docs")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
