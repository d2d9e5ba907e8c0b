"""The deciders: total, repeatable, and never two effects for one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from common.domain import inventory, payment
from common.domain.decision import Decision, Rules
from common.domain.inventory import Inventory, Reservation, ReservationStatus, Stock
from common.domain.order import OrderStatus
from common.domain.payment import Payment, PaymentStatus
from common.messages import (
    CancelPayment,
    Charge,
    InventoryRejected,
    InventoryReleased,
    InventoryReserved,
    Message,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    ProcessPayment,
    Reason,
    RefundPayment,
    RefusePayment,
    RefuseReservation,
    ReleaseInventory,
    ReportRefundFailure,
    ReportReleaseFailure,
    ReserveInventory,
)
from common.services import INVENTORY, ORDER, PAYMENT
from common.wiring import Domain
from tests.unit.decisions import (
    FULL,
    HELD,
    ID,
    INVENTORIES,
    ORDERS,
    PAY,
    PAYMENTS,
    RESERVE,
    RESERVED,
)

RULES: Final = Rules()
CANCEL_PAYMENT: Final = CancelPayment(order_id=ID, reason=Reason.CANCELLED)

DECISIONS: Final[list[tuple[Any, Any, Any, Any]]] = [
    (service, state, command, decision)
    for service, table in ((ORDER, ORDERS), (INVENTORY, INVENTORIES), (PAYMENT, PAYMENTS))
    for (state, command), decision in table.items()
]


@pytest.mark.parametrize(("service", "state", "command", "expected"), DECISIONS)
def test_every_command_is_answered_in_every_state(
    service: Domain[Any], state: object, command: Message, expected: Decision[Any]
) -> None:
    """A decider answers each command in each state exactly as the table says."""
    assert service.decide(state, command, RULES) == expected


@pytest.mark.parametrize(
    ("service", "table", "statuses"),
    [
        (ORDER, ORDERS, set(OrderStatus)),
        (INVENTORY, INVENTORIES, set(ReservationStatus)),
        (PAYMENT, PAYMENTS, set(PaymentStatus)),
    ],
)
def test_the_tables_above_leave_nothing_out(
    service: Domain[Any], table: Mapping[tuple[Any, Message], Any], statuses: set[str]
) -> None:
    """Each table crosses every status, and no row at all, with every command that the service knows."""
    states = {state for state, _ in table}
    commands = {command for _, command in table}
    assert len(table) == len(states) * len(commands)
    assert {state.status if state else None for state in states} == {None, *statuses}
    assert {type(command) for command in commands} == service.answers.keys()


@pytest.mark.parametrize(("service", "state", "command", "expected"), DECISIONS)
def test_only_declared_answers_are_given(
    service: Domain[Any], state: object, command: Message, expected: Decision[Any]
) -> None:
    """Whatever a command leads to is declared in ANSWERS, and what is late leads to nothing."""
    answers = {type(message) for message in service.decide(state, command, RULES).messages}
    assert answers <= set(service.answers[type(command)])
    assert answers == {type(message) for message in expected.messages}
    assert not (expected.late and (answers or expected.state != state))


@pytest.mark.parametrize(
    ("service", "state", "command"), [row[:3] for row in DECISIONS if row[0] is not ORDER]
)
def test_a_repeated_command_gets_the_stored_answer(
    service: Domain[Any], state: object, command: Message
) -> None:
    """Asked twice, or refused twice, a service does it once and answers twice alike."""
    once = service.decide(state, command, RULES)
    assert service.decide(once.state, command, RULES) == once


def test_a_repeated_reservation_answers_what_is_held_and_not_what_is_asked() -> None:
    """The stored answer counts, though the repeated command should have another content."""
    other = ReserveInventory(order_id=ID, item="phone", quantity=4)
    assert inventory.decide(HELD, other, RULES) == Decision(HELD, (RESERVED,))


def test_the_last_pieces_can_be_had() -> None:
    """An order may take all that is left."""
    emptied = inventory.decide(Inventory(Stock("laptop", 2)), RESERVE, RULES)
    assert emptied == Decision(Inventory(Stock("laptop", 0), HELD.reservation), (RESERVED,))


def test_a_reservation_passes_the_charge_on() -> None:
    """What Payment must know goes from the command into the event, the first and every other time."""
    charge = Charge(customer_id="alice", amount_cents=200_00)
    carrying = replace(RESERVE, charge=charge)
    first = inventory.decide(FULL, carrying, RULES)
    again = inventory.decide(first.state, carrying, RULES)
    assert first.messages == again.messages == (replace(RESERVED, charge=charge),)


@pytest.mark.parametrize(
    ("amount_cents", "status"), [(500_00, PaymentStatus.CHARGED), (500_01, PaymentStatus.DECLINED)]
)
def test_the_limit_itself_can_be_paid(amount_cents: int, status: PaymentStatus) -> None:
    """Payment declines what is above the limit, and takes what is exactly the limit."""
    command = ProcessPayment(order_id=ID, customer_id="alice", amount_cents=amount_cents)
    charged = payment.decide(None, command, RULES).state
    assert charged is not None
    assert charged.status is status


def test_the_limit_is_a_rule_that_can_be_set() -> None:
    """Another limit makes another decision."""
    declined = payment.decide(None, PAY, Rules(payment_limit_cents=199_99)).state
    assert declined is not None
    assert declined.status is PaymentStatus.DECLINED


ORDER_IDS: Final = st.sampled_from(["order-1", "order-2", "order-3"])
INVENTORY_COMMANDS: Final = st.one_of(
    st.builds(
        ReserveInventory,
        order_id=ORDER_IDS,
        item=st.sampled_from(["laptop", "phone", "unicorn"]),
        quantity=st.integers(1, 6),
    ),
    *(
        st.builds(command, order_id=ORDER_IDS, reason=st.sampled_from(Reason))
        for command in (ReleaseInventory, RefuseReservation, ReportReleaseFailure)
    ),
)
PAYMENT_COMMANDS: Final = st.one_of(
    st.builds(
        ProcessPayment, order_id=ORDER_IDS, customer_id=st.just("alice"), amount_cents=st.integers(1, 1000_00)
    ),
    *(
        st.builds(command, order_id=ORDER_IDS, reason=st.sampled_from(Reason))
        for command in (RefundPayment, CancelPayment, RefusePayment, ReportRefundFailure)
    ),
)


@given(st.lists(INVENTORY_COMMANDS, max_size=30))
def test_stock_is_conserved_and_never_negative(commands: list[Any]) -> None:
    """After any commands, what is free and what is held add up to what there was at first."""
    initial = {"laptop": 10, "phone": 7}
    stock = {item: Stock(item, available) for item, available in initial.items()}
    reservations: dict[str, Reservation] = {}
    gone: set[str] = set()
    for command in commands:
        mine = reservations.get(command.order_id)
        asked = command.item if isinstance(command, ReserveInventory) else None
        item = mine.item if mine else asked
        decision = inventory.decide(Inventory(stock.get(item or ""), mine), command, RULES)
        after = decision.state
        if after.stock is not None:
            stock[after.stock.item] = after.stock
        if after.reservation is not None:
            reservations[command.order_id] = after.reservation

        held = dict.fromkeys(initial, 0)
        for claim in reservations.values():
            if claim.status is ReservationStatus.RESERVED and claim.item is not None:
                held[claim.item] += claim.quantity
        assert {item: shelf.available + held[item] for item, shelf in stock.items()} == initial
        assert all(shelf.available >= 0 for shelf in stock.values())

        # What was said to be refused or released is never said to be held again.
        told = {type(message) for message in decision.messages}
        assert not (InventoryReserved in told and command.order_id in gone)
        gone |= {command.order_id} if told & {InventoryRejected, InventoryReleased} else set()


@given(st.lists(PAYMENT_COMMANDS, max_size=30))
def test_no_order_is_charged_twice(commands: list[Any]) -> None:
    """After any commands, each order was charged once or never, and never after it was said not to be."""
    payments: dict[str, Payment | None] = {}
    charges: Counter[str] = Counter()
    gone: set[str] = set()
    for command in commands:
        before = payments.get(command.order_id)
        decision = payment.decide(before, command, RULES)
        after = payments[command.order_id] = decision.state
        if after != before and after is not None and after.status is PaymentStatus.CHARGED:
            charges[command.order_id] += 1
        told = {type(message) for message in decision.messages}
        assert not (PaymentProcessed in told and command.order_id in gone)
        gone |= {command.order_id} if told & {PaymentDeclined, PaymentRefunded} else set()
    assert all(count == 1 for count in charges.values())


@given(st.lists(PAYMENT_COMMANDS, max_size=10))
def test_a_captured_payment_outlives_a_cancel(commands: list[Any]) -> None:
    """Of a cancel and a payment, the first wins: a cancel neither undoes a charge nor permits a later one."""
    state: Payment | None = None
    for command in commands:
        alike = replace(command, order_id=ID)
        cancelled = payment.decide(state, CANCEL_PAYMENT, RULES)
        if state is not None:
            assert cancelled.state == state
        else:
            paid = payment.decide(cancelled.state, PAY, RULES)
            assert (paid.state, type(paid.messages[0])) == (cancelled.state, PaymentDeclined)
        state = payment.decide(state, alike, RULES).state
