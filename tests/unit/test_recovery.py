"""An undo that fails is tried until it succeeds, and if that doesn't help, an operator is called for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

import orchestrated
from common.errors import PermanentError
from common.messages import (
    Message,
    OrderCompensationFailed,
    OrderFailed,
    PaymentProcessed,
    PaymentRefunded,
    ProcessPayment,
    RefundPayment,
    ReleaseInventory,
    RetryCompensation,
    SagaFailed,
)
from common.wiring import Mode
from tests.pump import Pump, order_id, place_order
from tests.unit.records import (
    BOTH,
    MODES,
    Failing,
    check_books,
    dead_letters,
    end_of,
    losing,
    on_topic,
    total,
)

STOCK: Final = {"laptop": 10}
HOUR: Final = 3600
RETRY: Final = RetryCompensation(order_id=order_id(1))
DECLINED: Final = ("FAILED", "payment_declined", "RELEASED", "DECLINED")
UNDOS: Final = pytest.mark.parametrize(
    ("undo", "reason", "left"),
    [
        (ReleaseInventory, "payment_declined", ("RESERVED", "DECLINED")),
        (RefundPayment, "timed_out", ("RESERVED", "CHARGED")),
    ],
    ids=["release", "refund"],
)


def failing_undo(mode: Mode, folder: Path, undo: type[Message], probe: Failing) -> Pump:
    """A mode with one order that has to be undone, which fails.

    A payment that is too high has its goods released; one whose answer never comes is refunded.
    """
    wire = losing(PaymentProcessed, times=float("inf"))
    pump = Pump(mode, folder, STOCK, probe=lambda _: probe, wire=wire)
    pump.request([place_order(1, price=400_00 if undo is ReleaseInventory else 100_00)])
    return pump


def saga_state(pump: Pump) -> str | None:
    """The state of the first order's saga, if there is an orchestrator."""
    sagas = pump.state().get("orchestrator", {"sagas": []})["sagas"]
    return str(sagas[0][5]) if sagas else None


@MODES
@UNDOS
def test_an_undo_that_always_fails_is_visible_and_never_a_plain_failure(
    mode: Mode, undo: type[Message], reason: str, left: tuple[str, str], tmp_path: Path
) -> None:
    """The order says that its compensation failed, nothing goes on by itself, and nothing claims an end."""
    pump = failing_undo(mode, tmp_path, undo, Failing(undo))
    pump.run(HOUR)
    assert end_of(pump.state()) == ("COMPENSATION_FAILED", reason, *left)
    assert saga_state(pump) in {None, "COMPENSATION_FAILED"}
    assert len(on_topic(pump, OrderCompensationFailed)) == 1
    assert on_topic(pump, OrderFailed) == []
    assert {letter.message_type for letter in dead_letters(pump)} <= {
        undo.__name__,
        "PaymentDeclined",
        "OrderAborted",
    }
    assert dead_letters(pump)
    before = pump.histories()
    pump.run(10 * HOUR)
    assert pump.histories() == before
    pump.close()


@MODES
@UNDOS
def test_an_operator_has_a_failed_compensation_tried_again(
    mode: Mode, undo: type[Message], reason: str, left: tuple[str, str], tmp_path: Path
) -> None:
    """Once its cause is mended, the undo is asked for again, and the order fails with its first reason."""
    probe = Failing(undo)
    pump = failing_undo(mode, tmp_path, undo, probe)
    pump.run(HOUR)
    assert end_of(pump.state())[2:] == left
    for _ in range(2):
        pump.request([RETRY])
        pump.run(HOUR)
        assert end_of(pump.state())[:2] == ("COMPENSATION_FAILED", reason), "in vain"
        assert saga_state(pump) in {None, "COMPENSATION_FAILED"}
    probe.times = 0
    pump.request([RETRY])
    pump.run(HOUR)
    undone = ("RELEASED", "DECLINED" if undo is ReleaseInventory else "REFUNDED")
    assert end_of(pump.state()) == ("FAILED", reason, *undone)
    check_books(pump, STOCK, [1])
    assert len(on_topic(pump, OrderFailed)) == 1
    assert total(pump, "ignored") == 0
    pump.close()


@MODES
@UNDOS
@pytest.mark.parametrize("times", [1, 5, 9])
def test_an_undo_that_fails_and_then_succeeds_ends_the_order(
    mode: Mode, undo: type[Message], reason: str, left: tuple[str, str], times: int, tmp_path: Path
) -> None:
    """With failures below the limit, the order fails as it would have, and no operator is called."""
    pump = failing_undo(mode, tmp_path, undo, Failing(undo, times=times))
    pump.run(HOUR)
    undone = ("RELEASED", "REFUNDED" if left[1] == "CHARGED" else left[1])
    assert end_of(pump.state()) == ("FAILED", reason, *undone)
    assert on_topic(pump, OrderCompensationFailed) == []
    assert dead_letters(pump) == []
    check_books(pump, STOCK, [1])
    pump.close()


@MODES
def test_an_operator_cannot_hurry_or_change_what_goes_its_way(mode: Mode, tmp_path: Path) -> None:
    """The command means nothing while an order is pending, nor once it has ended."""
    pump = Pump(mode, tmp_path, STOCK)
    pump.request([place_order(1), RETRY])
    pump.run(HOUR)
    assert end_of(pump.state())[0] == "COMPLETED"
    before = pump.state()
    pump.request([RETRY])
    pump.run(HOUR)
    assert pump.state() == before
    assert pump.cores["order"].counts["late"] == 2
    pump.close()


@MODES
def test_an_operator_who_asks_twice_is_answered_once(mode: Mode, tmp_path: Path) -> None:
    """While the undo is tried again, a second command finds nothing to do."""
    probe = Failing(ReleaseInventory)
    pump = failing_undo(mode, tmp_path, ReleaseInventory, probe)
    pump.run(HOUR)
    probe.times = 0
    pump.request([RETRY, RETRY])
    pump.run(HOUR)
    assert end_of(pump.state()) == DECLINED
    check_books(pump, STOCK, [1])
    pump.close()


@pytest.mark.parametrize("times", [1, 3])
def test_the_end_of_a_retried_compensation_is_told_again_if_it_is_lost(times: int, tmp_path: Path) -> None:
    """The Order service asks again until it hears, though the orchestrator's saga has ended long ago."""
    probe = Failing(ReleaseInventory)
    wire = losing(SagaFailed, times=times)
    pump = Pump(orchestrated.MODE, tmp_path, STOCK, probe=lambda _: probe, wire=wire)
    pump.request([place_order(1, price=400_00)])
    pump.run(HOUR)
    probe.times = 0
    pump.request([RETRY])
    pump.run(1)
    assert (end_of(pump.state())[0], saga_state(pump)) == ("COMPENSATING", "FAILED")
    before = pump.cores["order"].counts["overdue"]
    pump.run(HOUR)
    assert end_of(pump.state()) == DECLINED
    assert pump.cores["order"].counts["overdue"] == before + times
    pump.close()


@MODES
def test_a_payment_that_was_never_made_needs_no_refund(mode: Mode, tmp_path: Path) -> None:
    """Where the payment was refused for good, its undo finds nothing to do, and the goods are released."""
    probe = Failing(ProcessPayment, error=PermanentError)
    pump = Pump(mode, tmp_path, STOCK, probe=lambda _: probe)
    pump.request([place_order(1)])
    pump.run(HOUR)
    assert end_of(pump.state()) == ("FAILED", "dead_letter", "RELEASED", "DECLINED")
    assert on_topic(pump, PaymentRefunded) == []
    pump.close()


def test_both_modes_undo_alike(tmp_path: Path) -> None:
    """Coordination is the only variable: after the same failing undo, the rows are alike but for times."""
    ends = []
    for mode in BOTH:
        pump = failing_undo(mode, tmp_path / mode.name, RefundPayment, Failing(RefundPayment, times=4))
        pump.run(HOUR)
        ends.append(
            {
                table: [row[:-2] for row in rows]
                for service in ("order", "inventory", "payment")
                for table, rows in pump.state()[service].items()
            }
        )
        pump.close()
    assert ends[0] == ends[1]
