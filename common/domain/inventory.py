"""The Inventory service: it holds stock for orders and gives it back."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, assert_never

from msgspec import Struct
from msgspec.structs import replace

from common.domain.decision import Decision, Rules
from common.messages import (
    InventoryRejected,
    InventoryReleased,
    InventoryReleaseFailed,
    InventoryReserved,
    Message,
    Reason,
    RefuseReservation,
    ReleaseInventory,
    ReportReleaseFailure,
    ReserveInventory,
)

ANSWERS: Final[dict[type[Message], tuple[type[Message], ...]]] = {
    ReserveInventory: (InventoryReserved, InventoryRejected),
    ReleaseInventory: (InventoryReleased,),
    RefuseReservation: (InventoryRejected,),
    ReportReleaseFailure: (InventoryReleaseFailed,),
}
GIVES_UP_WITH: Final[dict[type[Message], type[RefuseReservation | ReportReleaseFailure]]] = {
    ReserveInventory: RefuseReservation,
    ReleaseInventory: ReportReleaseFailure,
}
"""What becomes of a command that can't be processed."""


class ReservationStatus(StrEnum):
    """What became of an order's claim on the stock."""

    RESERVED = "RESERVED"
    REJECTED = "REJECTED"
    RELEASED = "RELEASED"


class Stock(Struct, frozen=True, array_like=True):
    """The pieces of an item that nobody holds."""

    item: str
    available: int


class Reservation(Struct, frozen=True, array_like=True):
    """An order's claim; a release that came before it leaves one without item and quantity (a tombstone)."""

    order_id: str
    status: ReservationStatus
    item: str | None = None
    quantity: int = 0
    reason: Reason | None = None


class Inventory(Struct, frozen=True):
    """The part of the stock room that one command touches."""

    stock: Stock | None = None
    reservation: Reservation | None = None

    @property
    def status(self) -> str | None:
        """The status of the reservation, if there is one."""
        return self.reservation.status if self.reservation else None


def decide(
    inventory: Inventory,
    command: ReserveInventory | ReleaseInventory | RefuseReservation | ReportReleaseFailure,
    _: Rules,
) -> Decision[Inventory]:
    """Reserve or release; a repeated command gets the stored answer again."""
    match command:
        case ReserveInventory():
            return _reserve(inventory, command)
        case ReleaseInventory():
            return _release(inventory, command)
        case RefuseReservation():
            return _refuse(inventory, command)
        case ReportReleaseFailure(reason=reason):
            return _report_failure(inventory, command.order_id, reason)
        case _:
            assert_never(command)


def _reserve(inventory: Inventory, command: ReserveInventory) -> Decision[Inventory]:
    match inventory.reservation:
        case Reservation(status=ReservationStatus.RESERVED, item=str() as item, quantity=quantity):
            return Decision(inventory, (_reserved(command, item, quantity),))
        case Reservation(reason=Reason() as reason):
            return Decision(inventory, (InventoryRejected(order_id=command.order_id, reason=reason),))

    stock = inventory.stock
    if stock is None:
        return _reject(inventory, command, Reason.UNKNOWN_ITEM)
    if stock.available < command.quantity:
        return _reject(inventory, command, Reason.OUT_OF_STOCK)
    held = Inventory(
        replace(stock, available=stock.available - command.quantity),
        Reservation(command.order_id, ReservationStatus.RESERVED, command.item, command.quantity),
    )
    return Decision(held, (_reserved(command, command.item, command.quantity),))


def _reserved(command: ReserveInventory, item: str, quantity: int) -> InventoryReserved:
    return InventoryReserved(order_id=command.order_id, item=item, quantity=quantity, charge=command.charge)


def _reject(inventory: Inventory, command: ReserveInventory, reason: Reason) -> Decision[Inventory]:
    rejected = Reservation(
        command.order_id, ReservationStatus.REJECTED, command.item, command.quantity, reason
    )
    event = InventoryRejected(order_id=command.order_id, reason=reason)
    return Decision(replace(inventory, reservation=rejected), (event,))


def _refuse(inventory: Inventory, command: RefuseReservation) -> Decision[Inventory]:
    """Leave a tombstone, so that the command which could not be processed is refused should it come again."""
    match inventory.reservation:
        case Reservation(status=ReservationStatus.RESERVED):
            # What its answer would have to carry on is in the command, which can't be read.
            return Decision(inventory, late=True)
        case Reservation(reason=Reason() as reason):
            return Decision(inventory, (InventoryRejected(order_id=command.order_id, reason=reason),))
    tombstone = Reservation(command.order_id, ReservationStatus.REJECTED, reason=command.reason)
    event = InventoryRejected(order_id=command.order_id, reason=command.reason)
    return Decision(replace(inventory, reservation=tombstone), (event,))


def _report_failure(inventory: Inventory, order_id: str, reason: Reason) -> Decision[Inventory]:
    if inventory.status == ReservationStatus.RELEASED:
        return Decision(inventory, late=True)
    return Decision(inventory, (InventoryReleaseFailed(order_id=order_id, reason=reason),))


def _release(inventory: Inventory, command: ReleaseInventory) -> Decision[Inventory]:
    match inventory.stock, inventory.reservation:
        case _, None:
            tombstone = Reservation(command.order_id, ReservationStatus.RELEASED, reason=command.reason)
            return Decision(replace(inventory, reservation=tombstone), (_released(tombstone, command),))
        case Stock() as stock, Reservation(status=ReservationStatus.RESERVED) as held:
            given_back = replace(held, status=ReservationStatus.RELEASED, reason=command.reason)
            available = replace(stock, available=stock.available + held.quantity)
            return Decision(Inventory(available, given_back), (_released(given_back, command),))
        case _, ended:
            return Decision(inventory, (_released(ended, command),))


def _released(ended: Reservation, command: ReleaseInventory) -> InventoryReleased:
    """What was given back, now or before; a claim that was refused never held anything."""
    given_back = ended.quantity if ended.status is ReservationStatus.RELEASED else 0
    return InventoryReleased(
        order_id=command.order_id,
        reason=ended.reason or command.reason,
        item=ended.item if given_back else None,
        quantity=given_back,
    )
