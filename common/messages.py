"""The commands (imperative) and events (past tense) that cross the broker, the same in both modes.

Money is in integer cents, never floats. Models ignore fields that they don't know, so that an older consumer
tolerates a newer producer (Postel's rule for event schemas); a change that breaks readers raises `VERSION`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Final, TypeVar

from msgspec import DecodeError, Meta, Struct, ValidationError, to_builtins
from msgspec.json import Decoder, Encoder

# Whoever sends a message: what a database can't hold, or a log can't show, must not get past `read`.
_MOST: Final = 10**15
Pieces = Annotated[int, Meta(gt=0, le=_MOST)]
"""Of an item; none or fewer would make stock out of nothing."""
PiecesOrNone = Annotated[int, Meta(ge=0, le=_MOST)]
"""Of an item, given back: 0 if nothing was held."""
Cents = Annotated[int, Meta(gt=0, le=_MOST)]
CentsOrNone = Annotated[int, Meta(ge=0, le=_MOST)]
"""Given back: 0 if nothing was charged."""
Text = Annotated[str, Meta(min_length=1, max_length=200)]
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


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


class Message(Struct, frozen=True, omit_defaults=True, gc=False):
    """What every message has: the order that it is about, which is also its key on the broker.

    The bounds of its fields are checked where it is read, not where it is made: what makes one has its values
    from a message that was read, or from the HTTP API, whose bounds are narrower.
    """

    VERSION: ClassVar[int] = 1
    STEP: ClassVar[Step]

    order_id: Text


class Command(Message, frozen=True):
    """An instruction to one service, which may refuse it."""


class Resumption(Command, frozen=True):
    """A local command to go on with what is outstanding: what is asked for again keeps its identity.

    It comes from a deadline or an operator. See `common.core` for how the identity is kept.
    """


class Event(Message, frozen=True):
    """A fact: it has happened, and anybody may listen."""

    FAILURE: ClassVar[bool] = False


class OrderEvent(Event, frozen=True):
    """A fact about an order, told by the Order service."""


class InventoryEvent(Event, frozen=True):
    """A fact about stock, told by the Inventory service."""


class PaymentEvent(Event, frozen=True):
    """A fact about money, told by the Payment service."""


class SagaEvent(Event, frozen=True):
    """A fact about the process as a whole; only an orchestrator can know one."""


class OrderLine(Message, frozen=True):
    """What was ordered: `quantity` pieces at `price_cents` each, the price as it was when ordering."""

    customer_id: Text
    item: Text
    quantity: Pieces
    price_cents: Cents

    @property
    def total_cents(self) -> int:
        """Price times quantity, in cents."""
        return self.price_cents * self.quantity


class Charge(Struct, frozen=True, gc=False):
    """What the Payment service must know to charge a customer."""

    customer_id: Text
    amount_cents: Cents


# Commands


class PlaceOrder(OrderLine, Command, frozen=True):
    """Take an order on; it comes from HTTP, never over the broker."""

    STEP = Step.PLACE


class SagaStarted(OrderLine, Command, frozen=True):
    """Start the saga of an order. The name is the brief's; it is a command, addressed to the orchestrator."""

    STEP = Step.PLACE


class ReserveInventory(Command, frozen=True):
    """Hold `quantity` pieces of `item`.

    `charge` is passed on in the answer. Only choreography fills it in: there, the event is all that the next
    service gets, so Inventory has to carry what Payment needs.
    """

    STEP = Step.RESERVE

    item: Text
    quantity: Pieces
    charge: Charge | None = None


class ReleaseInventory(Command, frozen=True):
    """Undo `ReserveInventory`; succeeds though nothing was held, and then refuses the late original."""

    STEP = Step.RELEASE

    reason: Reason


class ProcessPayment(Command, frozen=True):
    """Charge the customer; this is the pivot, after which the saga only goes forward."""

    STEP = Step.PAY

    customer_id: Text
    amount_cents: Cents


class RefundPayment(Command, frozen=True):
    """Undo `ProcessPayment`; succeeds though nothing was charged, and then refuses the late original."""

    STEP = Step.REFUND

    reason: Reason


class CompleteOrder(Command, frozen=True):
    """End an order well."""

    STEP = Step.COMPLETE


class FailOrder(Command, frozen=True):
    """End an order whose effects are all undone."""

    STEP = Step.COMPLETE

    reason: Reason


class CancelOrder(Command, frozen=True):
    """Ask for an order's end without its effects; it comes from HTTP. A payment that was captured wins."""

    STEP = Step.CANCEL


class CancelSaga(Command, frozen=True):
    """Pass a customer's wish to cancel on to the orchestrator."""

    STEP = Step.CANCEL


class CancelPayment(Command, frozen=True):
    """Never charge for this order, unless it is charged already; then the payment stands.

    Of a cancel and a payment that race, the one that reaches the Payment service first wins.
    """

    STEP = Step.CANCEL

    reason: Reason


class FailCompensation(Command, frozen=True):
    """Note that an undo has failed as often as was allowed: an operator has to look."""

    STEP = Step.COMPLETE

    reason: Reason


class RetryCompensation(Resumption, frozen=True):
    """An operator's command: the cause of a failed compensation is mended, so try it again."""

    STEP = Step.CANCEL


class Overdue(Resumption, frozen=True):
    """A deadline has passed, and there are tries left: ask again."""

    STEP = Step.CANCEL


class TimedOut(Resumption, frozen=True):
    """A deadline has passed for the last time: what was asked for may have happened, or not."""

    STEP = Step.CANCEL


class RefuseSaga(Command, frozen=True):
    """Give up an order's `SagaStarted`, which can't be processed."""

    STEP = Step.PLACE

    reason: Reason


class RefuseReservation(Command, frozen=True):
    """Give up an order's `ReserveInventory`, which can't be processed."""

    STEP = Step.RESERVE

    reason: Reason


class RefusePayment(Command, frozen=True):
    """Give up an order's `ProcessPayment`, which can't be processed."""

    STEP = Step.PAY

    reason: Reason


class ReportReleaseFailure(Command, frozen=True):
    """Give up an order's `ReleaseInventory`, which keeps failing: the goods may still be held."""

    STEP = Step.RELEASE

    reason: Reason


class ReportRefundFailure(Command, frozen=True):
    """Give up an order's `RefundPayment`, which keeps failing: the charge may still stand."""

    STEP = Step.REFUND

    reason: Reason


# Events


class OrderCreated(OrderLine, OrderEvent, frozen=True):
    """An order was taken on and is PENDING."""

    STEP = Step.PLACE


class OrderCompleted(OrderEvent, frozen=True):
    """An order ended well."""

    STEP = Step.COMPLETE


class OrderFailed(OrderEvent, frozen=True):
    """An order failed, and nothing of it is held any more."""

    STEP = Step.COMPLETE
    FAILURE = True

    reason: Reason


class OrderCancelRequested(OrderEvent, frozen=True):
    """The customer wants the order to end without its effects; whether it does is not decided by that."""

    STEP = Step.CANCEL


class OrderAborted(OrderEvent, frozen=True):
    """The order is given up: whoever has done something for it undoes that."""

    STEP = Step.CANCEL
    FAILURE = True

    reason: Reason


class OrderCompensationFailed(OrderEvent, frozen=True):
    """An undo has failed for good: something may still be held or charged, and an operator has to look."""

    STEP = Step.COMPLETE
    FAILURE = True

    reason: Reason


class InventoryReserved(InventoryEvent, frozen=True):
    """Stock is held for the order; `charge` is what the command carried along."""

    STEP = Step.RESERVE

    item: Text
    quantity: Pieces
    charge: Charge | None = None


class InventoryRejected(InventoryEvent, frozen=True):
    """Stock could not be held; nothing is."""

    STEP = Step.RESERVE
    FAILURE = True

    reason: Reason


class InventoryReleased(InventoryEvent, frozen=True):
    """Nothing is held for the order any more; `quantity` pieces of `item` were, or never any."""

    STEP = Step.RELEASE

    reason: Reason
    item: Text | None = None
    quantity: PiecesOrNone = 0


class InventoryReleaseFailed(InventoryEvent, frozen=True):
    """The goods could not be given back; if any were held, they still are."""

    STEP = Step.RELEASE
    FAILURE = True

    reason: Reason


class PaymentProcessed(PaymentEvent, frozen=True):
    """The customer was charged."""

    STEP = Step.PAY

    amount_cents: Cents


class PaymentDeclined(PaymentEvent, frozen=True):
    """The customer was not charged."""

    STEP = Step.PAY
    FAILURE = True

    reason: Reason


class PaymentRefunded(PaymentEvent, frozen=True):
    """The order costs the customer nothing; `amount_cents` was given back, or never charged."""

    STEP = Step.REFUND

    reason: Reason
    amount_cents: CentsOrNone = 0


class PaymentRefundFailed(PaymentEvent, frozen=True):
    """The money could not be given back; if any was charged, the charge still stands."""

    STEP = Step.REFUND
    FAILURE = True

    reason: Reason


class SagaCompleted(SagaEvent, frozen=True):
    """The orchestrator has seen every step succeed."""

    STEP = Step.COMPLETE


class SagaFailed(SagaEvent, frozen=True):
    """The orchestrator has seen a step fail and every earlier one undone."""

    STEP = Step.COMPLETE
    FAILURE = True

    reason: Reason


class SagaCompensationFailed(SagaEvent, frozen=True):
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

M = TypeVar("M", bound=Message)


def write(message: Message) -> bytes:
    """A message as JSON; what has its default is left out."""
    return _ENCODER.encode(message)


def read(body: bytes, kind: type[M]) -> M:
    """Read a message of that kind from JSON.

    Raises:
        msgspec.DecodeError: it is no JSON, or a field is missing, or of another type, or out of bounds.
    """
    try:
        message: M = _decoder(kind).decode(body)
    except UnicodeDecodeError:
        raise DecodeError("Text is not UTF-8") from None
    except RecursionError:
        raise DecodeError("Nested too deep") from None
    # In JSON, a control character can only be there escaped; so nearly every body is known to have none.
    if not body.isascii() or b"\\" in body or b"\x7f" in body:
        for text in _texts(to_builtins(message)):
            if _CONTROL.search(text):
                raise ValidationError("Control character in a text")
    return message


_ENCODER: Final = Encoder()


@cache
def _decoder(kind: type[M]) -> Decoder[M]:
    return Decoder(kind)


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever JSON can hold
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value
