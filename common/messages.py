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
Cents = Annotated[int, Field(gt=0, le=_MOST)]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class Step(StrEnum):
    """A step of the domain, named alike in both modes: what traces are aligned by."""

    PLACE = "place"
    RESERVE = "reserve"
    PAY = "pay"
    REFUND = "refund"
    RELEASE = "release"
    COMPLETE = "complete"


class Reason(StrEnum):
    """Why an order failed."""

    UNKNOWN_ITEM = "unknown_item"
    OUT_OF_STOCK = "out_of_stock"
    PAYMENT_DECLINED = "payment_declined"


class Message(BaseModel):
    """What every message has: the order that it is about, which is also its key on the broker."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    VERSION: ClassVar[int] = 1
    STEP: ClassVar[Step]

    order_id: Text


class Command(Message):
    """An instruction to one service, which may refuse it."""


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
    """Nothing is held for the order any more."""

    STEP = Step.RELEASE

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
    """The order has cost the customer nothing."""

    STEP = Step.REFUND

    reason: Reason


class SagaCompleted(SagaEvent):
    """The orchestrator has seen every step succeed."""

    STEP = Step.COMPLETE


class SagaFailed(SagaEvent):
    """The orchestrator has seen a step fail and every earlier one undone."""

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
        OrderCreated,
        OrderCompleted,
        OrderFailed,
        InventoryReserved,
        InventoryRejected,
        InventoryReleased,
        PaymentProcessed,
        PaymentDeclined,
        PaymentRefunded,
        SagaCompleted,
        SagaFailed,
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
