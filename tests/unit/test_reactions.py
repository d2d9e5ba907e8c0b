"""Every reaction of every service in both modes: this message in, that command out."""

from __future__ import annotations

from typing import Final

import pytest
from msgspec.structs import replace

import choreographed
import orchestrated
from choreographed.payment import process_payment
from common.errors import UnreadableRecordError
from common.messages import (
    CancelPayment,
    CancelSaga,
    Charge,
    CompleteOrder,
    FailCompensation,
    FailOrder,
    InventoryRejected,
    InventoryReleased,
    InventoryReleaseFailed,
    InventoryReserved,
    Message,
    OrderAborted,
    OrderCancelRequested,
    OrderCreated,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    PaymentRefundFailed,
    ProcessPayment,
    Reason,
    RefundPayment,
    ReleaseInventory,
    ReserveInventory,
    RetryCompensation,
    SagaCompensationFailed,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
)
from common.wiring import Mode

ID: Final = "order-1"
DECLINED: Final = Reason.PAYMENT_DECLINED
CHARGE: Final = Charge(customer_id="alice", amount_cents=200_00)
CREATED: Final = OrderCreated(order_id=ID, customer_id="alice", item="laptop", quantity=2, price_cents=100_00)
STARTED: Final = SagaStarted(order_id=ID, customer_id="alice", item="laptop", quantity=2, price_cents=100_00)
RESERVED: Final = InventoryReserved(order_id=ID, item="laptop", quantity=2)
REJECTED: Final = InventoryRejected(order_id=ID, reason=Reason.OUT_OF_STOCK)
RELEASED: Final = InventoryReleased(order_id=ID, reason=DECLINED, item="laptop", quantity=2)
NOT_RELEASED: Final = InventoryReleaseFailed(order_id=ID, reason=DECLINED)
PAID: Final = PaymentProcessed(order_id=ID, amount_cents=200_00)
NOT_PAID: Final = PaymentDeclined(order_id=ID, reason=DECLINED)
REFUNDED: Final = PaymentRefunded(order_id=ID, reason=DECLINED, amount_cents=200_00)
NOT_REFUNDED: Final = PaymentRefundFailed(order_id=ID, reason=DECLINED)
ABORTED: Final = OrderAborted(order_id=ID, reason=DECLINED)
CANCEL_REQUESTED: Final = OrderCancelRequested(order_id=ID)
CANCEL_SAGA: Final = CancelSaga(order_id=ID)
CANCEL_PAYMENT: Final = CancelPayment(order_id=ID, reason=Reason.CANCELLED)
RETRY: Final = RetryCompensation(order_id=ID)
RESERVE: Final = ReserveInventory(order_id=ID, item="laptop", quantity=2)
RELEASE: Final = ReleaseInventory(order_id=ID, reason=DECLINED)
PAY: Final = ProcessPayment(order_id=ID, customer_id="alice", amount_cents=200_00)
REFUND: Final = RefundPayment(order_id=ID, reason=DECLINED)
FAILED: Final = FailOrder(order_id=ID, reason=DECLINED)
COMPLETED: Final = CompleteOrder(order_id=ID)
STUCK: Final = FailCompensation(order_id=ID, reason=DECLINED)

CHOREOGRAPHED: Final[list[tuple[str, Message, Message]]] = [
    ("order", PAID, COMPLETED),
    ("order", REJECTED, FailOrder(order_id=ID, reason=Reason.OUT_OF_STOCK)),
    ("order", RELEASED, FAILED),
    ("order", NOT_RELEASED, STUCK),
    ("order", NOT_REFUNDED, STUCK),
    ("inventory", CREATED, replace(RESERVE, charge=CHARGE)),
    ("inventory", NOT_PAID, RELEASE),
    ("inventory", REFUNDED, RELEASE),
    ("payment", replace(RESERVED, charge=CHARGE), PAY),
    ("payment", CANCEL_REQUESTED, CANCEL_PAYMENT),
    ("payment", ABORTED, REFUND),
]
ORCHESTRATED: Final[list[tuple[str, Message, Message]]] = [
    ("order", SagaCompleted(order_id=ID), COMPLETED),
    ("order", SagaFailed(order_id=ID, reason=DECLINED), FAILED),
    ("order", SagaCompensationFailed(order_id=ID, reason=DECLINED), STUCK),
    ("inventory", RESERVE, RESERVE),
    ("inventory", RELEASE, RELEASE),
    ("payment", PAY, PAY),
    ("payment", REFUND, REFUND),
    ("payment", CANCEL_PAYMENT, CANCEL_PAYMENT),
    *(("orchestrator", heard, heard) for heard in (STARTED, CANCEL_SAGA, RETRY)),
    *(("orchestrator", heard, heard) for heard in (RESERVED, REJECTED, RELEASED, NOT_RELEASED)),
    *(("orchestrator", heard, heard) for heard in (PAID, NOT_PAID, REFUNDED, NOT_REFUNDED)),
]


def check(mode: Mode, service: str, heard: Message, command: Message) -> None:
    """The service hands exactly this command, of the type that it declares, to its domain."""
    reaction = mode.service(service).reaction_to[type(heard).__name__]
    assert reaction.translate(heard) == command
    assert type(command) is reaction.command


@pytest.mark.parametrize(("service", "heard", "command"), CHOREOGRAPHED)
def test_a_choreographed_service_makes_a_local_command_of_an_event(
    service: str, heard: Message, command: Message
) -> None:
    """Each service decides by itself what another's fact means to it."""
    check(choreographed.MODE, service, heard, command)


@pytest.mark.parametrize(("service", "heard", "command"), ORCHESTRATED)
def test_an_orchestrated_service_does_as_it_is_told(service: str, heard: Message, command: Message) -> None:
    """Inventory and Payment take commands as they are; the order hears of the end alone."""
    check(orchestrated.MODE, service, heard, command)


@pytest.mark.parametrize(
    ("mode", "table"), [(choreographed.MODE, CHOREOGRAPHED), (orchestrated.MODE, ORCHESTRATED)]
)
def test_the_tables_above_leave_no_reaction_out(
    mode: Mode, table: list[tuple[str, Message, Message]]
) -> None:
    """Every reaction of every service has its line above."""
    declared = {(service.name, row.message) for service in mode.services for row in service.reactions}
    assert {(service, type(heard)) for service, heard, _ in table} == declared


def test_goods_without_a_charge_are_refused_in_choreography() -> None:
    """An event that doesn't say what to charge can't be acted upon, and the error names the order."""
    with pytest.raises(UnreadableRecordError, match=f"{ID} does not say what to charge"):
        process_payment(RESERVED)


@pytest.mark.parametrize(
    ("emitted", "told"),
    [(CREATED, STARTED), (CANCEL_REQUESTED, CANCEL_SAGA), (ABORTED, RETRY)],
    ids=lambda message: type(message).__name__,
)
def test_the_orchestrated_order_tells_a_command_in_place_of_the_event(
    emitted: Message, told: Message
) -> None:
    """What its domain tells the world leaves the service as a command to the orchestrator alone."""
    substitutions = orchestrated.MODE.service("order").told_instead
    assert substitutions[type(emitted)].translate(emitted) == told
    assert substitutions.keys() == {OrderCreated, OrderCancelRequested, OrderAborted}


def test_no_other_service_tells_anything_else_than_its_domain_does() -> None:
    """Only the orchestrated Order service puts anything in place of its domain's events."""
    others = [*choreographed.MODE.services, *orchestrated.MODE.services[1:]]
    assert [service.substitutions for service in others] == [()] * len(others)
