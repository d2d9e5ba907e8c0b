"""The services as frameworks meet them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.domain.decision import Rules
from common.domain.order import OrderStatus
from common.messages import (
    CompleteOrder,
    FailOrder,
    InventoryRejected,
    InventoryReserved,
    OrderCompleted,
    PaymentDeclined,
    PlaceOrder,
    ProcessPayment,
    Reason,
    ReserveInventory,
)
from compare.peers.participants import Participants, end, refusal

ORDER = PlaceOrder(order_id="order-1", customer_id="ann", item="laptop", quantity=2, price_cents=10_00)
RESERVE = ReserveInventory(order_id="order-1", item="laptop", quantity=2)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Participants]:
    """Three services with three laptops."""
    opened = Participants(
        tmp_path, stock={"laptop": 3}, rules=Rules(), synchronous="OFF", server=None, run="test"
    )
    yield opened
    opened.close()


async def test_a_command_that_comes_again_has_no_further_effect(services: Participants) -> None:
    """A repeated step is answered as before, and takes nothing more."""
    first = await services.inventory.carry_out(RESERVE)
    again = await services.inventory.carry_out(RESERVE)
    assert first == again == InventoryReserved(order_id="order-1", item="laptop", quantity=2)
    other = await services.inventory.carry_out(
        ReserveInventory(order_id="order-2", item="laptop", quantity=1)
    )
    assert isinstance(other, InventoryReserved)


async def test_an_end_is_told_once(services: Participants) -> None:
    """The Order service tells an order's end when it comes, and not when it is asked for again."""
    await services.order.carry_out(ORDER)
    complete = CompleteOrder(order_id="order-1")
    assert await services.order.carry_out(complete) == OrderCompleted(order_id="order-1")
    assert await services.order.carry_out(complete) is None
    assert await services.order.carry_out(FailOrder(order_id="order-1", reason=Reason.TIMED_OUT)) is None


async def test_each_command_is_a_transaction(services: Participants) -> None:
    """Commits are counted for each service."""
    before = services.payment.tally.total
    charge = ProcessPayment(order_id="order-1", customer_id="ann", amount_cents=1)
    await services.payment.carry_out(charge)
    await services.payment.carry_out(charge)
    assert services.payment.tally.total - before == 2


async def test_a_transaction_that_fails_changes_nothing(services: Participants) -> None:
    """If the caller's transaction is rolled back, so is the decision."""
    connection = services.inventory.database.engine.connect()
    with connection, connection.begin() as transaction:
        services.inventory.decide(connection, RESERVE)
        transaction.rollback()
    everything = ReserveInventory(order_id="order-2", item="laptop", quantity=3)
    assert isinstance(await services.inventory.carry_out(everything), InventoryReserved)


def test_what_earlier_services_left_is_found(tmp_path: Path) -> None:
    """Stock is filled up once, so that a process that starts again finds what was left."""
    for expected in (InventoryReserved, InventoryRejected):
        services = Participants(
            tmp_path, stock={"laptop": 1}, rules=Rules(), synchronous="OFF", server=None, run="test"
        )
        with services.inventory.database.write() as transaction:
            command = ReserveInventory(order_id=expected.__name__, item="laptop", quantity=1)
            assert isinstance(services.inventory.decide(transaction, command), expected)
        services.close()


def test_answers_are_told_apart() -> None:
    """A refusal has its reason, an end its status, and other answers neither."""
    assert refusal(PaymentDeclined(order_id="1", reason=Reason.PAYMENT_DECLINED)) is Reason.PAYMENT_DECLINED
    assert refusal(InventoryReserved(order_id="1", item="laptop", quantity=1)) is None
    assert end(OrderCompleted(order_id="1")) is OrderStatus.COMPLETED
    assert end(None) is None
