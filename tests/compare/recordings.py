"""Recordings without a broker: the real services over the small broker of `tests.pump`, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from common.domain.decision import Rules
from common.wiring import Mode
from compare.evidence import Happened, gather_evidence
from compare.lab import MODES
from compare.plan import plan
from compare.recording import Recording, TraceRecord
from compare.result import ScenarioResult, scenario_result
from compare.scenario import Scenario
from tests.pump import Pump

ORCHESTRATED: Final = MODES["orchestrated"]
CHOREOGRAPHED: Final = MODES["choreographed"]

PAID: Final = {"item": "laptop", "price": 200, "expect": "COMPLETED"}
DECLINED: Final = {
    "item": "laptop",
    "price": 600,
    "expect": {"status": "FAILED", "reason": "payment_declined"},
}
OUT_OF_STOCK: Final = {
    "item": "laptop",
    "price": 1,
    "quantity": 99,
    "expect": {"status": "FAILED", "reason": "out_of_stock"},
}


def scenario(*orders: dict[str, Any], **fields: Any) -> Scenario:  # noqa: ANN401 - a scenario's fields are of many types
    """A scenario of these orders on ten laptops; other fields as given."""
    defaults = {"name": "made-up", "description": "Made up for a test.", "stock": {"laptop": 10}}
    return Scenario.model_validate({**defaults, "orders": orders, **fields})


def recorded(scenario_: Scenario, mode: Mode) -> Recording:
    """What the services of a mode do with a scenario; each record is told a millisecond after its cause."""
    plan_ = plan(scenario_, Rules())
    with TemporaryDirectory() as folder:
        pump = Pump(mode, Path(folder), scenario_.stock, copies=scenario_.deliveries)
        try:
            pump.request(order.command for order in plan_.orders)
            pump.run()
            records = [record for log in pump.broker.logs.values() for record in log]
            recording = gather_evidence(plan_, pump.cores, records, "", Happened(None, 0.25))
        finally:
            pump.close()
    return with_trace(
        recording,
        (one.model_copy(update={"at_ms": one.hop - 1.0}) for one in recording.trace),
    )


def with_trace(recording: Recording, trace: Iterable[TraceRecord]) -> Recording:
    """The recording with another trace."""
    return recording.model_copy(update={"trace": tuple(trace)})


def both(scenario_: Scenario) -> ScenarioResult:
    """A scenario's result in both modes, measured and judged."""
    return scenario_result(scenario_, [recorded(scenario_, mode) for mode in MODES.values()])
