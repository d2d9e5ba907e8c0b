"""The report: each number beside its verdict and its limit, and the reason where there is no number."""

from __future__ import annotations

from io import StringIO
from typing import Final

import pytest
from rich.console import Console

from compare.bench.document import Peer, Run
from compare.bench.relay import relay_of
from compare.bench.report import BenchReport, verdict_of_runs
from compare.bench.spec import INVALID, LEFT_OUT, UNKNOWN, Verdict
from tests.bench.measured import PACED, document, run

RELAY: Final = relay_of("orchestrated")
PEER: Final = Peer(
    name="faststream",
    title="A peer",
    versions={"faststream": "1.2.3"},
    guarantees={"recovery": "none at all"},
    settings={},
)


def report(*runs: Run, peers: tuple[Peer, ...] = (), encoding: str = "utf-8") -> str:
    """What is printed of these runs."""
    file = _Encoded(encoding)
    BenchReport(Console(file=file, width=120)).document(document(*runs, peers=peers))
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


def test_the_share_of_the_limit_has_its_own_interval() -> None:
    """It is surer than either figure, where what slows the one slows the other."""
    modes = [run(repeat=one, seconds=2 * one) for one in (1, 2, 3)]
    relays = [run(RELAY, repeat=one, seconds=one * (1 + one / 10)) for one in (1, 2, 3)]
    assert "x0.60 (0.55..0.65) of 41.7" in report(*modes, *relays)


def test_the_modes_are_compared_in_a_column() -> None:
    """With the interval of what the one took of the other, repeat by repeat."""
    modes = [run(repeat=one, seconds=one) for one in (1, 2, 3)]
    others = [run("choreographed", repeat=one, seconds=one / (1 + one)) for one in (1, 2, 3)]
    printed = report(*modes, *others)
    assert "choreographed" in printed
    assert "/ orchestrated" in printed
    assert "x3.00 (2.00..4.00)" in printed
    assert "Last column" in printed


def test_one_mode_alone_is_compared_with_none() -> None:
    """There is no column for it."""
    printed = report(run(), run(RELAY))
    assert "/ orchestrated" not in printed
    assert "Last column" not in printed


def test_hops_are_told() -> None:
    """They don't depend on the machine."""
    assert "hops/saga" in report(run())


def test_a_saturated_latency_is_marked() -> None:
    """A hundred orders a second are four times what the closed loop did."""
    printed = report(run(seconds=4), run(phase=PACED))
    assert "! 400 % saturated" in printed
    assert "! 490" in printed
    assert "! saturated:" in printed


@pytest.mark.parametrize(("closed_s", "compared"), [(4.0, False), (0.2, True)], ids=["saturated", "not"])
def test_a_saturated_latency_is_compared_with_nothing(closed_s: float, *, compared: bool) -> None:
    """Neither with the relay's nor with the other mode's: it says how long a queue was."""
    subjects = ("orchestrated", RELAY, "choreographed", relay_of("choreographed"))
    closed = [run(subject, seconds=closed_s) for subject in subjects]
    printed = report(*closed, *(run(subject, phase=PACED) for subject in subjects))
    [line] = [line for line in printed.splitlines() if "latency p50" in line]
    assert ("x1.00" in line) is compared
    below = printed.splitlines()[printed.splitlines().index(line) + 1]
    assert ("x1.00 of 490" in below) is compared


def test_a_latency_is_not_compared_with_a_queue_of_the_relay() -> None:
    """It may be only the relay that the rate was too much for, as when something else was at work."""
    printed = report(run(seconds=0.2), run(RELAY, seconds=4), run(phase=PACED), run(RELAY, phase=PACED))
    assert "✔ 490" in printed
    assert "of 490" not in printed


def test_a_latency_of_a_system_that_keeps_up_is_not() -> None:
    """It is as good as any figure."""
    printed = report(run(seconds=0.2), run(phase=PACED))
    assert "20 % saturated" not in printed
    assert "✔ 490" in printed


def test_as_many_repeats_are_told_as_there_were() -> None:
    """There may have been no time for all that were asked for."""
    assert "repeats 2 of 3" in " ".join(report(run(repeat=1), run(repeat=2)).split())
    assert "repeats 3 of" not in report(*(run(repeat=one) for one in (1, 2, 3)))


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
