"""The deciders: total, repeatable, and never two effects for one order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain import inventory, payment
from common.domain.decision import Decision, Rules
from common.domain.inventory import Inventory, Reservation, ReservationStatus, Stock
from common.domain.order import Order, OrderStatus
from common.domain.payment import Payment, PaymentStatus
from common.messages import (
    Charge,
    CompleteOrder,
    FailOrder,
    InventoryRejected,
    InventoryReleased,
    InventoryReserved,
    Message,
    OrderCompleted,
    OrderCreated,
    OrderFailed,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    PlaceOrder,
    ProcessPayment,
    Reason,
    RefundPayment,
    ReleaseInventory,
    ReserveInventory,
)
from common.services import INVENTORY, ORDER, PAYMENT
from common.wiring import Domain

ID: Final = "order-1"
RULES: Final = Rules()
WHY: Final = Reason.PAYMENT_DECLINED

PLACE: Final = PlaceOrder(order_id=ID, customer_id="alice", item="laptop", quantity=2, price_cents=100_00)
COMPLETE: Final = CompleteOrder(order_id=ID)
FAIL: Final = FailOrder(order_id=ID, reason=WHY)
PENDING: Final = Order(ID, "alice", "laptop", 2, 100_00)
COMPLETED: Final = Order(ID, "alice", "laptop", 2, 100_00, OrderStatus.COMPLETED)
FAILED: Final = Order(ID, "alice", "laptop", 2, 100_00, OrderStatus.FAILED, WHY)

ORDERS: Final[dict[tuple[Order | None, Message], Decision[Order | None]]] = {
    (None, PLACE): Decision(
        PENDING,
        (OrderCreated(order_id=ID, customer_id="alice", item="laptop", quantity=2, price_cents=100_00),),
    ),
    (None, COMPLETE): Decision(None),
    (None, FAIL): Decision(None),
    (PENDING, PLACE): Decision(PENDING),
    (PENDING, COMPLETE): Decision(COMPLETED, (OrderCompleted(order_id=ID),)),
    (PENDING, FAIL): Decision(FAILED, (OrderFailed(order_id=ID, reason=WHY),)),
    (COMPLETED, PLACE): Decision(COMPLETED),
    (COMPLETED, COMPLETE): Decision(COMPLETED),
    (COMPLETED, FAIL): Decision(COMPLETED),
    (FAILED, PLACE): Decision(FAILED),
    (FAILED, COMPLETE): Decision(FAILED),
    (FAILED, FAIL): Decision(FAILED),
}

RESERVE: Final = ReserveInventory(order_id=ID, item="laptop", quantity=2)
RELEASE: Final = ReleaseInventory(order_id=ID, reason=WHY)
FULL: Final = Inventory(Stock("laptop", 5))
SHORT: Final = Inventory(Stock("laptop", 1))
UNKNOWN: Final = Inventory()
HELD: Final = Inventory(Stock("laptop", 3), Reservation(ID, ReservationStatus.RESERVED, "laptop", 2))
OUT: Final = Inventory(
    Stock("laptop", 1), Reservation(ID, ReservationStatus.REJECTED, "laptop", 2, Reason.OUT_OF_STOCK)
)
NO_ITEM: Final = Inventory(
    None, Reservation(ID, ReservationStatus.REJECTED, "laptop", 2, Reason.UNKNOWN_ITEM)
)
GIVEN_BACK: Final = Inventory(
    Stock("laptop", 5), Reservation(ID, ReservationStatus.RELEASED, "laptop", 2, WHY)
)
NEVER_HELD: Final = Inventory(None, Reservation(ID, ReservationStatus.RELEASED, reason=WHY))
"""A tombstone."""

RESERVED: Final = InventoryReserved(order_id=ID, item="laptop", quantity=2)
RELEASED: Final = InventoryReleased(order_id=ID, reason=WHY)

INVENTORIES: Final[dict[tuple[Inventory, Message], Decision[Inventory]]] = {
    (FULL, RESERVE): Decision(HELD, (RESERVED,)),
    (FULL, RELEASE): Decision(Inventory(FULL.stock, NEVER_HELD.reservation), (RELEASED,)),
    (SHORT, RESERVE): Decision(OUT, (InventoryRejected(order_id=ID, reason=Reason.OUT_OF_STOCK),)),
    (SHORT, RELEASE): Decision(Inventory(SHORT.stock, NEVER_HELD.reservation), (RELEASED,)),
    (UNKNOWN, RESERVE): Decision(NO_ITEM, (InventoryRejected(order_id=ID, reason=Reason.UNKNOWN_ITEM),)),
    (UNKNOWN, RELEASE): Decision(NEVER_HELD, (RELEASED,)),
    (HELD, RESERVE): Decision(HELD, (RESERVED,)),
    (HELD, RELEASE): Decision(GIVEN_BACK, (RELEASED,)),
    (OUT, RESERVE): Decision(OUT, (InventoryRejected(order_id=ID, reason=Reason.OUT_OF_STOCK),)),
    (OUT, RELEASE): Decision(OUT, (RELEASED,)),
    (NO_ITEM, RESERVE): Decision(NO_ITEM, (InventoryRejected(order_id=ID, reason=Reason.UNKNOWN_ITEM),)),
    (NO_ITEM, RELEASE): Decision(NO_ITEM, (RELEASED,)),
    (GIVEN_BACK, RESERVE): Decision(GIVEN_BACK, (InventoryRejected(order_id=ID, reason=WHY),)),
    (GIVEN_BACK, RELEASE): Decision(GIVEN_BACK, (RELEASED,)),
    (NEVER_HELD, RESERVE): Decision(NEVER_HELD, (InventoryRejected(order_id=ID, reason=WHY),)),
    (NEVER_HELD, RELEASE): Decision(NEVER_HELD, (RELEASED,)),
}

PAY: Final = ProcessPayment(order_id=ID, customer_id="alice", amount_cents=200_00)
PAY_TOO_MUCH: Final = ProcessPayment(order_id=ID, customer_id="alice", amount_cents=500_01)
REFUND: Final = RefundPayment(order_id=ID, reason=WHY)
CHARGED: Final = Payment(ID, PaymentStatus.CHARGED, "alice", 200_00)
DECLINED: Final = Payment(ID, PaymentStatus.DECLINED, "alice", 500_01, WHY)
PAID_BACK: Final = Payment(ID, PaymentStatus.REFUNDED, "alice", 200_00, WHY)
NEVER_CHARGED: Final = Payment(ID, PaymentStatus.REFUNDED, reason=WHY)
"""A tombstone."""

PROCESSED: Final = PaymentProcessed(order_id=ID, amount_cents=200_00)
REFUSED: Final = PaymentDeclined(order_id=ID, reason=WHY)
REFUNDED: Final = PaymentRefunded(order_id=ID, reason=WHY)

PAYMENTS: Final[dict[tuple[Payment | None, Message], Decision[Payment | None]]] = {
    (None, PAY): Decision(CHARGED, (PROCESSED,)),
    (None, PAY_TOO_MUCH): Decision(DECLINED, (REFUSED,)),
    (None, REFUND): Decision(NEVER_CHARGED, (REFUNDED,)),
    (CHARGED, PAY): Decision(CHARGED, (PROCESSED,)),
    (CHARGED, PAY_TOO_MUCH): Decision(CHARGED, (PROCESSED,)),
    (CHARGED, REFUND): Decision(PAID_BACK, (REFUNDED,)),
    (DECLINED, PAY): Decision(DECLINED, (REFUSED,)),
    (DECLINED, PAY_TOO_MUCH): Decision(DECLINED, (REFUSED,)),
    (DECLINED, REFUND): Decision(DECLINED, (REFUNDED,)),
    (PAID_BACK, PAY): Decision(PAID_BACK, (REFUSED,)),
    (PAID_BACK, PAY_TOO_MUCH): Decision(PAID_BACK, (REFUSED,)),
    (PAID_BACK, REFUND): Decision(PAID_BACK, (REFUNDED,)),
    (NEVER_CHARGED, PAY): Decision(NEVER_CHARGED, (REFUSED,)),
    (NEVER_CHARGED, PAY_TOO_MUCH): Decision(NEVER_CHARGED, (REFUSED,)),
    (NEVER_CHARGED, REFUND): Decision(NEVER_CHARGED, (REFUNDED,)),
}

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
    """Whatever a command leads to is declared in the service's ANSWERS."""
    answers = {type(message) for message in service.decide(state, command, RULES).messages}
    assert answers <= set(service.answers[type(command)])
    assert answers == {type(message) for message in expected.messages}


@pytest.mark.parametrize(
    ("service", "state", "command"), [row[:3] for row in DECISIONS if row[0] is not ORDER]
)
def test_a_repeated_command_gets_the_stored_answer(
    service: Domain[Any], state: object, command: Message
) -> None:
    """Asked twice, a service does it once and answers twice alike."""
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
    carrying = RESERVE.model_copy(update={"charge": charge})
    first = inventory.decide(FULL, carrying, RULES)
    again = inventory.decide(first.state, carrying, RULES)
    assert first.messages == again.messages == (RESERVED.model_copy(update={"charge": charge}),)


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
    st.builds(ReleaseInventory, order_id=ORDER_IDS, reason=st.sampled_from(Reason)),
)
PAYMENT_COMMANDS: Final = st.one_of(
    st.builds(
        ProcessPayment, order_id=ORDER_IDS, customer_id=st.just("alice"), amount_cents=st.integers(1, 1000_00)
    ),
    st.builds(RefundPayment, order_id=ORDER_IDS, reason=st.sampled_from(Reason)),
)


@given(st.lists(INVENTORY_COMMANDS, max_size=30))
def test_stock_is_conserved_and_never_negative(commands: list[ReserveInventory | ReleaseInventory]) -> None:
    """After any commands, what is free and what is held add up to what there was at first."""
    initial = {"laptop": 10, "phone": 7}
    stock = {item: Stock(item, available) for item, available in initial.items()}
    reservations: dict[str, Reservation] = {}
    for command in commands:
        mine = reservations.get(command.order_id)
        asked = command.item if isinstance(command, ReserveInventory) else None
        item = mine.item if mine else asked
        after = inventory.decide(Inventory(stock.get(item or ""), mine), command, RULES).state
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


@given(st.lists(PAYMENT_COMMANDS, max_size=30))
def test_no_order_is_charged_twice(commands: list[ProcessPayment | RefundPayment]) -> None:
    """After any commands, each order was charged once or never, and never again after a refund."""
    payments: dict[str, Payment | None] = {}
    charges: dict[str, int] = {}
    for command in commands:
        before = payments.get(command.order_id)
        after = payments[command.order_id] = payment.decide(before, command, RULES).state
        if after != before and after is not None and after.status is PaymentStatus.CHARGED:
            charges[command.order_id] = charges.get(command.order_id, 0) + 1
    assert all(count == 1 for count in charges.values())
