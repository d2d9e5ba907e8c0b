"""The Payment service: it charges customers and gives money back."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, assert_never

from msgspec import Struct
from msgspec.structs import replace

from common.domain.decision import Decision, Rules
from common.messages import (
    CancelPayment,
    Message,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    PaymentRefundFailed,
    ProcessPayment,
    Reason,
    RefundPayment,
    RefusePayment,
    ReportRefundFailure,
)

ANSWERS: Final[dict[type[Message], tuple[type[Message], ...]]] = {
    ProcessPayment: (PaymentProcessed, PaymentDeclined),
    RefundPayment: (PaymentRefunded,),
    CancelPayment: (PaymentRefunded, PaymentProcessed, PaymentDeclined),
    RefusePayment: (PaymentDeclined, PaymentProcessed),
    ReportRefundFailure: (PaymentRefundFailed,),
}
GIVES_UP_WITH: Final[dict[type[Message], type[RefusePayment | ReportRefundFailure]]] = {
    ProcessPayment: RefusePayment,
    RefundPayment: ReportRefundFailure,
}
"""What becomes of a command that can't be processed; a cancel is only a wish, and may get lost."""


class PaymentStatus(StrEnum):
    """What became of an order's payment."""

    CHARGED = "CHARGED"
    DECLINED = "DECLINED"
    REFUNDED = "REFUNDED"


class Payment(Struct, frozen=True, array_like=True):
    """An order's payment; a refund that came first leaves one without customer and amount (a tombstone)."""

    order_id: str
    status: PaymentStatus
    customer_id: str | None = None
    amount_cents: int = 0
    reason: Reason | None = None


Asked = ProcessPayment | RefundPayment | CancelPayment | RefusePayment | ReportRefundFailure
"""Every command of this service."""


def decide(payment: Payment | None, command: Asked, rules: Rules) -> Decision[Payment | None]:
    """Charge or refund; a repeated command gets the stored answer again."""
    match command:
        case ProcessPayment():
            return _process(payment, command, rules.payment_limit_cents)
        case RefundPayment():
            return _refund(payment, command)
        case CancelPayment():
            return _cancel(payment, command)
        case RefusePayment():
            return _refuse(payment, command)
        case ReportRefundFailure():
            return _report_failure(payment, command)
        case _:
            assert_never(command)


def _process(payment: Payment | None, command: ProcessPayment, limit_cents: int) -> Decision[Payment | None]:
    if payment is None:
        declined = command.amount_cents > limit_cents
        payment = Payment(
            command.order_id,
            PaymentStatus.DECLINED if declined else PaymentStatus.CHARGED,
            command.customer_id,
            command.amount_cents,
            Reason.PAYMENT_DECLINED if declined else None,
        )
    return Decision(payment, (_outcome(payment),))


def _outcome(payment: Payment) -> PaymentProcessed | PaymentDeclined:
    """What a request to charge is told; after a refund, that there is no charge."""
    if payment.status is PaymentStatus.CHARGED:
        return PaymentProcessed(order_id=payment.order_id, amount_cents=payment.amount_cents)
    return PaymentDeclined(order_id=payment.order_id, reason=payment.reason or Reason.PAYMENT_DECLINED)


def _refund(payment: Payment | None, command: RefundPayment | CancelPayment) -> Decision[Payment | None]:
    if payment is None:
        payment = Payment(command.order_id, PaymentStatus.REFUNDED, reason=command.reason)
    elif payment.status is PaymentStatus.CHARGED:
        payment = replace(payment, status=PaymentStatus.REFUNDED, reason=command.reason)
    return Decision(payment, (_refunded(payment, command.reason),))


def _refunded(payment: Payment, reason: Reason) -> PaymentRefunded:
    """What was given back, now or before; a payment that was declined never took anything."""
    given_back = payment.amount_cents if payment.status is PaymentStatus.REFUNDED else 0
    return PaymentRefunded(
        order_id=payment.order_id, reason=payment.reason or reason, amount_cents=given_back
    )


def _cancel(payment: Payment | None, command: CancelPayment) -> Decision[Payment | None]:
    """Refuse a charge that is still to come; what is charged or declined already stands."""
    if payment is None or payment.status is PaymentStatus.REFUNDED:
        return _refund(payment, command)
    return Decision(payment, (_outcome(payment),))


def _refuse(payment: Payment | None, command: RefusePayment) -> Decision[Payment | None]:
    """Leave a tombstone, so that the command which could not be processed is refused should it come again.

    If it was asked before, its outcome is told again.
    """
    if payment is None:
        payment = Payment(command.order_id, PaymentStatus.DECLINED, reason=command.reason)
    return Decision(payment, (_outcome(payment),))


def _report_failure(payment: Payment | None, command: ReportRefundFailure) -> Decision[Payment | None]:
    if payment is not None and payment.status is PaymentStatus.REFUNDED:
        return Decision(payment, late=True)
    return Decision(payment, (PaymentRefundFailed(order_id=command.order_id, reason=command.reason),))
