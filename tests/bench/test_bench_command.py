"""`python -m compare bench` from its arguments to the document, the report and the picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest

from compare.bench.document import BenchDocument
from compare.bench.figures import figures
from compare.cli import main

ROOT: Final = Path(__file__).parents[2]
SCHEMA: Final = ROOT / "docs" / "bench.schema.json"
SMALL: Final = (
    "--mode", "choreographed", "--repeats", "2", "--orders", "60", "--concurrency", "20", "--seconds", "0.3",
    "--rates", "100", "--durability", "NORMAL",
)  # fmt: skip


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "compare", "bench", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One small benchmark, with all that it writes."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench(*SMALL, "--json", str(folder / "all.json"), "--plot", str(folder / "all.svg"))
    return done, folder


@pytest.mark.timeout(60, func_only=True)
@pytest.mark.live
def test_a_benchmark_ends_valid(outcome: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """Both the mode and its relay end every order as they have to."""
    done, _ = outcome
    assert done.returncode == 0, done.stderr
    assert "All in all: ✔ valid" in done.stdout


@pytest.mark.live
def test_its_document_fits_the_published_schema(
    outcome: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    """A reader in another language can rely on it."""
    document = _document(outcome[1])
    jsonschema_rs.validate(json.loads(SCHEMA.read_text()), document)


@pytest.mark.live
def test_its_figures_are_those_of_its_runs(outcome: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """Whoever has the document can work every figure out again."""
    document = BenchDocument.model_validate(_document(outcome[1]))
    assert document.figures == figures(document.runs)
    assert {run.repeat for run in document.runs} == {1, 2}


@pytest.mark.live
def test_subjects_take_turns(outcome: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """A B A B: whatever else the machine does meanwhile, it does to both."""
    runs = _document(outcome[1])["runs"]
    turns = [run["subject"] for run in runs if run["measured"]["phase"]["name"] == "closed"]
    assert turns == ["choreographed", "relay of choreographed"] * 2


@pytest.mark.live
def test_the_relay_moves_as_much_as_the_mode(
    outcome: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    """As many records, and as many bytes but for the digits of some numbers."""
    document = BenchDocument.model_validate(_document(outcome[1]))
    share = {one.metric: one.share_of_limit for one in document.figures if one.share_of_limit is not None}
    assert share["records"].median == 1.0
    assert float(share["bytes"].median or 0) == pytest.approx(1.0, abs=0.02)


@pytest.mark.live
def test_it_draws_a_picture(outcome: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """An SVG with all three parts."""
    picture = (outcome[1] / "all.svg").read_text()
    assert picture.count('<g id="axes_') == 3


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("--instances", "2"), "--broker"),
        (("--plot", "figures.txt"), ".svg"),
        (("--json", "no/such/folder.json"), "can't be written"),
    ],
)
def test_what_cant_be_done_is_said_before(
    arguments: tuple[str, ...], mend: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Not after minutes of measuring."""
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 64
    assert mend in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--orders", "0"),
        ("--seconds", "-1"),
        ("--declined", "2"),
        ("--rates", "fast"),
        ("--broker", "nowhere"),
        ("--peers", "nobody"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the usage, and the exit code for it."""
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    assert ended.value.code == 64
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.live
@pytest.mark.timeout(60, func_only=True)
def test_a_broker_that_isnt_there_is_told() -> None:
    """That is no result: the exit code says unknown."""
    done = bench(*SMALL, "--broker", "127.0.0.1:1")
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr


@pytest.mark.live
@pytest.mark.timeout(60, func_only=True)
def test_services_in_processes_of_their_own_are_measured(tmp_path: Path) -> None:
    """What they spend is asked of each, and so the records are as many as in one process."""
    target = tmp_path / "all.json"
    done = bench(*SMALL, "--repeats", "1", "--processes", "--json", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    document = BenchDocument.model_validate_json(target.read_text())
    records = [one.value.median for one in document.figures if one.metric == "records"]
    assert records == [pytest.approx(4.2), pytest.approx(4.2)]


def test_the_published_schema_is_the_codes_own() -> None:
    """What `docs/` promises is what the program writes."""
    printed = json.dumps(BenchDocument.model_json_schema(), indent=2) + "\n"
    assert SCHEMA.read_text() == printed, "run: python -m compare schema bench > docs/bench.schema.json"


def _document(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "all.json").read_text())
    return document
