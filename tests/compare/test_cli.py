"""The command line as people and scripts use it: a process with arguments, two outputs and an exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest

import compare as compare_package
from common import __version__
from common.settings import Settings
from compare.__main__ import main
from compare.scenario_files import built_in_scenarios

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

ROOT: Final = Path(__file__).parents[2]
COMPARE: Final = [sys.executable, "-m", "compare"]
LIMIT_S: Final = 100
NOBODY: Final = "127.0.0.1:1"
"""Nothing listens on this port; the connection is refused at once."""
UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def environment(**more: str) -> dict[str, str]:
    """The environment without what would change the lab's ways."""
    unwanted = {name.upper() for name in Settings.model_fields} | {
        "COLUMNS",
        "FORCE_COLOR",
        "PYTHONIOENCODING",
    }
    return {name: value for name, value in os.environ.items() if name not in unwanted} | more


def compare(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in 120 columns."""
    return subprocess.run(
        [*COMPARE, *arguments],
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        cwd=ROOT,
        env=environment(COLUMNS="120") | more,
    )


def scenario_file(folder: Path, **changes: object) -> str:
    """A scenario file of one order that completes, with other fields as given."""
    content = {
        "description": "One order.",
        "stock": {"laptop": 1},
        "orders": [{"item": "laptop", "price": 200, "expect": "COMPLETED"}],
        **changes,
    }
    path = folder / "mine.yaml"
    path.write_text(json.dumps(content))  # YAML is a superset of JSON
    return str(path)


def assert_usage(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It was refused in few words, on standard error only."""
    assert done.returncode == 64
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_help_tells_exit_codes_and_settings() -> None:
    """--help is all that one needs."""
    done = compare("--help")
    assert done.returncode == 0
    assert "64 usage, 130 interrupted" in done.stdout
    assert "KAFKA_BOOTSTRAP_SERVERS" in done.stdout
    for command in ("run", "soak", "dlq", "list", "show", "schema"):
        assert re.search(rf"^ +{command} ", done.stdout, re.MULTILINE)


def test_version() -> None:
    """--version tells the lab's own."""
    assert compare("--version").stdout == f"saga-lab {__version__}\n"


def test_list_names_every_built_in_scenario() -> None:
    """Each with the number of its orders."""
    done = compare("list")
    assert done.returncode == 0
    for scenario in built_in_scenarios():
        assert re.search(rf"^{scenario.name} +{scenario.total_orders} ", done.stdout, re.MULTILINE)


def test_show_describes_a_scenario() -> None:
    """Stock, orders, when they are placed, and what is expected."""
    done = compare("show", "exactly-at-the-limit")
    assert done.returncode == 0
    assert "stock: 10 laptop" in done.stdout
    assert re.search(r"2 +250\.00 +0 s after at-the-limit +status COMPLETED", done.stdout)
    assert "stock expected in the end: 7 laptop" in done.stdout
    assert "every record is delivered 2 times" in compare("show", "duplicate-delivery").stdout


def test_show_describes_a_scenario_of_ones_own(tmp_path: Path) -> None:
    """What looks like markup is shown as it was written; what is not said is not made up."""
    orders = [{"item": "[/] :smile:", "price": 1, "expect": {"status": "FAILED", "reason": "unknown_item"}}]
    done = compare("show", scenario_file(tmp_path, stock={}, orders=orders, description="[bold]x[/bold]"))
    assert done.returncode == 0
    assert "mine: [bold]x[/bold]" in done.stdout
    assert "stock: none" in done.stdout
    assert re.search(r"\[/\] :smile: .* status FAILED, reason unknown_item", done.stdout)
    assert "stock expected in the end: conserved" in done.stdout


def test_schema_prints_a_schema() -> None:
    """It is that of the result document, unless that of scenario files is asked for."""
    assert json.loads(compare("schema").stdout)["title"] == "ResultDocument"
    assert json.loads(compare("schema", "scenario").stdout)["title"] == "Scenario"


def test_run_a_scenario_in_both_modes() -> None:
    """The report is on standard output, nothing on standard error, and the exit code is 0."""
    done = compare("run", "happy-path")
    assert done.returncode == 0
    assert done.stderr == ""
    assert re.search(r"▶ SagaStarted +\d+\.\d ● OrderCreated", done.stdout)
    assert "Verdict: ✔ valid (32 checks)" in done.stdout
    assert "\x1b[" not in done.stdout


@pytest.mark.parametrize(
    ("mode", "other"), [("orchestrated", "choreographed"), ("choreographed", "orchestrated")]
)
def test_run_in_one_mode(mode: str, other: str) -> None:
    """--mode leaves out the other one."""
    done = compare("run", "payment-declined", "--mode", mode)
    assert done.returncode == 0
    assert mode in done.stdout
    assert other not in done.stdout


def test_run_several_scenarios() -> None:
    """Each is reported, then all in one table; --order is for those that have so many."""
    done = compare("run", "out-of-stock", "duplicate-delivery", "--order", "2", "--verbose")
    assert done.returncode == 0
    assert done.stdout.count("Verdict: ✔ valid") == 2
    assert "order 1 of 1" in done.stdout
    assert "order 2 of 2" in done.stdout
    assert "✖ PaymentDeclined (again)" in done.stdout
    assert "All in all: ✔ valid" in done.stdout


def test_json_on_standard_output_is_nothing_but_the_document() -> None:
    """--json - gives a document by the printed schema; the report is on standard error."""
    done = compare("run", "payment-declined", "--json", "-")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    jsonschema_rs.validate(json.loads(compare("schema").stdout), document)
    assert "Verdict: ✔ valid" in done.stderr
    assert (document["schema_version"], document["verdict"]) == (1, "valid")
    assert document["setup"]["broker"] == "embedded"
    modes = document["scenarios"][0]["modes"]
    assert [mode["mode"] for mode in modes] == ["orchestrated", "choreographed"]
    for mode in modes:
        assert_evidence(mode)


def assert_evidence(mode: dict[str, Any]) -> None:
    """What a program finds of one declined order: the trace, the changes, the end."""
    trace = mode["recording"]["trace"]
    (order,) = mode["recording"]["orders"]
    assert len(trace) == mode["metrics"]["records"]
    assert [record["hop"] for record in trace] == list(range(1, len(trace) + 1))
    assert {record["order_id"] for record in trace} == {order["order_id"]}
    assert UUID.fullmatch(order["order_id"])
    assert trace[0]["causation_id"] == order["order_id"]
    assert trace[0]["body"]["item"] == "laptop"
    assert trace[-1]["type"] == "OrderFailed"
    assert all(not record["topic"].startswith("saga-lab") for record in trace)
    assert {change["to_status"] for change in mode["recording"]["changes"]} >= {
        "PENDING",
        "RELEASED",
        "FAILED",
    }
    assert (order["status"], order["reason"]) == ("FAILED", "payment_declined")


def test_both_modes_get_the_same_orders() -> None:
    """The ids are the same in both modes, so that traces can be compared order by order."""
    document = json.loads(compare("run", "last-item-race", "--json", "-").stdout)
    left, right = (
        [order["order_id"] for order in mode["recording"]["orders"]]
        for mode in document["scenarios"][0]["modes"]
    )
    assert left == right
    assert len(set(left)) == 20


def test_json_into_a_file(tmp_path: Path) -> None:
    """--json FILE leaves the report where it was."""
    file = tmp_path / "result.json"
    done = compare("run", "happy-path", "--mode", "choreographed", "--json", str(file))
    assert done.returncode == 0
    assert "Verdict" in done.stdout
    assert json.loads(file.read_text())["verdict"] == "valid"


def test_json_into_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """That is said before the run, not after it."""
    for target in (tmp_path / "no" / "x.json", tmp_path):
        done = compare("run", "happy-path", "--mode", "choreographed", "--json", str(target))
        assert done.returncode == 64
        assert f"--json {target}: can't be written: " in done.stderr
        assert not done.stdout


def test_a_defect_of_the_lab_is_no_verdict() -> None:
    """What nobody has foreseen ends with its traceback, and with the exit code of what can't be judged."""
    broken = "import compare.cli as cli; cli._run = lambda _: 1 / 0; raise SystemExit(cli.main(['run']))"
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND"]),
        (["rnu"], ["invalid choice: 'rnu'"]),
        (["run", "hapy-path"], ["No scenario is named 'hapy-path'; did you mean 'happy-path'?"]),
        (["show", "nothing.yaml"], ["nothing.yaml: no such scenario file."]),
        (["run", "--broker", "localhost"], ["'localhost' is neither `embedded` nor HOST:PORT"]),
        (["run", "--broker", "localhost:99999"], ["is neither `embedded` nor HOST:PORT"]),
        (["run", "--broker", "localhost:9092,"], ["is neither `embedded` nor HOST:PORT"]),
        (["run", "--broker", "[::1]:0"], ["is neither `embedded` nor HOST:PORT"]),
        (["run", "--order", "0"], ["'0' is no order's number; they count from 1"]),
        (["run", "--order", "one"], ["'one' is no order's number"]),
        (["run", "happy-path", "--order", "2"], ["--order 2: there are 1 at most"]),
        (["run", "--mode", "hybrid"], ["invalid choice: 'hybrid'"]),
        (["schema", "everything"], ["invalid choice: 'everything'"]),
    ],
)
def test_usage(arguments: list[str], words: list[str]) -> None:
    """What can't be done as asked is refused, with a hint, before anything is started."""
    assert_usage(compare(*arguments), *words)


def test_a_bad_scenario_file_is_a_usage_error(tmp_path: Path) -> None:
    """File, line, field and mend are printed."""
    path = tmp_path / "bad.yaml"
    path.write_text("description: x\norders:\n  - item: laptop\n    pirce: 1\n    expect: COMPLETED\n")
    assert_usage(compare("run", str(path)), f"{path}:4: orders.0.pirce: unknown field; did you mean `price`?")


def test_a_bad_setting_is_a_usage_error() -> None:
    """A variable that can't be used is named."""
    assert_usage(compare("run", "happy-path", TOPIC_PARTITIONS="none"), "TOPIC_PARTITIONS")


def test_a_broken_expectation_is_invalid(tmp_path: Path) -> None:
    """The exit code is 1, and the report says what was expected and what came."""
    orders = [{"item": "laptop", "price": 200, "expect": {"status": "FAILED", "reason": "out_of_stock"}}]
    done = compare("run", scenario_file(tmp_path, orders=orders, expect={"stock": {"laptop": 1}}))
    assert done.returncode == 1
    text = " ".join(done.stdout.split())
    assert "expected FAILED for out_of_stock, got COMPLETED" in text
    assert "laptop: expected 1 free, got 0" in text
    assert "Verdict: ✖ invalid" in text


def test_running_out_of_time_is_unknown(tmp_path: Path) -> None:
    """A timeout is never a pass: the exit code is 2, and the report says how far it came."""
    done = compare("run", scenario_file(tmp_path, timeout=0.001))
    assert done.returncode == 2
    assert "after 0.001 s, 0 of 1 orders had ended" in done.stdout
    assert "Verdict: ? unknown" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_broker_that_is_not_there() -> None:
    """It is waited for, for a while; then the exit code is 2, and one line says what to do."""
    with (
        running("run", "happy-path", "--broker", NOBODY) as by_argument,
        running("run", "happy-path", KAFKA_BOOTSTRAP_SERVERS=NOBODY) as by_environment,
    ):
        for process in (by_argument, by_environment):
            output, errors = process.communicate(timeout=LIMIT_S)
            assert process.returncode == 2
            assert output == ""
            (line,) = errors.splitlines()
            assert line.startswith(f"Could not be judged: the broker at {NOBODY} is not ready")
            assert "start it, or correct" in line


def test_the_command_line_comes_before_the_environment() -> None:
    """--broker embedded needs no broker, whatever the environment names."""
    done = compare("run", "happy-path", "--broker", "embedded", KAFKA_BOOTSTRAP_SERVERS=NOBODY)
    assert done.returncode == 0


def test_an_output_of_few_letters(tmp_path: Path) -> None:
    """Where the output has no such letters, others stand in, and nothing fails."""
    orders = [{"item": "señal", "price": 1, "count": 2, "expect": "COMPLETED"}]
    path = scenario_file(tmp_path, description="Größe", stock={"señal": 2}, orders=orders)
    done = compare("run", path, "--order", "1", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "Gr\\xf6\\xdfe" in done.stdout
    assert "* OrderCompleted" in done.stdout
    assert compare("show", path, PYTHONIOENCODING="ascii").returncode == 0


@pytest.mark.parametrize(
    "arguments", ["list", "schema", "show mixed-batch", "run happy-path", "run happy-path --json -"]
)
def test_a_reader_that_has_seen_enough(arguments: str) -> None:
    """`| head -1` ends quietly."""
    command = f"{shlex.quote(sys.executable)} -m compare {arguments} | head -1"
    done = subprocess.run(
        ["sh", "-c", command],
        check=True,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        cwd=ROOT,
        env=environment(),
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("arguments", ["simulate --seed 1 --runs 2", "sweep --saga happy"])
def test_a_document_is_kept_though_nobody_reads_the_report(arguments: str, tmp_path: Path) -> None:
    """What `| head -1` has cut off is in the file that was asked for."""
    file = tmp_path / "all.json"
    command = (
        f"{shlex.quote(sys.executable)} -m compare {arguments} --json {shlex.quote(str(file))} | head -1"
    )
    subprocess.run(
        ["sh", "-c", command],
        check=True,
        capture_output=True,
        timeout=LIMIT_S,
        cwd=ROOT,
        env=environment(),
    )
    assert json.loads(file.read_text())["verdict"] == "valid"


def test_a_reader_that_is_gone_makes_no_verdict() -> None:
    """What nobody has read was neither valid nor invalid."""
    with running("run", "happy-path") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(LIMIT_S) == 2


@contextmanager
def running(*arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a group of its own, whose processes are gone in the end whatever happens."""
    with subprocess.Popen(
        [*COMPARE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        env=environment(**more),
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def assert_nothing_is_left(group: int) -> None:
    """There is no process of this group any more."""
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


@pytest.mark.parametrize("whole_group", [False, True], ids=["the process", "its group, as Ctrl-C does"])
def test_an_interruption_ends_it_cleanly(tmp_path: Path, *, whole_group: bool) -> None:
    """It says so in a word, exits with 130, and leaves no process behind."""
    late = {"item": "laptop", "price": 1, "at": 60, "expect": "COMPLETED"}
    slow = scenario_file(tmp_path, orders=[late], timeout=90)
    with running("run", "happy-path", slow) as process:
        assert process.stdout is not None
        while "Verdict" not in process.stdout.readline():
            pass  # After the first scenario the slow one is under way; its order is due in a minute.
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130
        assert errors == "Interrupted.\n"
        assert_nothing_is_left(process.pid)


class Impatient(MetaPathFinder):
    """Presses Ctrl-C while a module is being looked for."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, fullname: str, *_: object) -> None:
        """The module is never found: not this one, and the others not here."""
        if fullname == self._module:
            raise KeyboardInterrupt


def test_an_interruption_while_it_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends as later on, and not in a traceback of whatever was being imported."""
    monkeypatch.delitem(sys.modules, "compare.cli", raising=False)
    monkeypatch.delattr(compare_package, "cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Impatient("compare.cli"), *sys.meta_path])
    assert main() == 130
    assert capsys.readouterr() == ("", "Interrupted.\n")


def test_waiting_for_a_broker_can_be_interrupted() -> None:
    """Nothing has to be cleaned up on a broker that never answered."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with running("run", "happy-path", "--broker", address) as process:
            connection, _ = mute.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=LIMIT_S)
                assert process.returncode == 130
                assert errors == "Interrupted.\n"
