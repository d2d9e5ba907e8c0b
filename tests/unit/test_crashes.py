"""All services die after the n-th step, for every n, in runs that are disturbed in other ways as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from common.envelope import Outgoing
from common.errors import TransientError
from common.messages import (
    CancelOrder,
    CompleteOrder,
    InventoryReserved,
    Message,
    PaymentProcessed,
    PaymentRefunded,
    ProcessPayment,
    RefundPayment,
    ReleaseInventory,
    ReserveInventory,
)
from common.probe import Probe
from common.recovery import Recovery
from common.store.journal import Change
from common.wiring import Mode
from tests.pump import NOW, Broker, Pump, State, order_id, place_order
from tests.unit.records import MODES, check_books, end_of

STOCK: Final = {"laptop": 10}
RECOVERY: Final = Recovery(retry_tries=3, undo_tries=3, deadline_tries=2)
"""Fewer tries make shorter runs."""
CANCEL: Final = CancelOrder(order_id=order_id(1))
GOOD: Final = place_order(1)
TOO_MUCH: Final = place_order(1, price=400_00)
HOUR: Final = 3600.0


class Outage(Probe):
    """Has the deciding of some commands fail until a time; it remembers nothing that a crash could take."""

    def __init__(self, broker: Broker, seconds: float, *commands: type[Message]) -> None:
        self._broker = broker
        self._until = NOW + timedelta(seconds=seconds)
        self._commands = commands

    def deciding(self, command: Message, because: object) -> None:
        if isinstance(command, self._commands) and self._broker.now < self._until:
            raise TransientError(f"{because} comes too early")


def outage(seconds: float, *commands: type[Message]) -> Callable[[Broker], Probe]:
    """A probe for each run."""
    return lambda broker: Outage(broker, seconds, *commands)


def unanswered(kind: type[Message], attempts: int) -> Callable[[Outgoing], Iterable[Outgoing]]:
    """A wire that loses the first attempts of a message; it, too, remembers nothing."""

    def wire(record: Outgoing) -> Iterable[Outgoing]:
        headers = dict(record.headers)
        lost = (
            headers["ce_type"] == kind.__name__.encode() and int(headers.get("ce_attempt", b"1")) <= attempts
        )
        return () if lost else (record,)

    return wire


@dataclass(frozen=True)
class Trouble:
    """What befalls an order, and its end."""

    requests: tuple[Message, ...]
    end: tuple[str, str | None, str]
    """Status, reason and reservation; what became of the payment follows from these, and differs by mode."""
    options: dict[str, Any] = field(default_factory=dict)


def losing_payment_and_undo(record: Outgoing) -> Iterable[Outgoing]:
    """A wire that loses the word of the payment for good, and that of its undo for a while."""
    if not list(unanswered(PaymentProcessed, 99)(record)):
        return ()
    return unanswered(PaymentRefunded, 3)(record)


COMPLETED: Final = ("COMPLETED", None, "RESERVED")
UNDONE: Final = ("FAILED", "timed_out", "RELEASED")
TROUBLES: Final = {
    "retried step": Trouble((GOOD,), COMPLETED, {"probe": outage(0.15, ReserveInventory, ProcessPayment)}),
    "retried end": Trouble((GOOD,), COMPLETED, {"probe": outage(30, CompleteOrder)}),
    "dead letter": Trouble(
        (GOOD,), ("FAILED", "dead_letter", "RELEASED"), {"probe": outage(HOUR, ProcessPayment)}
    ),
    "lost reply": Trouble((GOOD,), COMPLETED, {"wire": unanswered(InventoryReserved, 1)}),
    "deadline": Trouble((GOOD,), UNDONE, {"wire": unanswered(PaymentProcessed, 99)}),
    "deadline and lost undo": Trouble((GOOD,), UNDONE, {"wire": losing_payment_and_undo}),
    "retried undo": Trouble(
        (TOO_MUCH,), ("FAILED", "payment_declined", "RELEASED"), {"probe": outage(0.25, ReleaseInventory)}
    ),
    "failed undo": Trouble(
        (GOOD,),
        ("COMPENSATION_FAILED", "timed_out", "RESERVED"),
        {"probe": outage(10 * HOUR, RefundPayment), "wire": unanswered(PaymentProcessed, 99)},
    ),
    "cancel": Trouble((GOOD, CANCEL), ("FAILED", "cancelled", "RELEASED")),
}


def paths(histories: dict[str, list[Change]]) -> dict[str, list[tuple[str, str]]]:
    """By service: the changes of state, without the times, which a crash may put off."""
    return {
        service: sorted((change.from_status, change.to_status) for change in changes)
        for service, changes in histories.items()
    }


def without_times(state: dict[str, State]) -> dict[str, dict[str, list[tuple[Any, ...]]]]:
    """By service and table: the rows, without the times."""
    return {
        service: {table: [row[:-2] for row in rows] for table, rows in tables.items()}
        for service, tables in state.items()
    }


@MODES
@pytest.mark.parametrize("name", TROUBLES)
def test_a_crash_after_any_step_of_a_troubled_run_changes_nothing(
    mode: Mode, name: str, tmp_path: Path
) -> None:
    """With retries, deadlines, losses or a cancel under way, the end is that of a run without a crash."""
    trouble = TROUBLES[name]
    undisturbed = Pump(mode, tmp_path / "undisturbed", STOCK, recovery=RECOVERY, **trouble.options)
    undisturbed.request(trouble.requests)
    # After each third step, to save time; untroubled runs are swept in full, in test_core.py.
    crashed = [
        (undisturbed.after_crash(tmp_path / f"crash {number}"), step)
        for number, step in enumerate(undisturbed.steps(HOUR))
        if number % 3 == 0
    ]
    assert end_of(undisturbed.state())[:3] == trouble.end
    check_books(undisturbed, STOCK, [1])
    for pump, step in crashed:
        pump.run(HOUR)
        assert without_times(pump.state()) == without_times(undisturbed.state()), f"after a crash when {step}"
        assert paths(pump.histories()) == paths(undisturbed.histories()), f"after a crash when {step}"
        pump.close()
    undisturbed.close()
