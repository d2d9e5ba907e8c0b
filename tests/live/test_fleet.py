"""Three instances of every service on real Kafka, killed and added in mid-flight, lose and double nothing."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from tests.kafka_server.server import KafkaServer
from tests.live.checks import check_conserved, check_records, headers_of, read_topics, text
from tests.live.conftest import PORTS, Lab, until
from tests.live.fleet import Fleet, fleet

pytestmark = [pytest.mark.live, pytest.mark.kafka, pytest.mark.timeout(420, func_only=True)]

INSTANCES = 3
ORDERS = int(os.environ.get("FLEET_ORDERS", "300"))
"""Placed by each test; in the thousands it takes some minutes."""
CLIENTS = 8
STOCK = 100


def order_body(number: int) -> dict[str, Any]:
    """Orders of all kinds in turn: paid, too dear, not to be had, too many."""
    kind = number % 4
    return {
        "customer_id": f"cust-{number}",
        "item": ["laptop", "phone", "unicorn", "headphones"][kind],
        "quantity": [1, 1, 1, 1000][kind],
        "price": ["200", "500.01", "10", "0.10"][kind],
    }


def place(ships: Fleet, number: int) -> str:
    """Place an order at one of the instances as a client does that tries again: the key makes that safe."""
    tries = iter(range(number, number + 10_000))

    def post() -> str | None:
        instances = ships.of("order")
        url = instances[next(tries) % len(instances)].url
        headers = {"Idempotency-Key": f"fleet-{number}"}
        try:
            answer = httpx.post(
                f"{url}/orders", json=order_body(number), headers=headers, timeout=20, trust_env=False
            )
        except httpx.TransportError:
            return None
        return str(answer.json()["order_id"]) if answer.status_code == 202 else None

    return until(post, seconds=120, what=f"order {number} is taken") or ""


def wait_for_ends(ships: Fleet) -> list[dict[str, Any]]:
    """Wait until all orders have ended."""

    def all_ended() -> bool:
        return bool(ships.get("order", "/orders?status=PENDING&limit=1")["total"] == 0)

    until(all_ended, seconds=180, what="every order has ended")
    return ships.all_rows("order", "orders")


def check_order_by_order(ships: Fleet) -> None:
    """Check that of each order, each service's facts are in the topics in the order of their decisions.

    First occurrences, that is: what a dead instance had published already, its successor may publish again.
    """
    seen: set[str] = set()
    decided: dict[tuple[str, str, int, str], list[str]] = defaultdict(list)
    records = sorted(
        read_topics(cast("Lab", ships)), key=lambda one: (one.topic(), one.partition(), one.offset())
    )
    for record in records:
        headers = headers_of(record)
        if headers["ce_id"] not in seen:
            seen.add(headers["ce_id"])
            place = (str(record.topic()), text(record.key()), record.partition() or 0, headers["ce_source"])
            decided[place].append(headers["ce_time"])
    assert all(times == sorted(times) for times in decided.values())


def wait_for(placing: Sequence[Future[str]], count: int) -> None:
    """Wait until so many orders are placed."""
    until(lambda: sum(one.done() for one in placing) >= count, seconds=180, what=f"{count} are placed")


def run_aground(ships: Fleet) -> list[Callable[[], object]]:
    """What happens to the fleet meanwhile: of every service one is killed, one added, and one more killed."""

    def each(do: Callable[[str], object]) -> Callable[[], object]:
        return lambda: [do(service) for service in PORTS[ships.name]]

    return [each(ships.kill), each(ships.start), each(ships.kill)]


@pytest.fixture
def own_kafka(kafka_server: KafkaServer, tmp_path: Path) -> Iterator[KafkaServer]:
    """A broker without any other test's topics; that there can be one is the shared one's to say."""
    del kafka_server
    folder = tmp_path / "kafka"
    folder.mkdir()
    server = KafkaServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("mode", PORTS)
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_fleet_that_loses_ships(
    mode: str, database: str, own_kafka: KafkaServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every order ends, nothing is charged twice or left held, and facts stay in their order."""
    environment = {
        "TOPIC_PARTITIONS": "6",
        "DATA_DIR": str(tmp_path / "data"),
        "INITIAL_STOCK": '{"laptop": 100, "phone": 100, "headphones": 100}',
        # Dead members hold their partitions for as long as their session lasts.
        "STEP_TIMEOUT": "30",
        "ORDER_TIMEOUT": "60",
    }
    if database == "postgresql":
        environment["DATABASE_URL"] = request.getfixturevalue("postgres_server").url
    with fleet(mode, own_kafka.bootstrap, tmp_path / "logs", INSTANCES, environment) as ships:
        events = run_aground(ships)
        with ThreadPoolExecutor(CLIENTS) as clients:
            placing = [clients.submit(place, ships, number) for number in range(ORDERS)]
            for share, event in enumerate(events, start=1):
                due = ORDERS * share // (len(events) + 1)
                wait_for(placing, due)
                event()
            order_ids = {one.result() for one in placing}
        orders = wait_for_ends(ships)
        assert len(order_ids) == len(orders) == ORDERS
        assert {order["status"] for order in orders} == {"COMPLETED", "FAILED"}
        check_conserved(cast("Lab", ships), orders)
        check_records(cast("Lab", ships), order_ids)
        check_order_by_order(ships)
        assert "Traceback" not in ships.logs()
