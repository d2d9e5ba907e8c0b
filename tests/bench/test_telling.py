"""Progress where nobody watches a bar: a line when a measurement begins, and no other."""

from __future__ import annotations

import pytest

from compare.bench.campaign import STARTING, Plan
from compare.bench.spec import Phase
from compare.bench.telling import telling

PLAN = Plan(
    address="embedded",
    subjects=("orchestrated",),
    phases=(Phase(name="closed", concurrency=5, orders=20, seconds=5),),
    repeats=3,
    declined=0.2,
    items=2,
    warm_up=5,
    partitions=2,
    durability="NORMAL",
    processes=False,
    instances=1,
)


def test_a_log_gets_a_line_for_each_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    """With what is being measured, how often, and nothing of each step."""
    with telling() as tell:
        told = tell(PLAN)
        told("orchestrated", 2, STARTING, 0, 5)
        told("orchestrated", 2, "closed", 10, 20)
    assert capsys.readouterr().err == "repeat 2 of 3: orchestrated (closed)\n"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves, and takes no lines."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with telling() as tell:
        tell(PLAN)("orchestrated", 2, "closed", 10, 20)
    printed = capsys.readouterr().err
    assert "2: orchestrated, closed" in printed
    assert "repeat 2 of 3" not in printed
