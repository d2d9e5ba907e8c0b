"""A cancel races the payment, and whoever wins, all services see the same winner."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import choreographed
import orchestrated
from common.messages import (
    CancelOrder,
    CancelPayment,
    CompleteOrder,
    Message,
    OrderCancelRequested,
    OrderCompleted,
    OrderFailed,
    PaymentProcessed,
    PaymentRefunded,
    ProcessPayment,
    Reason,
    ReleaseInventory,
    ReserveInventory,
)
from common.wiring import Mode
from tests.pump import Pump, order_id, place_order
from tests.unit.records import BOTH, MODES, Failing, check_books, dead_letters, end_of, on_topic, total

STOCK: Final = {"laptop": 10}
CANCEL: Final = CancelOrder(order_id=order_id(1))
COMPLETED: Final = ("COMPLETED", None, "RESERVED", "CHARGED")


def ids_of(pump: Pump, kind: type[Message]) -> set[bytes]:
    """The ids of all messages of a type, each of which may be there several times."""
    return {dict(record.headers)["ce_id"] for record in on_topic(pump, kind)}


def check_winner(pump: Pump) -> str:
    """That the order, its goods, its payment and its saga tell of the same end, and which it is."""
    status, reason, reservation, payment = end_of(pump.state())
    told = [len(ids_of(pump, kind)) for kind in (OrderCompleted, OrderFailed)]
    check_books(pump, STOCK, [1])
    if status == "COMPLETED":
        assert (reservation, payment) == ("RESERVED", "CHARGED")
        assert told == [1, 0]
        return "payment"
    assert (status, reason) == ("FAILED", "cancelled")
    assert reservation == "RELEASED"
    assert payment in {None, "REFUNDED"}
    assert told == [0, 1]
    assert on_topic(pump, PaymentProcessed) == [], "nobody was charged, not even for a moment"
    return "cancel"


def cancelled_after(steps: int, pump: Pump) -> bool:
    """Place an order, and cancel it after so many steps; whether there were as many."""
    pump.request([place_order(1)])
    reached = False
    for number, _ in enumerate(pump.steps(600), 1):
        if number == steps:
            reached = True
            pump.request([CANCEL])
    return reached


def winners_by_point(mode: Mode, folder: Path) -> list[str]:
    """Who wins if the customer cancels after the first step, after the second, and so on."""
    winners: list[str] = []
    reached = True
    while reached:
        steps = len(winners) + 1
        pump = Pump(mode, folder / str(steps), STOCK)
        reached = cancelled_after(steps, pump)
        winners += [check_winner(pump)] if reached else []
        pump.close()
    return winners


@MODES
def test_a_cancel_at_any_point_has_one_winner(mode: Mode, tmp_path: Path) -> None:
    """From the moment on at which the payment is decided, a cancel comes too late; before, it is in time."""
    winners = winners_by_point(mode, tmp_path)
    turning_point = winners.index("payment")
    assert turning_point > 0
    assert winners == ["cancel"] * turning_point + ["payment"] * (len(winners) - turning_point)


@MODES
@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 40),
    copies=st.integers(1, 2),
    failing=st.sampled_from(
        [None, ReserveInventory, ProcessPayment, CancelPayment, ReleaseInventory, CompleteOrder]
    ),
    times=st.integers(1, 4),
)
def test_a_cancel_in_any_interleaving_has_one_winner(
    mode: Mode,
    seed: int,
    steps: int,
    copies: int,
    failing: type[Message] | None,
    times: int,
) -> None:
    """Whatever overtakes whatever, and whatever fails for a while, all services agree."""
    probe = Failing(*([failing] if failing else []), times=times)
    with TemporaryDirectory() as folder:
        pump = Pump(mode, Path(folder), STOCK, shuffle=Random(seed), copies=copies, probe=lambda _: probe)
        reached = cancelled_after(steps, pump)
        winner = check_winner(pump)
        assert reached or winner == "payment"
        assert dead_letters(pump) == []
        pump.close()


@MODES
def test_a_cancel_costs_the_other_orders_nothing(mode: Mode, tmp_path: Path) -> None:
    """Only the order that is cancelled fails, and its goods are there for the next."""
    pump = Pump(mode, tmp_path, {"laptop": 4})
    pump.request([place_order(1), CANCEL])
    pump.run()
    pump.request([place_order(2), place_order(3)])
    pump.run()
    assert [end_of(pump.state(), number)[:2] for number in (1, 2, 3)] == [
        ("FAILED", "cancelled"),
        ("COMPLETED", None),
        ("COMPLETED", None),
    ]
    check_books(pump, {"laptop": 4}, [1, 2, 3])
    pump.close()


@MODES
def test_a_second_cancel_is_a_duplicate(mode: Mode, tmp_path: Path) -> None:
    """Who asks twice is answered once."""
    pump = Pump(mode, tmp_path, STOCK)
    pump.request([place_order(1), CANCEL, CANCEL])
    pump.run(600)
    assert check_winner(pump) == "cancel"
    assert total(pump, "duplicate") == 1
    pump.close()


@MODES
@pytest.mark.parametrize("early", [[CANCEL], []], ids=["in time", "too late"])
def test_a_cancel_of_what_fails_anyway_changes_no_more_than_the_reason(
    mode: Mode, early: list[CancelOrder], tmp_path: Path
) -> None:
    """An order that can't be had fails for the one reason or the other, but once and with nothing held."""
    pump = Pump(mode, tmp_path, STOCK)
    pump.request([place_order(1, item="unicorn"), *early])
    pump.run(600)
    pump.request([CANCEL])
    pump.run(600)
    status, reason, reservation, payment = end_of(pump.state())
    assert status == "FAILED"
    assert reason in ({"unknown_item", "cancelled"} if early else {"unknown_item"})
    assert reservation != "RESERVED"
    assert payment in {None, "REFUNDED"}
    assert len(on_topic(pump, OrderFailed)) == 1
    pump.close()


@MODES
def test_a_cancel_while_the_payment_service_is_away_wins_once_it_is_back(mode: Mode, tmp_path: Path) -> None:
    """Nobody else can know which was first, so the order waits for the word of the Payment service."""
    pump = Pump(mode, tmp_path, STOCK)
    pump.stopped = {"payment"}
    pump.request([place_order(1)])
    pump.run(5)
    pump.request([CANCEL])
    pump.run(5)
    assert end_of(pump.state())[0] == "PENDING"
    pump.stopped = set()
    pump.run(600)
    assert check_winner(pump) in {"cancel", "payment"}
    assert on_topic(pump, OrderCancelRequested, CancelPayment) != []
    pump.close()


def test_the_tombstone_of_a_cancel_refuses_the_payment(tmp_path: Path) -> None:
    """In choreography the cancel may come to the Payment service before the goods are reserved."""
    pump = Pump(choreographed.MODE, tmp_path, STOCK)
    pump.stopped = {"inventory"}
    pump.request([place_order(1), CANCEL])
    pump.run(5)
    assert end_of(pump.state()) == ("PENDING", None, None, "REFUNDED")
    pump.stopped = set()
    pump.run(600)
    assert check_winner(pump) == "cancel"
    [told] = on_topic(pump, PaymentRefunded)
    assert Reason.CANCELLED.encode() in (told.value or b"")
    pump.close()


def test_the_modes_are_those_that_are_cancelled() -> None:
    """Both modes have a way from the customer's wish to the Payment service."""
    assert BOTH == (orchestrated.MODE, choreographed.MODE)
    for mode in BOTH:
        assert CancelPayment in {row.command for row in mode.service("payment").reactions}
