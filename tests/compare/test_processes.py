"""Each service in a process of its own: the same comes of every fault, and the faults are real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any, Final

import pytest

from common.envelope import Outgoing
from common.errors import BrokerError, LabError
from common.runner import BrokerLink
from common.settings import Settings
from compare.checks import Verdict
from compare.child import Child
from compare.engine import Engine, MakeEngine, Surroundings
from compare.faults import Fault
from compare.injection import Struck
from compare.lab import EMBEDDED, MODES, Lab, open_broker
from compare.lines import packed, unpacked
from compare.plan import plan
from compare.processes import Processes
from compare.result import ScenarioResult
from compare.scenario import Scenario
from compare.scenario_files import find_scenario
from compare.services import Services
from compare.wire import Ends
from tests.compare.recordings import CHOREOGRAPHED, ORCHESTRATED, PAID, scenario
from tests.compare.test_cli import LIMIT_S, ROOT, compare, running, scenario_file
from tests.compare.test_parity import ends
from tests.live.conftest import alive, command_line, descendants, until

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

FAULTS: Final = [
    "broker-outage-mid-compensation",
    "crash-after-commit-before-publish",
    "lost-reply",
    "orchestrator-crash-with-replies-waiting",
    "payment-down-then-back",
    "undo-retried-by-operator",
]
"""Each kind of fault and of request: the others differ in the domain only, and each process has to start."""

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux about processes")


async def replayed(
    told: Scenario, make_engine: MakeEngine, modes: Collection[str] = MODES.keys()
) -> ScenarioResult:
    """The scenario on an embedded broker."""
    settings = Settings()
    async with open_broker(EMBEDDED, settings) as broker:
        return await Lab(broker, settings, modes, lambda *_: None, make_engine).replay(told)


def state_of(pid: int) -> str | None:
    """The letter that Linux has for what the process does; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def services_of(pid: int) -> list[int]:
    """The services' processes that this one has started."""
    return [child for child in descendants(pid) if "compare.host" in command_line(child)]


@pytest.mark.parametrize("name", FAULTS)
async def test_the_same_comes_of_a_fault(name: str) -> None:
    """Every order ends as it does where all services are in one process; the killed are new processes."""
    told = find_scenario(name)
    engines: list[Processes] = []

    def make_engine(around: Surroundings, knows: Ends) -> Engine:
        engines.append(Processes(around, knows))
        return engines[-1]

    apart, together = await replayed(told, make_engine), await replayed(told, Services)
    for left, right in zip(apart.modes, together.modes, strict=True):
        assert left.verdict is Verdict.VALID, left.findings
        assert ends(told, left.recording) == ends(told, right.recording)
        assert left.recording.stock == right.recording.stock
        struck = [(one.kind, one.service, one.boundary) for one in left.recording.strikes]
        assert struck == [(one.kind, one.service, one.boundary) for one in right.recording.strikes]
        assert all(one.over_ms is not None for one in left.recording.strikes)
    for engine, mode in zip(engines, apart.modes, strict=True):
        killed = [one.service for one in mode.recording.strikes if one.kind == Fault.CRASH]
        for service, child in engine.children.items():
            assert len(set(child.pids)) == 1 + killed.count(service)


@needs_proc
async def test_a_stop_is_a_stop() -> None:
    """While the fault lasts, the process is one that the operating system has stopped."""
    seen: set[str | None] = set()

    class Watched(Processes):
        """Looks at the process while it is to stand still."""

        def begin(self, work: Coroutine[Any, Any, None], struck: Struck | None = None) -> None:
            async def watched() -> None:
                working = asyncio.create_task(work)
                while not working.done():
                    seen.add(state_of(self.children["payment"].pids[-1]))
                    await asyncio.wait({working}, timeout=0.05)

            super().begin(watched(), struck)

    result = await replayed(find_scenario("payment-down-then-back"), Watched, ["choreographed"])
    assert result.verdict is Verdict.VALID
    assert "T" in seen


async def test_a_process_that_nobody_has_killed_on_purpose_ends_the_replay() -> None:
    """It is told at once, and the verdict is unknown."""

    class Unlucky(Processes):
        """One of its processes is killed by somebody else."""

        async def start(self) -> None:
            await super().start()
            self.children["payment"].send(signal.SIGKILL)

    (mode,) = (await replayed(scenario(PAID, timeout=60), Unlucky, ["choreographed"])).modes
    assert mode.verdict is Verdict.UNKNOWN
    unfinished = "choreographed/payment has died: its process has ended with exit code -9"
    assert mode.recording.unfinished == unfinished


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("raise SystemExit(3)", "its process has ended with exit code 3"),
        ('print(\'{"say": "died", "error": "no till"}\')', "no till"),
    ],
    ids=["in silence", "with a word"],
)
async def test_a_process_that_cannot_start(tmp_path: Path, program: str, told: str) -> None:
    """Why is told, by itself if it can."""
    prepared = plan(scenario(PAID), Settings().rules)
    around = Surroundings(prepared, CHOREOGRAPHED, BrokerLink("127.0.0.1:1", 1), tmp_path, None)
    engine = Processes(around, _NoEnds(), [sys.executable, "-c", program])
    try:
        with pytest.raises(LabError, match=told):
            await engine.start()
    finally:
        await engine.stop()


async def test_processes_that_are_not_ready_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are late are named."""
    monkeypatch.setattr("compare.processes._START_LIMIT_S", 0.3)
    prepared = plan(scenario(PAID), Settings().rules)
    around = Surroundings(prepared, ORCHESTRATED, BrokerLink("127.0.0.1:1", 1), tmp_path, None)
    engine = Processes(around, _NoEnds(), [sys.executable, "-c", "input(); input()"])
    try:
        with pytest.raises(BrokerError, match=r"not ready within 0\.3 s \(orchestrated/order, "):
            await engine.start()
    finally:
        await engine.stop()


async def test_what_was_asked_of_a_process_that_died_is_asked_of_the_next(tmp_path: Path) -> None:
    """The answer comes from the first that lives long enough; whoever has asked doesn't notice."""
    lives = tmp_path / "lives"
    program = f"""
import os, signal, sys
from pathlib import Path
lives = Path({str(lives)!r})
lives.write_text(lives.read_text() + "x" if lives.exists() else "x")
input()
print('{{"say": "ready"}}', flush=True)
number = eval(input().replace("null", "None"))["id"]
if len(lives.read_text()) < 3:
    print('{{"say": "struck"}}', flush=True)
    print('{{"say": "half a li', end="", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
print('{{"say": "answer", "id": %d, "accepted": true, "error": null}}' % number, flush=True)
input()
"""
    command = [sys.executable, "-c", program]
    child = Child("choreographed/order", command, lambda: "{}", lambda child, _: child.dies(0.0))
    child.start()
    try:
        assert (await child.ask("request"))["accepted"]
        assert len(set(child.pids)) == 3
    finally:
        await child.stop()


def test_a_host_without_instructions_ends() -> None:
    """The lab has gone before it said anything."""
    done = subprocess.run(
        [sys.executable, "-m", "compare.host"], input="", check=False, timeout=LIMIT_S, cwd=ROOT
    )
    assert done.returncode == 0


@pytest.mark.parametrize("value", [None, b"", b"\xff\x00 no text", b'{"a": 1}'])
def test_records_survive_the_way_between_processes(value: bytes | None) -> None:
    """Whatever bytes they have."""
    record = Outgoing("1", "orders.events", 2, b"key", value, (("ce_type", b"X"), ("odd", b"\xfe")))
    assert unpacked(json.loads(json.dumps(packed([record, record])))) == [record, record]


def standing_still(folder: Path) -> str:
    """A scenario in which the Payment service stands still for a minute."""
    faults = [{"fault": "stop", "step": "pay", "seconds": 60}]
    recovery = {"step_timeout": 60, "order_timeout": 60}
    return scenario_file(folder, faults=faults, recovery=recovery, timeout=90)


def until_one_stands_still(process: subprocess.Popen[str]) -> list[int]:
    """Wait until one of the services' processes is stopped, and return them all."""
    until(lambda: any(state_of(pid) == "T" for pid in services_of(process.pid)), what="one stands still")
    return services_of(process.pid)


@needs_proc
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_the_services_do_not_outlive_the_lab(tmp_path: Path, death: signal.Signals) -> None:
    """However it ends, all their processes end with it, even the one that stands still."""
    arguments = ("run", standing_still(tmp_path), "--processes", "--mode", "choreographed")
    with running(*arguments) as process:
        services = until_one_stands_still(process)
        assert len(services) == 3
        os.killpg(process.pid, death)
        _, errors = process.communicate(timeout=LIMIT_S)
        if death is signal.SIGINT:
            assert (process.returncode, errors) == (130, "Interrupted.\n")
        until(lambda: not any(alive(pid) for pid in services), what="they have ended")


def test_the_document_tells_how_the_services_ran() -> None:
    """One of a run in processes is told from one in a single process."""
    done = compare("run", "happy-path", "--processes", "--mode", "choreographed", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["setup"]["engine"] == "processes"


class _NoEnds:
    """No order ever ends."""

    async def until_ended(self, order_id: str) -> None:
        """Wait for the end of an order."""
        del order_id
        await asyncio.Event().wait()
