"""By check: what to plant so that it fails, what it says then, and the history that it shows for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from common.wiring import Mode
from tests.compare.planting import (
    DECLINED_ORDER,
    DUE,
    PAID_ORDER,
    Case,
    and_changes,
    and_then,
    body_with,
    change_with,
    charged_twice,
    expecting,
    gets_stuck,
    never_ends,
    order_with,
    oversold_for_a_while,
    record_with,
    recording_with,
    refunded_too_late,
    refunded_too_late_in_history,
    still_holds,
    with_dead_letter,
    without,
    without_change,
)
from tests.compare.recordings import CHOREOGRAPHED, DECLINED, ORCHESTRATED, PAID

AGREE: Final = "records and databases agree"
ENDS: Final = "every order ends"
EXPECTED: Final = "orders end as expected"
FAILED_HOLDS: Final = "failed holds nothing"
IN_REVERSE: Final = "undone in reverse order"
PAID_AND_HELD: Final = "completed means paid and held"


class Violation(NamedTuple):
    """How to break one check, what it says then, and which checks can't but break with it."""

    breaks: Callable[[Case], Case]
    says: str
    entails: frozenset[str] = frozenset()
    lasts: bool = False
    """Whether it is wrong whatever might come later."""
    shows: tuple[str, ...] = ()
    """The history that comes with it: of each line, words that are in it."""
    mode: Mode = CHOREOGRAPHED


VIOLATIONS: Final = {
    ENDS: [
        Violation(
            never_ends,
            r"order 2 \(.*\) is PENDING, though nothing moves any more \(by the databases\)",
            entails=frozenset({EXPECTED}),
            shows=(
                "OrderCreated",
                "InventoryReserved",
                "PaymentDeclined",
                "InventoryReleased",
                "PENDING",
                "RELEASED",
                "DECLINED",
            ),
        ),
        Violation(
            lambda case: without(case, DECLINED_ORDER, "OrderFailed"),
            r"order 2 \(.*\) is PENDING, .* \(by the records\)",
            entails=frozenset({AGREE}),
        ),
        Violation(
            gets_stuck,
            r"order 2 \(.*\) is COMPENSATION_FAILED, which nobody expected",
            entails=frozenset({EXPECTED}),
        ),
        Violation(
            lambda case: and_then(case, PAID_ORDER, "OrderFailed", reason="timed_out"),
            r"order 1 \(.*\) is FAILED after it was COMPLETED \(by the records\)",
            entails=frozenset({AGREE, FAILED_HOLDS, "charged means completed or refunded"}),
            lasts=True,
        ),
        Violation(
            lambda case: and_changes(case, PAID_ORDER, "order", "COMPLETED", "FAILED"),
            r"order 1 \(.*\) is FAILED after it was COMPLETED \(by the databases\)",
            entails=frozenset({AGREE}),
            lasts=True,
        ),
    ],
    EXPECTED: [
        Violation(
            lambda case: expecting(case, {**PAID, "expect": DECLINED["expect"]}, DECLINED),
            r"order 1 \(.*\): expected FAILED for payment_declined, got COMPLETED",
            shows=(
                "OrderCreated",
                "InventoryReserved",
                "PaymentProcessed",
                "OrderCompleted",
                "COMPLETED",
                "RESERVED",
                "CHARGED",
            ),
        ),
        Violation(
            lambda case: expecting(
                case, PAID, {**DECLINED, "expect": {"status": "FAILED", "reason": "out_of_stock"}}
            ),
            r"order 2 \(.*\): expected FAILED for out_of_stock, got FAILED for payment_declined",
        ),
        Violation(
            lambda case: expecting(case, {**PAID, "expect": {"failed": 1}}, DECLINED),
            "of 1 orders for laptop, expected 0 COMPLETED and 1 FAILED, got 1 and 0",
        ),
        Violation(
            lambda case: expecting(
                case, PAID, {**DECLINED, "expect": {"failed": 1, "reason": "out_of_stock"}}
            ),
            r"order 2 \(.*\): expected to fail for out_of_stock, got FAILED for payment_declined",
        ),
    ],
    "stock is as expected": [
        Violation(
            lambda case: expecting(case, PAID, DECLINED, expect={"stock": {"laptop": 10}}),
            "laptop: expected 10 free, got 9",
            shows=("laptop: 9 free",),
        ),
    ],
    "stock is conserved": [
        Violation(
            lambda case: recording_with(case, stock={"laptop": 8}),
            "laptop: 8 free and 1 held are not the 10",
            entails=frozenset({AGREE}),
            shows=("RESERVED, 1 held", "laptop: 8 free"),
        ),
        Violation(
            lambda case: recording_with(case, stock={}),
            "laptop: 0 free and 1 held are not the 10",
            entails=frozenset({AGREE}),
        ),
        Violation(
            lambda case: body_with(case, DECLINED_ORDER, "InventoryReleased", quantity=2),
            r"order 2 \(.*\): 2 pieces were released, but 1 had been RESERVED",
            shows=("InventoryReserved", "InventoryReleased"),
        ),
    ],
    "stock is never negative": [
        Violation(
            lambda case: recording_with(case, stock={"laptop": 9, "phone": -1}),
            "phone: -1 free in the end",
            lasts=True,
            shows=("phone: -1 free",),
        ),
        Violation(
            oversold_for_a_while,
            r"laptop: -1 free after order .* was RESERVED \(by the databases\)",
            lasts=True,
        ),
        Violation(
            lambda case: body_with(case, PAID_ORDER, "InventoryReserved", quantity=11),
            r"laptop: -1 free after order 1 \(.*\) was RESERVED \(by the records\)",
            entails=frozenset({AGREE, PAID_AND_HELD}),
            shows=("InventoryReserved",),
        ),
    ],
    "charged at most once": [
        Violation(
            charged_twice,
            r"order 1 \(.*\) was charged 2 times \(by the databases\)",
            lasts=True,
            shows=("NONE to CHARGED", "NONE to CHARGED"),
        ),
        Violation(
            lambda case: and_then(case, PAID_ORDER, "PaymentProcessed", amount_cents=200_00),
            r"order 1 \(.*\) was charged 2 times \(by the records\)",
            lasts=True,
            shows=("PaymentProcessed", "PaymentProcessed"),
        ),
    ],
    "charged means completed or refunded": [
        Violation(
            lambda case: order_with(
                change_with(case, DECLINED_ORDER, "DECLINED", "CHARGED"), DECLINED_ORDER, payment="CHARGED"
            ),
            r"order 2 \(.*\) is charged, but FAILED \(by the databases\)",
            entails=frozenset({AGREE, FAILED_HOLDS}),
            shows=("FAILED", "CHARGED, 60000 cents"),
        ),
        Violation(
            lambda case: and_then(case, DECLINED_ORDER, "PaymentProcessed", amount_cents=DUE),
            r"order 2 \(.*\) is charged, but FAILED \(by the records\)",
            entails=frozenset({AGREE, FAILED_HOLDS}),
            shows=("OrderFailed", "PaymentProcessed"),
        ),
        Violation(
            lambda case: and_then(
                and_then(case, DECLINED_ORDER, "PaymentProcessed", amount_cents=DUE),
                DECLINED_ORDER,
                "PaymentRefunded",
                amount_cents=500,
            ),
            r"order 2 \(.*\): 500 cents were refunded, but 60000 had been CHARGED",
            entails=frozenset({IN_REVERSE}),
            lasts=True,
        ),
    ],
    PAID_AND_HELD: [
        Violation(
            lambda case: order_with(case, PAID_ORDER, amount_cents=199_99),
            r"order 1 \(.*\) is COMPLETED, due 20000 cents .* 19999 cents charged",
            entails=frozenset({AGREE}),
            lasts=True,
            shows=("COMPLETED", "RESERVED, 1 held", "CHARGED, 19999 cents"),
        ),
        Violation(
            lambda case: order_with(case, PAID_ORDER, payment="REFUNDED"),
            r"order 1 .* payment REFUNDED",
            entails=frozenset({AGREE}),
            lasts=True,
        ),
        Violation(
            lambda case: recording_with(order_with(case, PAID_ORDER, quantity_held=0), stock={"laptop": 10}),
            r"order 1 .* 0 held",
            entails=frozenset({AGREE}),
            lasts=True,
        ),
        Violation(
            lambda case: without(case, PAID_ORDER, "PaymentProcessed"),
            r"order 1 .* payment None, 0 cents charged, 1 held \(by the records\)",
            entails=frozenset({AGREE}),
            shows=("InventoryReserved", "OrderCompleted"),
        ),
    ],
    FAILED_HOLDS: [
        Violation(
            still_holds,
            r"order 2 \(.*\) is FAILED, but 1 held and payment DECLINED \(by the databases\)",
            entails=frozenset({AGREE}),
            lasts=True,
            shows=("FAILED", "RESERVED, 1 held", "DECLINED"),
        ),
        Violation(
            lambda case: without(case, DECLINED_ORDER, "InventoryReleased"),
            r"order 2 \(.*\) is FAILED, but 1 held and payment DECLINED \(by the records\)",
            entails=frozenset({AGREE}),
            shows=("InventoryReserved", "PaymentDeclined", "OrderFailed"),
        ),
    ],
    "undone means done before": [
        Violation(
            lambda case: without_change(case, DECLINED_ORDER, "RESERVED"),
            r"order 2 \(.*\) was RELEASED without having been RESERVED before \(by the databases\)",
            lasts=True,
            shows=("RESERVED to RELEASED",),
        ),
        Violation(
            lambda case: without(case, DECLINED_ORDER, "InventoryReserved"),
            r"order 2 \(.*\) was RELEASED without having been RESERVED before \(by the records\)",
            shows=("InventoryReleased",),
        ),
        Violation(
            lambda case: and_then(case, DECLINED_ORDER, "PaymentRefunded", amount_cents=DUE),
            r"order 2 \(.*\) was REFUNDED without having been CHARGED before",
            entails=frozenset({IN_REVERSE}),
            shows=("PaymentRefunded",),
        ),
    ],
    IN_REVERSE: [
        Violation(
            refunded_too_late,
            r"order 2 \(.*\) had its goods released before its payment was refunded \(by the records\)",
            lasts=True,
            shows=("InventoryReleased", "PaymentRefunded"),
        ),
        Violation(
            refunded_too_late_in_history,
            r"order 2 \(.*\) had its goods released before .* \(by the databases\)",
            lasts=True,
            shows=("RESERVED to RELEASED", "CHARGED to REFUNDED"),
        ),
    ],
    AGREE: [
        Violation(
            lambda case: body_with(case, DECLINED_ORDER, "OrderFailed", reason="out_of_stock"),
            "reason payment_declined in the databases, out_of_stock by the records",
            shows=("OrderFailed", "FAILED for payment_declined"),
        ),
        Violation(
            lambda case: order_with(case, DECLINED_ORDER, reason="timed_out"),
            "reason timed_out in the databases, payment_declined by the records",
            entails=frozenset({EXPECTED}),
        ),
        Violation(
            lambda case: without_change(case, DECLINED_ORDER, "DECLINED"),
            "the payment database has DECLINED, but its history ends with None",
            shows=("DECLINED, 60000 cents",),
        ),
        Violation(
            lambda case: without_change(case, DECLINED_ORDER, "FAILED"),
            "ended as nothing in the databases, FAILED by the records",
            shows=("OrderFailed",),
        ),
    ],
    "saga and order agree": [
        Violation(
            lambda case: order_with(case, DECLINED_ORDER, saga="COMPENSATING"),
            r"order 2 \(.*\) is FAILED, but its saga is COMPENSATING \(by the databases\)",
            entails=frozenset({AGREE}),
            shows=("FAILED", "COMPENSATING"),
            mode=ORCHESTRATED,
        ),
        Violation(
            lambda case: record_with(case, DECLINED_ORDER, "SagaFailed", type="SagaCompleted"),
            r"order 2 \(.*\) is FAILED, but its saga is COMPLETED \(by the records\)",
            shows=("SagaCompleted", "OrderFailed"),
            mode=ORCHESTRATED,
        ),
    ],
    "one order, one partition": [
        Violation(
            lambda case: record_with(case, PAID_ORDER, "OrderCompleted", partition=7),
            r"order 1 \(.*\) is on partitions \[\d, 7\]",
            lasts=True,
            shows=("PaymentProcessed", "OrderCompleted"),
        ),
    ],
    "every record has its cause": [
        Violation(
            lambda case: record_with(case, PAID_ORDER, "PaymentProcessed", cause=None, causation_id="who?"),
            r"order 1 \(.*\): PaymentProcessed comes from who\?",
            shows=("PaymentProcessed",),
        ),
    ],
    "everything is accounted for": [
        Violation(
            lambda case: recording_with(case, stray_records=2, strays=("x at y 0@1", "x at y 0@2")),
            "2 records are of no order",
            lasts=True,
            shows=("x at y 0@1", "x at y 0@2"),
        ),
        Violation(
            lambda case: recording_with(case, unknown_records=1, strays=("Odd at orders.events 0@1",)),
            "1 records are of no type",
            lasts=True,
            shows=("Odd at orders.events 0@1",),
        ),
        Violation(
            lambda case: record_with(case, PAID_ORDER, "OrderCreated", poisoned=True, body={}),
            "OrderCreated of order .* can't be read, and no fault has made it so",
            lasts=True,
            shows=("OrderCreated (unreadable)",),
        ),
        Violation(
            with_dead_letter,
            "no fault has led to the dead letter InventoryReserved of order .*, which payment gave up",
            lasts=True,
            shows=("InventoryReserved is given up",),
        ),
        Violation(
            lambda case: recording_with(case, counts={"payment": {"dead_letter": 1}}),
            "the services count 1 dead letters, the broker has 0",
            shows=("1 dead letters counted",),
        ),
    ],
}
