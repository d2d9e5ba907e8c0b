"""The commands (imperative) and events (past tense) that cross the broker, the same in both modes.

Money is in integer cents, never floats. Models ignore fields that they don't know, so that an older consumer
tolerates a newer producer (Postel's rule for event schemas); a change that breaks readers raises `VERSION`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

# Whoever sends a message: what a database can't hold, or a log can't show, must not get past its decoding.
_MOST: Final = 10**15
Pieces = Annotated[int, Field(gt=0, le=_MOST)]
"""Of an item; none or fewer would make stock out of nothing."""
PiecesOrNone = Annotated[int, Field(ge=0, le=_MOST)]
"""Of an item, given back: 0 if nothing was held."""
Cents = Annotated[int, Field(gt=0, le=_MOST)]
CentsOrNone = Annotated[int, Field(ge=0, le=_MOST)]
"""Given back: 0 if nothing was charged."""
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class Step(StrEnum):
    """A step of the domain, named alike in both modes: what traces are aligned by."""

    PLACE = "place"
    RESERVE = "reserve"
    PAY = "pay"
    CANCEL = "cancel"
    REFUND = "refund"
    RELEASE = "release"
    COMPLETE = "complete"


class Reason(StrEnum):
    """Why an order failed."""

    UNKNOWN_ITEM = "unknown_item"
    OUT_OF_STOCK = "out_of_stock"
    PAYMENT_DECLINED = "payment_declined"
    CANCELLED = "cancelled"
    """Its customer asked for it, and the payment was not captured yet."""
    TIMED_OUT = "timed_out"
    """A deadline passed as often as was allowed."""
    DEAD_LETTER = "dead_letter"
    """A step's request could not be processed, and is among the dead letters."""


class Message(BaseModel):
    """What every message has: the order that it is about, which is also its key on the broker."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    VERSION: ClassVar[int] = 1
    STEP: ClassVar[Step]

    order_id: Text


class Command(Message):
    """An instruction to one service, which may refuse it."""


class Resumption(Command):
    """A local command to go on with what is outstanding: what is asked for again keeps its identity.

    It comes from a deadline or an operator. See `common.core` for how the identity is kept.
    """


class Event(Message):
    """A fact: it has happened, and anybody may listen."""

    FAILURE: ClassVar[bool] = False


class OrderEvent(Event):
    """A fact about an order, told by the Order service."""


class InventoryEvent(Event):
    """A fact about stock, told by the Inventory service."""


class PaymentEvent(Event):
    """A fact about money, told by the Payment service."""


class SagaEvent(Event):
    """A fact about the process as a whole; only an orchestrator can know one."""


class OrderLine(Message):
    """What was ordered: `quantity` pieces at `price_cents` each, the price as it was when ordering."""

    customer_id: Text
    item: Text
    quantity: Pieces
    price_cents: Cents

    @property
    def total_cents(self) -> int:
        """Price times quantity, in cents."""
        return self.price_cents * self.quantity


class Charge(BaseModel):
    """What the Payment service must know to charge a customer."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    customer_id: Text
    amount_cents: Cents


# Commands


class PlaceOrder(OrderLine, Command):
    """Take an order on; it comes from HTTP, never over the broker."""

    STEP = Step.PLACE


class SagaStarted(OrderLine, Command):
    """Start the saga of an order. The name is the brief's; it is a command, addressed to the orchestrator."""

    STEP = Step.PLACE


class ReserveInventory(Command):
    """Hold `quantity` pieces of `item`.

    `charge` is passed on in the answer. Only choreography fills it in: there, the event is all that the next
    service gets, so Inventory has to carry what Payment needs.
    """

    STEP = Step.RESERVE

    item: Text
    quantity: Pieces
    charge: Charge | None = None


class ReleaseInventory(Command):
    """Undo `ReserveInventory`; succeeds though nothing was held, and then refuses the late original."""

    STEP = Step.RELEASE

    reason: Reason


class ProcessPayment(Command):
    """Charge the customer; this is the pivot, after which the saga only goes forward."""

    STEP = Step.PAY

    customer_id: Text
    amount_cents: Cents


class RefundPayment(Command):
    """Undo `ProcessPayment`; succeeds though nothing was charged, and then refuses the late original."""

    STEP = Step.REFUND

    reason: Reason


class CompleteOrder(Command):
    """End an order well."""

    STEP = Step.COMPLETE


class FailOrder(Command):
    """End an order whose effects are all undone."""

    STEP = Step.COMPLETE

    reason: Reason


class CancelOrder(Command):
    """Ask for an order's end without its effects; it comes from HTTP. A payment that was captured wins."""

    STEP = Step.CANCEL


class CancelSaga(Command):
    """Pass a customer's wish to cancel on to the orchestrator."""

    STEP = Step.CANCEL


class CancelPayment(Command):
    """Never charge for this order, unless it is charged already; then the payment stands.

    Of a cancel and a payment that race, the one that reaches the Payment service first wins.
    """

    STEP = Step.CANCEL

    reason: Reason


class FailCompensation(Command):
    """Note that an undo has failed as often as was allowed: an operator has to look."""

    STEP = Step.COMPLETE

    reason: Reason


class RetryCompensation(Resumption):
    """An operator's command: the cause of a failed compensation is mended, so try it again."""

    STEP = Step.CANCEL


class Overdue(Resumption):
    """A deadline has passed, and there are tries left: ask again."""

    STEP = Step.CANCEL


class TimedOut(Resumption):
    """A deadline has passed for the last time: what was asked for may have happened, or not."""

    STEP = Step.CANCEL


class RefuseSaga(Command):
    """Give up an order's `SagaStarted`, which can't be processed."""

    STEP = Step.PLACE

    reason: Reason


class RefuseReservation(Command):
    """Give up an order's `ReserveInventory`, which can't be processed."""

    STEP = Step.RESERVE

    reason: Reason


class RefusePayment(Command):
    """Give up an order's `ProcessPayment`, which can't be processed."""

    STEP = Step.PAY

    reason: Reason


class ReportReleaseFailure(Command):
    """Give up an order's `ReleaseInventory`, which keeps failing: the goods may still be held."""

    STEP = Step.RELEASE

    reason: Reason


class ReportRefundFailure(Command):
    """Give up an order's `RefundPayment`, which keeps failing: the charge may still stand."""

    STEP = Step.REFUND

    reason: Reason


# Events


class OrderCreated(OrderLine, OrderEvent):
    """An order was taken on and is PENDING."""

    STEP = Step.PLACE


class OrderCompleted(OrderEvent):
    """An order ended well."""

    STEP = Step.COMPLETE


class OrderFailed(OrderEvent):
    """An order failed, and nothing of it is held any more."""

    STEP = Step.COMPLETE
    FAILURE = True

    reason: Reason


class OrderCancelRequested(OrderEvent):
    """The customer wants the order to end without its effects; whether it does is not decided by that."""

    STEP = Step.CANCEL


class OrderAborted(OrderEvent):
    """The order is given up: whoever has done something for it undoes that."""

    STEP = Step.CANCEL
    FAILURE = True

    reason: Reason


class OrderCompensationFailed(OrderEvent):
    """An undo has failed for good: something may still be held or charged, and an operator has to look."""

    STEP = Step.COMPLETE
    FAILURE = True

    reason: Reason


class InventoryReserved(InventoryEvent):
    """Stock is held for the order; `charge` is what the command carried along."""

    STEP = Step.RESERVE

    item: Text
    quantity: Pieces
    charge: Charge | None = None


class InventoryRejected(InventoryEvent):
    """Stock could not be held; nothing is."""

    STEP = Step.RESERVE
    FAILURE = True

    reason: Reason


class InventoryReleased(InventoryEvent):
    """Nothing is held for the order any more; `quantity` pieces of `item` were, or never any."""

    STEP = Step.RELEASE

    reason: Reason
    item: Text | None = None
    quantity: PiecesOrNone = 0


class InventoryReleaseFailed(InventoryEvent):
    """The goods could not be given back; if any were held, they still are."""

    STEP = Step.RELEASE
    FAILURE = True

    reason: Reason


class PaymentProcessed(PaymentEvent):
    """The customer was charged."""

    STEP = Step.PAY

    amount_cents: Cents


class PaymentDeclined(PaymentEvent):
    """The customer was not charged."""

    STEP = Step.PAY
    FAILURE = True

    reason: Reason


class PaymentRefunded(PaymentEvent):
    """The order costs the customer nothing; `amount_cents` was given back, or never charged."""

    STEP = Step.REFUND

    reason: Reason
    amount_cents: CentsOrNone = 0


class PaymentRefundFailed(PaymentEvent):
    """The money could not be given back; if any was charged, the charge still stands."""

    STEP = Step.REFUND
    FAILURE = True

    reason: Reason


class SagaCompleted(SagaEvent):
    """The orchestrator has seen every step succeed."""

    STEP = Step.COMPLETE


class SagaFailed(SagaEvent):
    """The orchestrator has seen a step fail and every earlier one undone."""

    STEP = Step.COMPLETE
    FAILURE = True

    reason: Reason


class SagaCompensationFailed(SagaEvent):
    """The orchestrator has seen an undo fail as often as was allowed."""

    STEP = Step.COMPLETE
    FAILURE = True

    reason: Reason


MESSAGES: Final[dict[str, type[Message]]] = {
    message.__name__: message
    for message in (
        SagaStarted,
        ReserveInventory,
        ReleaseInventory,
        ProcessPayment,
        RefundPayment,
        CancelSaga,
        CancelPayment,
        RetryCompensation,
        OrderCreated,
        OrderCancelRequested,
        OrderAborted,
        OrderCompleted,
        OrderFailed,
        OrderCompensationFailed,
        InventoryReserved,
        InventoryRejected,
        InventoryReleased,
        InventoryReleaseFailed,
        PaymentProcessed,
        PaymentDeclined,
        PaymentRefunded,
        PaymentRefundFailed,
        SagaCompleted,
        SagaFailed,
        SagaCompensationFailed,
    )
}
"""Every message that may cross the broker, by the name that its `ce_type` header bears."""

COMPENSATIONS: Final[dict[type[Command], type[Command]]] = {
    ReserveInventory: ReleaseInventory,
    ProcessPayment: RefundPayment,
}
"""What undoes what."""

PIVOT: Final = ProcessPayment
"""The point of no return: steps before it need an undo, steps after it are retried until they succeed."""
