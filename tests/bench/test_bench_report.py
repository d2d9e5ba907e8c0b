"""The report: each number beside its verdict and its limit, and the reason where there is no number."""

from __future__ import annotations

from io import StringIO
from typing import Final

import pytest
from rich.console import Console

from compare.bench.document import BenchDocument, Machine, Peer, Run, SettingsUsed
from compare.bench.figures import figures
from compare.bench.relay import relay_of
from compare.bench.report import BenchReport, verdict_of_runs
from compare.bench.spec import INVALID, LEFT_OUT, UNKNOWN, Verdict
from tests.bench.measured import PACED, run

RELAY: Final = relay_of("orchestrated")
MACHINE: Final = Machine(processor="a processor", processors=2, memory=2**33, system="a system", load=0.5)
SETTINGS: Final = SettingsUsed(
    broker="embedded",
    partitions=3,
    fetch_max_wait_ms=2,
    max_poll_records=500,
    database="SQLite",
    durability="FULL",
    processes=False,
    instances=1,
    orders=100,
    concurrency=10,
    seconds=5,
    declined=0.2,
    items=10,
    warm_up=10,
    repeats=1,
)
PEER: Final = Peer(
    name="faststream",
    title="A peer",
    versions={"faststream": "1.2.3"},
    guarantees={"recovery": "none at all"},
    settings={},
)


def report(*runs: Run, peers: tuple[Peer, ...] = (), encoding: str = "utf-8") -> str:
    """What is printed of these runs."""
    document = BenchDocument(
        begun="2026-01-02T03:04:05Z",
        seconds=1.0,
        command="python -m compare bench",
        machine=MACHINE,
        versions={"saga-lab": "9.9"},
        settings=SETTINGS,
        peers=peers,
        verdict=verdict_of_runs(runs).value,
        figures=figures(runs),
        runs=runs,
    )
    file = _Encoded(encoding)
    BenchReport(Console(file=file, width=100)).document(document)
    return file.getvalue()


class _Encoded(StringIO):
    """A file that says which encoding it has."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override] # a StringIO's own is None
        return self._encoding


def test_a_number_has_its_verdict_and_its_limit_beside_it() -> None:
    """A hundred orders in two seconds, where the relay took one."""
    printed = report(run(seconds=2), run(RELAY, seconds=1))
    assert "✔ 50" in printed
    assert "x0.50 of 100" in printed
    assert printed.rstrip().endswith("All in all: ✔ valid")


def test_a_bad_run_has_a_fault_and_no_number() -> None:
    """Whoever reads it learns what was wrong, not how fast it was."""
    printed = report(run(verdict=INVALID), run(RELAY))
    assert "✖ invalid 0/1" in printed
    assert "No figure of orchestrated, closed: repeat 1: an order is charged twice" in printed
    assert "sagas/s" not in printed


def test_orders_that_did_not_end_show() -> None:
    """In the quantiles, and in a line of their own."""
    printed = report(run(phase=PACED, unended=10))
    assert "not ended" in printed
    assert "10 %" in printed


def test_a_peer_is_told_with_what_it_guarantees() -> None:
    """A figure says little without that."""
    printed = report(run(), run(RELAY), run("faststream", seconds=4), peers=(PEER,))
    assert "faststream: A peer (faststream 1.2.3)" in printed
    assert "recovery: none at all" in printed
    assert "25" in printed


def test_machine_versions_and_settings_are_told() -> None:
    """Without them, figures can't be compared with others."""
    printed = " ".join(report(run()).split())
    for fact in ("a processor", "saga-lab 9.9", "durability FULL", "declined 0.2"):
        assert fact in printed


def test_letters_stand_in_where_there_are_no_signs() -> None:
    """Nothing is lost in a terminal that has only ASCII."""
    printed = report(run(), run(RELAY), encoding="ascii")
    assert printed.isascii()
    assert "OK valid 1/1" in printed


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["valid", LEFT_OUT], "valid"),
        (["valid", UNKNOWN], "unknown"),
        ([UNKNOWN, INVALID], "invalid"),
    ],
)
def test_the_worst_run_decides(verdicts: list[Verdict], expected: str) -> None:
    """What was left out counts for nothing."""
    assert (
        verdict_of_runs([run(repeat=number, verdict=one) for number, one in enumerate(verdicts)]) == expected
    )
