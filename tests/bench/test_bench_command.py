"""`python -m compare bench` from its arguments to the document, the report and the picture."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest

from common.errors import ConfigurationError
from compare.bench.document import BenchDocument
from compare.bench.figures import figures, ratios
from compare.cli import main
from compare.files import write_document
from tests.bench.measured import document as told
from tests.bench.measured import run

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
    assert document.ratios == ratios(document.runs)
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
def test_each_record_is_a_hop(outcome: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """No record of a saga waits for two others, or goes beside another."""
    document = BenchDocument.model_validate(_document(outcome[1]))
    found = {one.metric: one.value.median for one in document.figures if one.phase == "closed"}
    assert found["hops"] == found["records"] == pytest.approx(4.2)


@pytest.mark.live
def test_a_log_has_a_line_for_each_measurement(
    outcome: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    """Where standard error is no terminal, minutes must not pass in silence."""
    assert outcome[0].stderr.splitlines() == [
        f"repeat {repeat} of 2: {subject} (closed, idle, 100/s)"
        for repeat in (1, 2)
        for subject in ("choreographed", "relay of choreographed")
    ]


@pytest.mark.live
def test_versions_are_told(outcome: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """Also of what the processor time and the memory come from."""
    assert "psutil" in _document(outcome[1])["versions"]


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


@pytest.mark.live
@pytest.mark.timeout(60, func_only=True)
def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    """`| head` ends it quietly, with an exit code that is no verdict, and what was to be kept is kept."""
    target = tmp_path / "all.json"
    arguments = shlex.join([*SMALL, "--repeats", "1", "--json", str(target)])
    command = f"{{ {shlex.quote(sys.executable)} -m compare bench {arguments}; echo $? >&2; }} | head -n 1"
    done = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "2"
    assert BenchDocument.model_validate_json(target.read_text()).verdict == "valid"


@pytest.mark.live
@pytest.mark.timeout(60, func_only=True)
def test_an_interrupt_leaves_no_file(tmp_path: Path) -> None:
    """An empty one would look like a result."""
    command = [sys.executable, "-m", "compare", "bench", *SMALL, "--json", str(tmp_path / "new.json")]
    command += ["--plot", str(tmp_path / "new.svg")]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as bench:
        assert bench.stderr is not None
        assert bench.stderr.readline().startswith("repeat 1 of 2")
        bench.send_signal(signal.SIGINT)
        assert "Interrupted." in bench.stderr.read()
    assert bench.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_files_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new one is not left behind, and one of before keeps what is in it, also through a link."""
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere.json")
    for name in ("old.json", "new.json", "link.json"):
        assert main(["bench", "--instances", "2", "--json", str(tmp_path / name)]) == 64
    assert "--broker" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"old.json", "link.json"}
    assert (tmp_path / "old.json").read_text() == "old"


def test_a_document_that_cant_be_kept_any_more_is_told(tmp_path: Path) -> None:
    """A folder may go while minutes are measured."""
    target = str(tmp_path / "gone" / "all.json")
    with pytest.raises(ConfigurationError, match=r"--json .*gone/all\.json: can't be written"):
        write_document("--json", target, told(run()))


def test_the_package_can_be_called_as_well() -> None:
    """`python -m compare.bench` is the same command."""
    command = [sys.executable, "-m", "compare.bench", "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == bench("--help").stdout


def test_limits_and_defaults_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever asks for more is told how much there may be before it is refused."""
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    printed = " ".join(capsys.readouterr().out.partition("options:")[2].split())
    for option in ("--orders", "--items", "--partitions", "--instances", "--repeats"):
        assert re.search(rf"{option} N [a-z][^(]* 1 to 1[0,]+[^(]*\(default: ", printed), option


@pytest.mark.parametrize(
    "arguments",
    [
        ("--orders", "0"),
        ("--items", "1000001"),
        ("--partitions", "1001"),
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
