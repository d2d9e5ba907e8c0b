"""Each check of the process table finds what is planted in it, and says what it has found."""

from __future__ import annotations

from typing import Final

import pytest

from common.errors import WiringError
from common.messages import (
    InventoryRejected,
    InventoryReleased,
    InventoryReleaseFailed,
    InventoryReserved,
    Message,
    PaymentDeclined,
    PaymentProcessed,
    PlaceOrder,
    ProcessPayment,
    Reason,
    RefundPayment,
    ReleaseInventory,
    ReserveInventory,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
)
from common.process_table import ProcessTable, Row, late, row


def reserve(saga: str) -> ReserveInventory:
    """Send the first step."""
    return ReserveInventory(order_id=saga, item="laptop", quantity=1)


def pay(saga: str) -> ProcessPayment:
    """Send the second step."""
    return ProcessPayment(order_id=saga, customer_id="alice", amount_cents=1)


def release(saga: str) -> ReleaseInventory:
    """Send the undo of the first step."""
    return ReleaseInventory(order_id=saga, reason=Reason.PAYMENT_DECLINED)


def place(saga: str) -> PlaceOrder:
    """Send what no participant of the saga knows."""
    return PlaceOrder(order_id=saga, customer_id="alice", item="laptop", quantity=1, price_cents=1)


def refund(saga: str) -> RefundPayment:
    """Send the undo of the second step."""
    return RefundPayment(order_id=saga, reason=Reason.PAYMENT_DECLINED)


def end(saga: str) -> SagaCompleted | SagaFailed:
    """Tell the end, whichever it is."""
    return SagaCompleted(order_id=saga)


START: Final = row("NEW", SagaStarted, "RESERVING", reserve)
RESERVED: Final = row("RESERVING", InventoryReserved, "PAYING", pay)
REJECTED: Final = row("RESERVING", InventoryRejected, "BAD", end)
PAID: Final = row("PAYING", PaymentProcessed, "GOOD", end)
DECLINED: Final = row("PAYING", PaymentDeclined, "UNDOING", release)
RELEASED: Final = row("UNDOING", InventoryReleased, "BAD", end)
LATE: Final = (
    *late("PAYING", InventoryReserved, InventoryRejected),
    *late("UNDOING", InventoryReserved, InventoryRejected, PaymentProcessed, PaymentDeclined),
    *late("GOOD", InventoryReserved, InventoryRejected, PaymentProcessed, PaymentDeclined),
    *late("BAD", InventoryReserved, InventoryRejected, PaymentProcessed, PaymentDeclined),
    *late("BAD", InventoryReleased, InventoryReleaseFailed),
)
"""What may come once more, or after something else has been quicker."""
NOT_RELEASED: Final = row("UNDOING", InventoryReleaseFailed, "UNDOING", release)
SOUND: Final = (START, RESERVED, REJECTED, PAID, DECLINED, RELEASED, NOT_RELEASED, *LATE)


def table(*rows: Row, ends: frozenset[str] = frozenset({"GOOD", "BAD"})) -> ProcessTable:
    """A process that begins at NEW."""
    return ProcessTable(start="NEW", ends=ends, rows=rows)


def without(unwanted: Row, *added: Row) -> tuple[Row, ...]:
    """The sound table with one row taken out, and others put in."""
    return (*(one for one in SOUND if one is not unwanted), *added)


def late_at(at: str, on: type[Message]) -> Row:
    """One of the sound table's rows for what comes late."""
    return next(one for one in LATE if (one.at, one.on) == (at, on))


def test_a_sound_table_finds_its_rows() -> None:
    """Given a sound table, each row is found by its state and message, and nothing else is."""
    sound = table(*SOUND)
    assert [sound.find(one.at, one.on) for one in SOUND] == list(SOUND)
    assert sound.find("NEW", InventoryReserved) is None


def test_a_table_says_what_each_message_may_lead_to() -> None:
    """The messages that may be sent because of another are merged over all of its rows, each named once."""
    again = row("UNDOING", InventoryRejected, "BAD", end)
    sends = table(*without(late_at("UNDOING", InventoryRejected), again)).sends
    assert sends[SagaStarted] == (ReserveInventory,)
    assert sends[InventoryRejected] == (SagaCompleted, SagaFailed)
    assert sends[PaymentDeclined] == (ReleaseInventory,)
    assert sends[InventoryReleased] == (SagaCompleted, SagaFailed)


def test_a_late_row_changes_and_sends_nothing() -> None:
    """What comes late has a row of its own, which says so; a row that moves or sends is none."""
    one = late_at("GOOD", PaymentProcessed)
    assert (one.to, one.send, one.sends, one.stays) == ("GOOD", None, (), True)
    assert not PAID.stays
    assert not NOT_RELEASED.stays


def test_late_rows_are_made_for_all_that_may_come() -> None:
    """Each message gets a row of its own that stays where it is and sends nothing."""
    assert late("GOOD", PaymentProcessed, PaymentDeclined) == (
        Row("GOOD", PaymentProcessed, "GOOD", None, ()),
        Row("GOOD", PaymentDeclined, "GOOD", None, ()),
    )


def test_an_end_may_be_told_again() -> None:
    """A row may stay at an end and tell it once more, which is no way out of it."""
    again = row("GOOD", SagaStarted, "GOOD", end)
    assert table(*SOUND, again).find("GOOD", SagaStarted) is again


FAULTS: Final[dict[str, tuple[tuple[Row, ...], str]]] = {
    "duplicate row": (
        (*SOUND, row("PAYING", PaymentProcessed, "GOOD", end)),
        "2 rows at PAYING on PaymentProcessed",
    ),
    "dead end": (
        without(PAID, row("PAYING", PaymentProcessed, "LIMBO", end)),
        r"LIMBO is a dead end: none of \['BAD', 'GOOD'\] can be reached from it",
    ),
    "endless loop": (
        without(RELEASED, row("UNDOING", InventoryReleased, "UNDOING", release)),
        "UNDOING is a dead end",
    ),
    "unreachable state": (
        (*SOUND, row("ISLAND", PaymentProcessed, "GOOD", end)),
        "ISLAND can't be reached from NEW",
    ),
    "unreachable end": (
        without(PAID, row("PAYING", PaymentProcessed, "BAD", end)),
        "GOOD can't be reached from NEW",
    ),
    "end that is left": (
        without(late_at("BAD", PaymentDeclined), row("BAD", PaymentDeclined, "GOOD", end)),
        "BAD is an end, but its row on PaymentDeclined goes on",
    ),
    "end that commands": (
        without(late_at("BAD", PaymentDeclined), row("BAD", PaymentDeclined, "BAD", release)),
        "BAD is an end, but its row on PaymentDeclined goes on",
    ),
    "answer without a row": (
        without(DECLINED),
        "no row at PAYING on PaymentDeclined, an answer to ProcessPayment",
    ),
    "late answer without a row": (
        without(late_at("UNDOING", PaymentProcessed)),
        "no row at UNDOING on PaymentProcessed, an answer to ProcessPayment",
    ),
    "late answer without a row at an end": (
        without(late_at("GOOD", InventoryReserved)),
        "no row at GOOD on InventoryReserved, an answer to ReserveInventory",
    ),
    "failing undo without a row": (
        without(NOT_RELEASED),
        "no row at UNDOING on InventoryReleaseFailed, an answer to ReleaseInventory",
    ),
    "failing refund without a row": (
        without(DECLINED, row("PAYING", PaymentDeclined, "UNDOING", refund)),
        "no row at UNDOING on PaymentRefundFailed, an answer to RefundPayment",
    ),
    "unknown command": (
        without(DECLINED, row("PAYING", PaymentDeclined, "UNDOING", place)),
        "nobody answers the PlaceOrder that is sent at PAYING",
    ),
    "missing undo": (
        (
            *(one for one in SOUND if one is not DECLINED and one.at != "UNDOING"),
            row("PAYING", PaymentDeclined, "BAD", end),
        ),
        "nothing undoes ReserveInventory: no row sends ReleaseInventory",
    ),
}


@pytest.mark.parametrize(("rows", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_found_and_named(rows: tuple[Row, ...], fault: str) -> None:
    """A table with a fault can't be made, and the error names state and message."""
    with pytest.raises(WiringError, match=fault):
        table(*rows)


def test_every_fault_is_named_at_once() -> None:
    """Several faults are told in one error, so that they can be mended in one go."""
    with pytest.raises(WiringError) as refused:
        table(*without(DECLINED, row("ISLAND", PaymentProcessed, "GOOD", end)))
    assert "ISLAND can't be reached" in str(refused.value)
    assert "no row at PAYING on PaymentDeclined" in str(refused.value)


def test_the_pivot_needs_no_undo() -> None:
    """From the point of no return on a saga only goes forward, so the sound table does without a refund."""
    sent = {message for one in table(*SOUND).rows for message in one.sends}
    assert ProcessPayment in sent
    assert RefundPayment not in sent


def test_a_row_needs_to_know_what_it_sends() -> None:
    """A row whose function has no return annotation is refused by the function's name."""

    def send_something(saga: str):  # type: ignore[no-untyped-def] # noqa: ANN202 - the fault that is planted
        return reserve(saga)

    with pytest.raises(WiringError, match="send_something must be annotated with the message"):
        row("NEW", SagaStarted, "RESERVING", send_something)
