"""Each protection prevents something: without it, a history goes wrong that is sound with it."""

import json

import pytest

from compare.cli import main
from compare.lab import MODES
from compare.scenario import RecoverySpec, Scenario
from compare.simulation.ablate_command import AblationDocument
from compare.simulation.ablation import Effort, ablate
from compare.simulation.drive import Anomaly
from compare.simulation.protections import MEANINGS, Protection
from compare.simulation.sweep import Bounds
from tests.simulation.worlds import BOTH, happen, orders

IMPATIENT = orders(100).model_copy(update={"recovery": RecoverySpec(deadline_tries=1)})
"""One order; what isn't answered in time is given up at once."""

GRID: list[tuple[Protection, str, Scenario, list[str], set[Anomaly]]] = [
    (
        Protection.INBOX, "orchestrated", orders(100),
        ["broker repeats SagaStarted(1)"], {Anomaly.REPEATED},
    ),
    (
        Protection.INBOX, "choreographed", orders(100),
        ["broker repeats OrderCreated(1)"], {Anomaly.REPEATED},
    ),
    (
        Protection.OUTBOX, "orchestrated", orders(100),
        ["order takes SagaCompleted(1), dies committed"], {Anomaly.MISTOLD},
    ),
    (
        Protection.OUTBOX, "choreographed", IMPATIENT,
        ["customer places 1, dies committed"], {Anomaly.UNEXPLAINED},
    ),
    (
        Protection.TOMBSTONES, "orchestrated", orders(100, cancel=True),
        ["inventory takes ReserveInventory(1), fails"], {Anomaly.LEAKED_STOCK},
    ),
    (
        Protection.TOMBSTONES, "choreographed", orders(100, cancel=True),
        ["inventory takes PaymentRefunded(1)"], {Anomaly.LEAKED_STOCK, Anomaly.LEAKED_MONEY},
    ),
    (
        Protection.DEADLINES, "orchestrated", orders(100),
        ["broker loses ReserveInventory(1)"], {Anomaly.STUCK},
    ),
    (
        Protection.DEADLINES, "choreographed", orders(100),
        ["broker loses PaymentProcessed(1)"], {Anomaly.STUCK, Anomaly.LEAKED_MONEY},
    ),
    (
        Protection.KEY_ORDERING, "orchestrated", orders(100, cancel=True),
        [
            "orchestrator takes InventoryReserved(1) + CancelSaga(1)",
            "payment takes ProcessPayment(1) + CancelPayment(1)",
        ],
        {Anomaly.MISTOLD},
    ),
    (
        Protection.KEY_ORDERING, "choreographed", orders(100, cancel=True),
        ["payment takes InventoryReserved(1) + OrderCancelRequested(1)"], {Anomaly.MISTOLD},
    ),
    (
        Protection.ROW_LOCKS, "orchestrated", orders(100, 100, stock=1),
        ["inventory takes ReserveInventory(2) beside ReserveInventory(1)"], {Anomaly.OVERSELL},
    ),
    (
        Protection.ROW_LOCKS, "choreographed", orders(100, 100, stock=1),
        ["inventory takes OrderCreated(2) beside OrderCreated(1)"], {Anomaly.OVERSELL},
    ),
    (
        Protection.COMMIT_ORDER, "orchestrated", IMPATIENT,
        ["orchestrator takes InventoryReserved(1), dies before"], {Anomaly.UNEXPLAINED},
    ),
    (
        Protection.COMMIT_ORDER, "choreographed", IMPATIENT,
        ["payment takes InventoryReserved(1), dies decided"], {Anomaly.UNEXPLAINED},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("protection", "mode", "scenario", "schedule", "anomalies"),
    GRID,
    ids=[f"{protection}-{mode}" for protection, mode, *_ in GRID],
)
def test_without_a_protection_something_goes_wrong(
    protection: Protection, mode: str, scenario: Scenario, schedule: list[str], anomalies: set[Anomaly]
) -> None:
    """The same history is sound with all protections in place."""
    assert happen(mode, scenario, *schedule, without=(protection,)).anomalies >= anomalies
    assert not happen(mode, scenario, *schedule).anomalies


def test_each_protection_is_in_each_mode_of_the_grid() -> None:
    """None is left out, and each is explained to people."""
    assert {(protection, mode) for protection, mode, *_ in GRID} == {
        (protection, mode) for protection in Protection for mode in MODES
    }
    assert MEANINGS.keys() == set(Protection)


@pytest.mark.timeout(180)
def test_the_grid_is_the_same_for_any_number_of_workers() -> None:
    """And what is found for a cell is as small as it can be."""
    effort = Effort(seed=1, runs=30, bounds=Bounds(crashes=1, repeats=0, most_states=20))
    cells = ablate((Protection.DEADLINES,), tuple(BOTH), effort, workers=1)
    again = ablate((Protection.DEADLINES,), tuple(BOTH), effort, workers=2)
    for one, other in zip(cells, again, strict=True):
        assert one.looked == other.looked
        assert Anomaly.STUCK in one.smallest
        small = one.smallest[Anomaly.STUCK]
        assert small.schedule == other.smallest[Anomaly.STUCK].schedule
        assert len(small.schedule) == len(small.scenario.orders) == 1


@pytest.mark.timeout(180)
def test_the_command_prints_the_grid(capsys: pytest.CaptureFixture[str]) -> None:
    """What a protection prevents stands in the row of it, and the histories below; machines get the same."""
    arguments = ["--without", "inbox", "--runs", "2", "--most-states", "10", "--workers", "1"]
    assert main(["ablate", *arguments, "--mode", "orchestrated"]) == 0
    shown = capsys.readouterr().out
    assert "handled twice [1]" in shown
    assert "[1] orchestrated, without inbox: handled twice. In stock:" in shown
    assert "With all protections in place: " in shown
    assert main(["ablate", *arguments, "--mode", "choreographed", "--json", "-"]) == 0
    document = AblationDocument.model_validate(json.loads(capsys.readouterr().out))
    assert [cell.without for cell in document.cells] == [None, "inbox"]
    assert not document.cells[0].shown
