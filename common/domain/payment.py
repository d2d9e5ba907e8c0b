"""The Payment service: it charges customers and gives money back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, assert_never

from common.domain.decision import Decision, Rules
from common.messages import (
    Message,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    ProcessPayment,
    Reason,
    RefundPayment,
)

ANSWERS: Final[dict[type[Message], tuple[type[Message], ...]]] = {
    ProcessPayment: (PaymentProcessed, PaymentDeclined),
    RefundPayment: (PaymentRefunded,),
}


class PaymentStatus(StrEnum):
    """What became of an order's payment."""

    CHARGED = "CHARGED"
    DECLINED = "DECLINED"
    REFUNDED = "REFUNDED"


@dataclass(frozen=True, slots=True)
class Payment:
    """An order's payment; a refund that came first leaves one without customer and amount (a tombstone)."""

    order_id: str
    status: PaymentStatus
    customer_id: str | None = None
    amount_cents: int = 0
    reason: Reason | None = None


def decide(
    payment: Payment | None, command: ProcessPayment | RefundPayment, rules: Rules
) -> Decision[Payment | None]:
    """Charge or refund; a repeated command gets the stored answer again."""
    match command:
        case ProcessPayment():
            return _process(payment, command, rules.payment_limit_cents)
        case RefundPayment():
            return _refund(payment, command)
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
    if payment.status is PaymentStatus.CHARGED:
        return Decision(
            payment, (PaymentProcessed(order_id=payment.order_id, amount_cents=payment.amount_cents),)
        )
    reason = payment.reason or Reason.PAYMENT_DECLINED
    return Decision(payment, (PaymentDeclined(order_id=payment.order_id, reason=reason),))


def _refund(payment: Payment | None, command: RefundPayment) -> Decision[Payment | None]:
    if payment is None:
        payment = Payment(command.order_id, PaymentStatus.REFUNDED, reason=command.reason)
    elif payment.status is PaymentStatus.CHARGED:
        payment = replace(payment, status=PaymentStatus.REFUNDED, reason=command.reason)
    return Decision(payment, (PaymentRefunded(order_id=command.order_id, reason=command.reason),))
