"""Soaking: what is drawn, how it is asked for, and that its verdict can be one or the other."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from common.settings import Settings
from compare.checks import Verdict
from compare.faults import Fault
from compare.lab import EMBEDDED, open_broker
from compare.recording import Recording
from compare.result import mode_result
from compare.scenario import Scenario
from compare.soak import Soak, SoakDocument, SoakRound
from compare.soak_plan import Violence, as_it_may_end, draw
from tests.compare.recordings import CHOREOGRAPHED, PAID, recorded, scenario
from tests.compare.test_cli import assert_usage, compare

DEFECTIVE: Final = [sys.executable, str(Path(__file__).with_name("defective_host.py"))]
CANCELLED: Final[dict[str, Any]] = {
    **PAID,
    "cancel": {"at": 0},
    "expect": {"status": "FAILED", "reason": "cancelled"},
}


def test_the_seed_determines_a_round() -> None:
    """The same seed draws the same orders and deeds; another one, or another round, draws others."""
    assert draw("a", 1, 400) == draw("a", 1, 400)
    assert draw("a", 1, 400).deeds != draw("b", 1, 400).deeds
    assert draw("a", 1, 400).scenario.orders != draw("a", 2, 400).scenario.orders


@pytest.mark.parametrize("orders", [10, 400, 1000])
def test_a_round_has_some_of_everything(orders: int) -> None:
    """As many orders as were asked for, each deed, and a crash that comes with the first orders."""
    drawn = draw("a", 1, orders)
    assert drawn.scenario.total_orders == orders
    assert {deed.what for deed in drawn.deeds} == set(Violence)
    assert all(1 <= deed.after <= orders for deed in drawn.deeds)
    first, *_ = (fault for fault in drawn.scenario.faults if fault.fault is Fault.CRASH)
    assert first.nth == 1


def test_orders_of_all_kinds() -> None:
    """Paid, declined, out of stock, unknown, cancelled; given up, and stuck."""
    kinds = Counter(
        (str(getattr(spec.expect, "status", "")), getattr(spec.expect, "reason", None))
        for spec in draw("a", 1, 1000).scenario.orders
    )
    assert len(kinds) == 7
    assert min(kinds.values()) >= 4


def judged(told: Scenario, recording: Recording) -> Verdict:
    """The verdict that a round gets."""
    return mode_result(as_it_may_end(told, recording), recording).verdict


def test_a_cancel_may_come_in_time_or_not() -> None:
    """An order that was to be cancelled may have been completed; one that was not must not fail for that."""
    completed = recorded(scenario(PAID), CHOREOGRAPHED)
    assert judged(scenario(CANCELLED), completed) is Verdict.VALID
    failed = [order.model_copy(update={"status": "FAILED"}) for order in completed.orders]
    other = completed.model_copy(update={"orders": tuple(failed)})
    assert judged(scenario(CANCELLED), other) is Verdict.INVALID


def test_rounds_add_up() -> None:
    """By mode: what happened in all of its rounds."""
    one = SoakRound(
        mode="choreographed",
        round=1,
        verdict=Verdict.VALID,
        orders=3,
        wall_s=1.0,
        counts={"completed": 1, "failed": 2},
        reasons={"cancelled": 2},
        findings=(),
    )
    other = one.model_copy(update={"mode": "orchestrated"})
    rounds = (one, other, one)
    document = SoakDocument(seed="a", orders=6, seconds=1, verdict=Verdict.VALID, rounds=rounds)
    assert document.counts("choreographed") == {"completed": 2, "failed": 4}
    assert document.reasons("choreographed") == {"cancelled": 4}
    assert document.counts("orchestrated") == {"completed": 1, "failed": 2}


@pytest.mark.live
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--orders", "9"], ["'9' is no number from 10 to 1000000"]),
        (["--orders", "many"], ["'many' is no number from 10"]),
        (["--seconds", "0"], ["'0' is no number of seconds"]),
        (["--mode", "hybrid"], ["invalid choice: 'hybrid'"]),
        (["--json", "no/such/folder.json"], ["--json no/such/folder.json: can't be written"]),
    ],
)
def test_usage(arguments: list[str], words: list[str]) -> None:
    """What can't be done as asked is refused before anything is started."""
    assert_usage(compare("soak", *arguments), *words)


@pytest.mark.live
@pytest.mark.timeout(120)
def test_a_tiny_soak(tmp_path: Path) -> None:
    """It tells its seed and its counts, for people and for programs, and ends well."""
    file = tmp_path / "soak.json"
    asked = ("--orders", "60", "--mode", "choreographed", "--seed", "tiny", "--json", str(file))
    done = compare("soak", *asked)
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    assert "Seed tiny; 60 orders in each mode" in done.stdout
    assert re.search(r"^orders +60$", done.stdout, re.MULTILINE)
    assert "with the seed tiny: ✔ valid" in done.stdout
    document = SoakDocument.model_validate(json.loads(file.read_text()))
    counts = document.counts("choreographed")
    assert counts["completed"] + counts["failed"] + counts["compensation_failed"] == 60
    assert counts["pending"] == 0
    assert counts["crash"] >= 1
    assert 1 <= counts["restart"] <= counts["crash"] + counts["kill"]
    assert counts["stop"] == counts["outage"] == 1


@pytest.mark.live
@pytest.mark.timeout(120)
async def test_a_defect_is_found() -> None:
    """Services that charge once more for what is told twice make the verdict invalid."""
    settings = Settings()
    rounds: list[SoakRound] = []
    async with open_broker(EMBEDDED, settings) as broker:
        soak = Soak(broker, settings, ["choreographed"], "tiny", host=DEFECTIVE)
        document = await soak.run(50, 60, rounds.append)
    assert document.verdict is Verdict.INVALID
    assert tuple(rounds) == document.rounds
    checks = {finding.check for finding in document.rounds[0].findings}
    assert "completed means paid and held" in checks
