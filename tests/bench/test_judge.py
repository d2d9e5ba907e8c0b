"""The judge finds nothing in a sound run, and every violation that is planted into one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

import choreographed
import orchestrated
from common.wiring import Mode
from compare.bench.judge import judge_domain, judge_lab
from compare.bench.load import Placed
from tests.bench.soundness import LOAD, ORDERS, after_orders, change, expected

MODES: Final = (orchestrated.MODE, choreographed.MODE)

DOMAIN: Final = [
    ("order", "DELETE FROM orders WHERE order_id = :paid", "1 of 10 orders have no order"),
    ("order", "UPDATE orders SET status = 'PENDING' WHERE order_id = :paid", "is PENDING"),
    ("order", "UPDATE orders SET status = 'COMPLETED' WHERE order_id = :declined", "is COMPLETED"),
    ("order", "UPDATE orders SET reason = 'timed_out' WHERE order_id = :declined", "timed_out"),
    ("order", "UPDATE orders SET quantity = 2 WHERE order_id = :paid", "is over 2"),
    (
        "order",
        "UPDATE orders SET order_id = 'stranger' WHERE order_id = :paid",
        "no order that was placed",
    ),
    ("payment", "DELETE FROM payments WHERE order_id = :paid", "1 of 10 orders have no payment"),
    ("payment", "UPDATE payments SET status = 'CHARGED' WHERE order_id = :declined", "is CHARGED"),
    ("payment", "UPDATE payments SET status = 'REFUNDED' WHERE order_id = :paid", "is REFUNDED"),
    ("payment", "UPDATE payments SET amount_cents = 1 WHERE order_id = :paid", "CHARGED of 1,"),
    ("inventory", "DELETE FROM reservations WHERE order_id = :paid", "no reservation"),
    (
        "inventory",
        "UPDATE reservations SET status = 'RESERVED' WHERE order_id = :declined",
        "is RESERVED",
    ),
    ("inventory", "UPDATE reservations SET status = 'RELEASED' WHERE order_id = :paid", "is RELEASED"),
    ("inventory", "UPDATE reservations SET quantity = 2 WHERE order_id = :paid", "2 item-0"),
    ("inventory", "UPDATE stock SET available = available + 1 WHERE item = 'item-0'", "are left and 4 held"),
    ("inventory", "UPDATE stock SET available = -1 WHERE item = 'item-1'", "-1 pieces of item-1"),
    ("inventory", "DELETE FROM stock WHERE item = 'item-1'", "no stock of item-1"),
]
"""Whose database, what is done to it, and what the judge says."""

_HISTORY: Final = "INSERT INTO history (order_id, cause_id, from_status, to_status, at) VALUES"
RUNTIME: Final = [
    ("order", _HISTORY + " (:paid, 'x', 'PENDING', 'COMPLETED', 'now')", "more than once"),
    ("order", _HISTORY + " (:paid, 'x', 'PENDING', 'FAILED', 'now')", "more than one end"),
    ("order", _HISTORY + " (:paid, 'x', 'COMPLETED', 'PENDING', 'now')", "have left their end"),
    ("order", "DELETE FROM history WHERE order_id = :paid", "6 became COMPLETED, not 7"),
    ("payment", _HISTORY + " (:paid, 'x', 'NONE', 'CHARGED', 'now')", "8 became CHARGED, not 7"),
    ("payment", _HISTORY + " (:paid, 'x', 'CHARGED', 'REFUNDED', 'now')", "1 became REFUNDED"),
    ("inventory", "DELETE FROM history WHERE order_id = :declined", "9 became RESERVED, not 10"),
    (
        "payment",
        "INSERT INTO outbox (partition, records, content) VALUES (0, 1, x'90')",
        "unpublished parcels",
    ),
    (
        "payment",
        (
            'INSERT INTO retries (inbox_key, order_id, due_at, tries, topic, partition, "offset", headers) '
            "VALUES ('k', 'o', 'now', 1, 't', 0, 0, '[]')"
        ),
        "1 retries are left",
    ),
    (
        "order",
        "INSERT INTO deadlines VALUES ('o', 0, 'later', 1, 0, 1, 'c', 'o', 't', 'now', 'now')",
        "1 deadlines are left",
    ),
    ("inventory", "INSERT INTO counters VALUES ('dead_letter', 2)", "2 counted as dead_letter"),
    ("inventory", "INSERT INTO counters VALUES ('ignored', 1)", "1 counted as ignored"),
    ("order", "INSERT INTO counters VALUES ('timed_out', 1)", "1 counted as timed_out"),
]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_sound_run_has_no_faults(mode: Mode, tmp_path: Path) -> None:
    """Where all orders ended as they had to, the judge is content."""
    with after_orders(mode, tmp_path) as databases:
        assert judge_lab(databases, expected(), LOAD.stock) == ()


@pytest.mark.parametrize(("service", "statement", "fault"), DOMAIN)
def test_a_violation_in_the_domain_is_found(service: str, statement: str, fault: str, tmp_path: Path) -> None:
    """Each rule about orders, payments, reservations and stock is broken once, and that is told."""
    with after_orders(choreographed.MODE, tmp_path) as databases:
        change(databases[service], statement)
        found = judge_domain(databases, expected(), LOAD.stock)
    assert fault in "; ".join(found)


@pytest.mark.parametrize(("service", "statement", "fault"), RUNTIME)
def test_a_violation_in_the_runtime_is_found(
    service: str, statement: str, fault: str, tmp_path: Path
) -> None:
    """Each rule about history, outbox, retries, deadlines and counters is broken once, and that is told."""
    with after_orders(choreographed.MODE, tmp_path) as databases:
        change(databases[service], statement)
        found = judge_lab(databases, expected(), LOAD.stock)
    assert fault in "; ".join(found)


def test_a_saga_that_has_not_ended_is_found(tmp_path: Path) -> None:
    """The orchestrator has to agree with the Order service on how an order ended."""
    with after_orders(orchestrated.MODE, tmp_path) as databases:
        change(databases["orchestrator"], "UPDATE sagas SET state = 'COMPENSATING' WHERE order_id = :paid")
        (fault,) = judge_lab(databases, expected(), LOAD.stock)
    assert "is COMPENSATING, not COMPLETED" in fault


def test_an_order_that_was_never_taken_on_is_missed(tmp_path: Path) -> None:
    """What was placed and is nowhere counts as lost, in every service."""
    with after_orders(choreographed.MODE, tmp_path) as databases:
        found = judge_domain(databases, Placed(LOAD, ORDERS + 2), LOAD.stock)
    assert found == (
        "2 of 12 orders have no order",
        "2 of 12 orders have no payment",
        "2 of 12 orders have no reservation",
    )
