"""What must be true when every order has ended, as seen over HTTP and by an independent Kafka client."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, cast

from confluent_kafka import Consumer, Message, TopicPartition

from tests.live.conftest import Lab, until

TOPICS = {
    "orchestrated": ["saga.commands", "saga.events"],
    "choreographed": ["orders.events", "inventory.events", "payments.events"],
}
INITIAL_STOCK = 100


def check_conserved(lab: Lab, orders: list[dict[str, Any]]) -> None:
    """Check that nothing was lost, held or charged that should not be."""
    reservations = {row["order_id"]: row for row in lab.all_rows("inventory", "reservations")}
    payments = {row["order_id"]: row for row in lab.all_rows("payment", "payments")}
    held: Counter[str] = Counter()
    for row in reservations.values():
        held[row["item"]] += row["quantity"] if row["status"] == "RESERVED" else 0
    for stock in lab.all_rows("inventory", "stock"):
        assert stock["available"] + held[stock["item"]] == INITIAL_STOCK
        assert stock["available"] >= 0
    for order in orders:
        payment = payments.get(order["order_id"], {"status": None})
        if order["status"] == "COMPLETED":
            assert (payment["status"], payment["amount"]) == ("CHARGED", order["total"])
            assert reservations[order["order_id"]]["status"] == "RESERVED"
        else:
            assert order["status"] == "FAILED"
            assert payment["status"] != "CHARGED"
            assert reservations[order["order_id"]]["status"] != "RESERVED"


def read_topics(lab: Lab) -> list[Message]:
    """Every record, as a Kafka client reads them that knows nothing of the lab."""
    consumer = Consumer({"bootstrap.servers": lab.broker(), "group.id": "a stranger"})
    try:
        known = consumer.list_topics(timeout=10).topics
        places = [
            TopicPartition(name, number, 0) for name in TOPICS[lab.name] for number in known[name].partitions
        ]
        ends = {
            (where.topic, where.partition): consumer.get_watermark_offsets(where, timeout=10)[1]
            for where in places
        }
        consumer.assign(places)
        records: list[Message] = []

        def read_all() -> bool:
            records.extend(record for record in consumer.consume(500, timeout=0.2) if record.error() is None)
            return len(records) >= sum(ends.values())

        until(read_all, what="all records are read")
        return records
    finally:
        consumer.close()


def text(value: str | bytes | None) -> str:
    """Bytes as text; confluent-kafka's types allow for more than it gives."""
    return value.decode() if isinstance(value, bytes) else value or ""


def headers_of(record: Message) -> dict[str, str]:
    """A record's headers."""
    pairs = cast("list[tuple[str, bytes]]", record.headers() or [])
    return {name: text(value) for name, value in pairs}


def origin_of(message_id: str, causes: dict[str, str]) -> str:
    """What a chain of messages began with."""
    while message_id in causes:
        message_id = causes[message_id]
    return message_id


def check_records(lab: Lab, order_ids: set[str]) -> None:
    """Check that the records are CloudEvents, keyed by order, in one partition and in causal order."""
    partitions = defaultdict(set)
    causes: dict[str, str] = {}
    for record in read_topics(lab):
        headers = headers_of(record)
        order_id = text(record.key())
        assert headers["ce_specversion"] == "1.0"
        assert headers["ce_subject"] == headers["ce_correlationid"] == order_id
        assert headers["content-type"] == "application/json"
        assert headers["ce_source"].startswith(f"/{lab.name}/")
        partitions[order_id].add(record.partition())
        causes[headers["ce_id"]] = headers["ce_causationid"]
    assert partitions.keys() == order_ids
    assert all(len(numbers) == 1 for numbers in partitions.values())
    # Whatever follows from a message names it, and every chain begins with its order.
    assert {origin_of(message_id, causes) for message_id in causes} == order_ids
