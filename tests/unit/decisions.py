"""What every decider answers to every command in every state: the tables that the tests hold them to."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from common.domain.decision import Decision
from common.domain.inventory import Inventory, Reservation, ReservationStatus, Stock
from common.domain.order import Order, OrderStatus
from common.domain.payment import Payment, PaymentStatus
from common.messages import (
    CancelOrder,
    CancelPayment,
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
    OrderCompensationFailed,
    OrderCompleted,
    OrderCreated,
    OrderFailed,
    Overdue,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    PaymentRefundFailed,
    PlaceOrder,
    ProcessPayment,
    Reason,
    RefundPayment,
    RefusePayment,
    RefuseReservation,
    ReleaseInventory,
    ReportRefundFailure,
    ReportReleaseFailure,
    ReserveInventory,
    RetryCompensation,
    TimedOut,
)

ID: Final = "order-1"
WHY: Final = Reason.PAYMENT_DECLINED
OTHER: Final = Reason.DEAD_LETTER
"""A reason that is given too late to count."""

# The Order service

PLACE: Final = PlaceOrder(order_id=ID, customer_id="alice", item="laptop", quantity=2, price_cents=100_00)
CANCEL: Final = CancelOrder(order_id=ID)
COMPLETE: Final = CompleteOrder(order_id=ID)
FAIL: Final = FailOrder(order_id=ID, reason=WHY)
GIVE_UP: Final = FailCompensation(order_id=ID, reason=WHY)
RETRY: Final = RetryCompensation(order_id=ID)
OVERDUE: Final = Overdue(order_id=ID)
TIMED_OUT: Final = TimedOut(order_id=ID)

PENDING: Final = Order(ID, "alice", "laptop", 2, 100_00)
COMPLETED: Final = replace(PENDING, status=OrderStatus.COMPLETED)
COMPENSATING: Final = replace(PENDING, status=OrderStatus.COMPENSATING, reason=Reason.TIMED_OUT)
STUCK: Final = replace(COMPENSATING, status=OrderStatus.COMPENSATION_FAILED)
FAILED: Final = replace(PENDING, status=OrderStatus.FAILED, reason=WHY)

CREATED: Final = OrderCreated(order_id=ID, customer_id="alice", item="laptop", quantity=2, price_cents=100_00)
ABORTED: Final = OrderAborted(order_id=ID, reason=Reason.TIMED_OUT)

ORDERS: Final[dict[tuple[Order | None, Message], Decision[Order | None]]] = {
    (None, PLACE): Decision(PENDING, (CREATED,)),
    (None, CANCEL): Decision(None),
    (None, COMPLETE): Decision(None),
    (None, FAIL): Decision(None),
    (None, GIVE_UP): Decision(None),
    (None, RETRY): Decision(None),
    (None, OVERDUE): Decision(None),
    (None, TIMED_OUT): Decision(None),
    (PENDING, PLACE): Decision(PENDING),
    (PENDING, CANCEL): Decision(PENDING, (OrderCancelRequested(order_id=ID),)),
    (PENDING, COMPLETE): Decision(COMPLETED, (OrderCompleted(order_id=ID),)),
    (PENDING, FAIL): Decision(FAILED, (OrderFailed(order_id=ID, reason=WHY),)),
    (PENDING, GIVE_UP): Decision(
        replace(STUCK, reason=WHY), (OrderCompensationFailed(order_id=ID, reason=WHY),)
    ),
    (PENDING, RETRY): Decision(PENDING, late=True),
    (PENDING, OVERDUE): Decision(PENDING, (CREATED,)),
    (PENDING, TIMED_OUT): Decision(COMPENSATING, (ABORTED,)),
    (COMPLETED, PLACE): Decision(COMPLETED),
    (COMPLETED, CANCEL): Decision(COMPLETED, late=True),
    (COMPLETED, COMPLETE): Decision(COMPLETED, late=True),
    (COMPLETED, FAIL): Decision(COMPLETED, late=True),
    (COMPLETED, GIVE_UP): Decision(COMPLETED, late=True),
    (COMPLETED, RETRY): Decision(COMPLETED, late=True),
    (COMPLETED, OVERDUE): Decision(COMPLETED, late=True),
    (COMPLETED, TIMED_OUT): Decision(COMPLETED, late=True),
    (COMPENSATING, PLACE): Decision(COMPENSATING),
    (COMPENSATING, CANCEL): Decision(COMPENSATING, late=True),
    (COMPENSATING, COMPLETE): Decision(COMPENSATING, late=True),
    # That it has taken too long is no reason where others have one.
    (COMPENSATING, FAIL): Decision(FAILED, (OrderFailed(order_id=ID, reason=WHY),)),
    (COMPENSATING, GIVE_UP): Decision(
        replace(STUCK, reason=WHY), (OrderCompensationFailed(order_id=ID, reason=WHY),)
    ),
    (COMPENSATING, RETRY): Decision(COMPENSATING, late=True),
    (COMPENSATING, OVERDUE): Decision(COMPENSATING, (ABORTED,)),
    (COMPENSATING, TIMED_OUT): Decision(
        STUCK, (OrderCompensationFailed(order_id=ID, reason=Reason.TIMED_OUT),)
    ),
    (STUCK, PLACE): Decision(STUCK),
    (STUCK, CANCEL): Decision(STUCK, late=True),
    (STUCK, COMPLETE): Decision(STUCK, late=True),
    (STUCK, FAIL): Decision(FAILED, (OrderFailed(order_id=ID, reason=WHY),)),
    (STUCK, GIVE_UP): Decision(STUCK, late=True),
    (STUCK, RETRY): Decision(COMPENSATING, (ABORTED,)),
    (STUCK, OVERDUE): Decision(STUCK, late=True),
    (STUCK, TIMED_OUT): Decision(STUCK, late=True),
    (FAILED, PLACE): Decision(FAILED),
    (FAILED, CANCEL): Decision(FAILED, late=True),
    (FAILED, COMPLETE): Decision(FAILED, late=True),
    (FAILED, FAIL): Decision(FAILED, late=True),
    (FAILED, GIVE_UP): Decision(FAILED, late=True),
    (FAILED, RETRY): Decision(FAILED, late=True),
    (FAILED, OVERDUE): Decision(FAILED, late=True),
    (FAILED, TIMED_OUT): Decision(FAILED, late=True),
}

# The Inventory service

RESERVE: Final = ReserveInventory(order_id=ID, item="laptop", quantity=2)
RELEASE: Final = ReleaseInventory(order_id=ID, reason=WHY)
REFUSE: Final = RefuseReservation(order_id=ID, reason=OTHER)
NOT_RELEASED: Final = ReportReleaseFailure(order_id=ID, reason=WHY)

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
GIVEN_UP: Final = Inventory(None, Reservation(ID, ReservationStatus.REJECTED, reason=OTHER))
"""A tombstone, in place of a command that could not be processed."""
GIVEN_BACK: Final = Inventory(
    Stock("laptop", 5), Reservation(ID, ReservationStatus.RELEASED, "laptop", 2, WHY)
)
NEVER_HELD: Final = Inventory(None, Reservation(ID, ReservationStatus.RELEASED, reason=WHY))
"""A tombstone, before a command that is still to come."""

RESERVED: Final = InventoryReserved(order_id=ID, item="laptop", quantity=2)
REJECTED: Final = InventoryRejected(order_id=ID, reason=OTHER)
OUT_OF_STOCK: Final = InventoryRejected(order_id=ID, reason=Reason.OUT_OF_STOCK)
NO_SUCH_ITEM: Final = InventoryRejected(order_id=ID, reason=Reason.UNKNOWN_ITEM)
RELEASED: Final = InventoryReleased(order_id=ID, reason=WHY, item="laptop", quantity=2)
STILL_HELD: Final = InventoryReleaseFailed(order_id=ID, reason=WHY)
NOTHING_RELEASED: Final = InventoryReleased(order_id=ID, reason=WHY)

INVENTORIES: Final[dict[tuple[Inventory, Message], Decision[Inventory]]] = {
    (FULL, RESERVE): Decision(HELD, (RESERVED,)),
    (FULL, RELEASE): Decision(Inventory(FULL.stock, NEVER_HELD.reservation), (NOTHING_RELEASED,)),
    (FULL, REFUSE): Decision(Inventory(FULL.stock, GIVEN_UP.reservation), (REJECTED,)),
    (FULL, NOT_RELEASED): Decision(FULL, (STILL_HELD,)),
    (SHORT, RESERVE): Decision(OUT, (OUT_OF_STOCK,)),
    (SHORT, RELEASE): Decision(Inventory(SHORT.stock, NEVER_HELD.reservation), (NOTHING_RELEASED,)),
    (SHORT, REFUSE): Decision(Inventory(SHORT.stock, GIVEN_UP.reservation), (REJECTED,)),
    (SHORT, NOT_RELEASED): Decision(SHORT, (STILL_HELD,)),
    (UNKNOWN, RESERVE): Decision(NO_ITEM, (NO_SUCH_ITEM,)),
    (UNKNOWN, RELEASE): Decision(NEVER_HELD, (NOTHING_RELEASED,)),
    (UNKNOWN, REFUSE): Decision(GIVEN_UP, (REJECTED,)),
    (UNKNOWN, NOT_RELEASED): Decision(UNKNOWN, (STILL_HELD,)),
    (HELD, RESERVE): Decision(HELD, (RESERVED,)),
    (HELD, RELEASE): Decision(GIVEN_BACK, (RELEASED,)),
    (HELD, REFUSE): Decision(HELD, late=True),
    (HELD, NOT_RELEASED): Decision(HELD, (STILL_HELD,)),
    (OUT, RESERVE): Decision(OUT, (OUT_OF_STOCK,)),
    (OUT, RELEASE): Decision(OUT, (InventoryReleased(order_id=ID, reason=Reason.OUT_OF_STOCK),)),
    (OUT, REFUSE): Decision(OUT, (OUT_OF_STOCK,)),
    (OUT, NOT_RELEASED): Decision(OUT, (STILL_HELD,)),
    (NO_ITEM, RESERVE): Decision(NO_ITEM, (NO_SUCH_ITEM,)),
    (NO_ITEM, RELEASE): Decision(NO_ITEM, (InventoryReleased(order_id=ID, reason=Reason.UNKNOWN_ITEM),)),
    (NO_ITEM, REFUSE): Decision(NO_ITEM, (NO_SUCH_ITEM,)),
    (NO_ITEM, NOT_RELEASED): Decision(NO_ITEM, (STILL_HELD,)),
    (GIVEN_UP, RESERVE): Decision(GIVEN_UP, (REJECTED,)),
    (GIVEN_UP, RELEASE): Decision(GIVEN_UP, (InventoryReleased(order_id=ID, reason=OTHER),)),
    (GIVEN_UP, REFUSE): Decision(GIVEN_UP, (REJECTED,)),
    (GIVEN_UP, NOT_RELEASED): Decision(GIVEN_UP, (STILL_HELD,)),
    (GIVEN_BACK, RESERVE): Decision(GIVEN_BACK, (InventoryRejected(order_id=ID, reason=WHY),)),
    (GIVEN_BACK, RELEASE): Decision(GIVEN_BACK, (RELEASED,)),
    (GIVEN_BACK, REFUSE): Decision(GIVEN_BACK, (InventoryRejected(order_id=ID, reason=WHY),)),
    (GIVEN_BACK, NOT_RELEASED): Decision(GIVEN_BACK, late=True),
    (NEVER_HELD, RESERVE): Decision(NEVER_HELD, (InventoryRejected(order_id=ID, reason=WHY),)),
    (NEVER_HELD, RELEASE): Decision(NEVER_HELD, (NOTHING_RELEASED,)),
    (NEVER_HELD, REFUSE): Decision(NEVER_HELD, (InventoryRejected(order_id=ID, reason=WHY),)),
    (NEVER_HELD, NOT_RELEASED): Decision(NEVER_HELD, late=True),
}

# The Payment service

PAY: Final = ProcessPayment(order_id=ID, customer_id="alice", amount_cents=200_00)
PAY_TOO_MUCH: Final = ProcessPayment(order_id=ID, customer_id="alice", amount_cents=500_01)
REFUND: Final = RefundPayment(order_id=ID, reason=WHY)
DO_NOT_PAY: Final = CancelPayment(order_id=ID, reason=Reason.CANCELLED)
REFUSE_TO_PAY: Final = RefusePayment(order_id=ID, reason=OTHER)
NOT_REFUNDED: Final = ReportRefundFailure(order_id=ID, reason=WHY)

CHARGED: Final = Payment(ID, PaymentStatus.CHARGED, "alice", 200_00)
DECLINED: Final = Payment(ID, PaymentStatus.DECLINED, "alice", 500_01, WHY)
NOT_TRIED: Final = Payment(ID, PaymentStatus.DECLINED, reason=OTHER)
"""A tombstone, in place of a command that could not be processed."""
PAID_BACK: Final = Payment(ID, PaymentStatus.REFUNDED, "alice", 200_00, WHY)
NEVER_CHARGED: Final = Payment(ID, PaymentStatus.REFUNDED, reason=WHY)
"""A tombstone, before a command that is still to come."""
CANCELLED: Final = replace(NEVER_CHARGED, reason=Reason.CANCELLED)

PROCESSED: Final = PaymentProcessed(order_id=ID, amount_cents=200_00)
REFUSED: Final = PaymentDeclined(order_id=ID, reason=WHY)
REFUSED_UNTRIED: Final = PaymentDeclined(order_id=ID, reason=OTHER)
REFUNDED: Final = PaymentRefunded(order_id=ID, reason=WHY, amount_cents=200_00)
STILL_CHARGED: Final = PaymentRefundFailed(order_id=ID, reason=WHY)
NOTHING_REFUNDED: Final = PaymentRefunded(order_id=ID, reason=WHY)
NOTHING_CHARGED: Final = PaymentRefunded(order_id=ID, reason=Reason.CANCELLED)

PAYMENTS: Final[dict[tuple[Payment | None, Message], Decision[Payment | None]]] = {
    (None, PAY): Decision(CHARGED, (PROCESSED,)),
    (None, PAY_TOO_MUCH): Decision(DECLINED, (REFUSED,)),
    (None, REFUND): Decision(NEVER_CHARGED, (NOTHING_REFUNDED,)),
    (None, DO_NOT_PAY): Decision(CANCELLED, (NOTHING_CHARGED,)),
    (None, REFUSE_TO_PAY): Decision(NOT_TRIED, (REFUSED_UNTRIED,)),
    (None, NOT_REFUNDED): Decision(None, (STILL_CHARGED,)),
    (CHARGED, PAY): Decision(CHARGED, (PROCESSED,)),
    (CHARGED, PAY_TOO_MUCH): Decision(CHARGED, (PROCESSED,)),
    (CHARGED, REFUND): Decision(PAID_BACK, (REFUNDED,)),
    (CHARGED, DO_NOT_PAY): Decision(CHARGED, (PROCESSED,)),
    (CHARGED, REFUSE_TO_PAY): Decision(CHARGED, (PROCESSED,)),
    (CHARGED, NOT_REFUNDED): Decision(CHARGED, (STILL_CHARGED,)),
    (DECLINED, PAY): Decision(DECLINED, (REFUSED,)),
    (DECLINED, PAY_TOO_MUCH): Decision(DECLINED, (REFUSED,)),
    (DECLINED, REFUND): Decision(DECLINED, (NOTHING_REFUNDED,)),
    (DECLINED, DO_NOT_PAY): Decision(DECLINED, (REFUSED,)),
    (DECLINED, REFUSE_TO_PAY): Decision(DECLINED, (REFUSED,)),
    (DECLINED, NOT_REFUNDED): Decision(DECLINED, (STILL_CHARGED,)),
    (NOT_TRIED, PAY): Decision(NOT_TRIED, (REFUSED_UNTRIED,)),
    (NOT_TRIED, PAY_TOO_MUCH): Decision(NOT_TRIED, (REFUSED_UNTRIED,)),
    (NOT_TRIED, REFUND): Decision(NOT_TRIED, (PaymentRefunded(order_id=ID, reason=OTHER),)),
    (NOT_TRIED, DO_NOT_PAY): Decision(NOT_TRIED, (REFUSED_UNTRIED,)),
    (NOT_TRIED, REFUSE_TO_PAY): Decision(NOT_TRIED, (REFUSED_UNTRIED,)),
    (NOT_TRIED, NOT_REFUNDED): Decision(NOT_TRIED, (STILL_CHARGED,)),
    (PAID_BACK, PAY): Decision(PAID_BACK, (REFUSED,)),
    (PAID_BACK, PAY_TOO_MUCH): Decision(PAID_BACK, (REFUSED,)),
    (PAID_BACK, REFUND): Decision(PAID_BACK, (REFUNDED,)),
    (PAID_BACK, DO_NOT_PAY): Decision(PAID_BACK, (REFUNDED,)),
    (PAID_BACK, REFUSE_TO_PAY): Decision(PAID_BACK, (PaymentDeclined(order_id=ID, reason=WHY),)),
    (PAID_BACK, NOT_REFUNDED): Decision(PAID_BACK, late=True),
    (NEVER_CHARGED, PAY): Decision(NEVER_CHARGED, (REFUSED,)),
    (NEVER_CHARGED, PAY_TOO_MUCH): Decision(NEVER_CHARGED, (REFUSED,)),
    (NEVER_CHARGED, REFUND): Decision(NEVER_CHARGED, (NOTHING_REFUNDED,)),
    (NEVER_CHARGED, DO_NOT_PAY): Decision(NEVER_CHARGED, (NOTHING_REFUNDED,)),
    (NEVER_CHARGED, REFUSE_TO_PAY): Decision(NEVER_CHARGED, (PaymentDeclined(order_id=ID, reason=WHY),)),
    (NEVER_CHARGED, NOT_REFUNDED): Decision(NEVER_CHARGED, late=True),
}
