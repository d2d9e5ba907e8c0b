"""The TLA+ model beside the code: what TLC finds, with every protection and without each of them."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[1]
_MODEL: Final = _ROOT / "docs" / "tla"
_POM: Final = _MODEL / "pom.xml"
_CACHE: Final = _ROOT / ".cache" / "tla"
_RESOLVE_SECONDS: Final = 300
_CHECK_SECONDS: Final = 120
_NOTHING: Final = "No error has been found"
_VIOLATED: Final = re.compile(r"(?:Invariant|Action property) (\S+) is violated")
_JVM: Final = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_FOUND: Final = {
    "Orchestrated-all-on": _NOTHING,
    "Choreographed-all-on": _NOTHING,
    "Orchestrated-impatient": _NOTHING,
    "Choreographed-impatient": _NOTHING,
    "Orchestrated-race": _NOTHING,
    "Choreographed-race": _NOTHING,
    "Orchestrated-no-inbox": _NOTHING,
    "Choreographed-no-inbox": _NOTHING,
    "Orchestrated-no-inbox-nor-stored-outcomes": "StockIsConserved",
    "Choreographed-no-inbox-nor-stored-outcomes": "StockIsConserved",
    "Orchestrated-no-stored-outcomes": "StockIsConserved",
    "Choreographed-no-stored-outcomes": "StockIsConserved",
    "Orchestrated-no-stored-outcomes-asked-once": _NOTHING,
    "Choreographed-no-stored-outcomes-asked-once": _NOTHING,
    "Orchestrated-no-attempts": "StuckOnlyIfBroken",
    "Choreographed-no-attempts": "StuckOnlyIfBroken",
    "Orchestrated-no-tombstones": "FailedHoldsNothing",
    "Choreographed-no-tombstones": "FailedHoldsNothing",
    "Orchestrated-no-tombstones-nothing-lost": _NOTHING,
    "Choreographed-no-tombstones-nothing-lost": "FailedHoldsNothing",
    "Orchestrated-no-key-ordering": _NOTHING,
    "Choreographed-no-key-ordering": _NOTHING,
    "Orchestrated-no-key-ordering-nor-tombstones": "FailedHoldsNothing",
    "Choreographed-no-key-ordering-nor-tombstones": "FailedHoldsNothing",
    "Orchestrated-no-deadlines": "EveryOrderEnds",
    "Choreographed-no-deadlines": "EveryOrderEnds",
}
"""By configuration: what TLC is to find."""
_ONLY_BY_HAND: Final = {"Orchestrated-broken", "Choreographed-broken"}
"""They take minutes."""


def _resolve_jars() -> Path:
    """The folder of the jars; it appears all at once, so that what is there is complete."""
    jars = _CACHE / hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]
    if jars.exists():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        pytest.skip("Maven is not installed, and TLC is not in the cache")
    unfinished = jars.with_name(f"{jars.name}-{os.getpid()}")
    goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}")
    done = subprocess.run(
        [maven, "-q", "-B", "-f", str(_POM), *goal],
        check=False,
        capture_output=True,
        text=True,
        timeout=_RESOLVE_SECONDS,
    )
    if done.returncode:
        pytest.skip(f"Maven could not resolve TLC: {done.stdout[-300:]}")
    unfinished.rename(jars)
    return jars


@pytest.fixture(scope="session")
def tlc() -> list[str]:
    """The command that runs TLC."""
    java = shutil.which("java")
    if java is None:
        pytest.skip("TLC needs Java, which is not installed")
    return [java, *_JVM, "-cp", f"{_resolve_jars()}{os.sep}*", "tlc2.TLC"]


@pytest.mark.kafka  # for it needs the same: Java and Maven
@pytest.mark.timeout(_RESOLVE_SECONDS + _CHECK_SECONDS)
@pytest.mark.parametrize("configuration", _FOUND)
def test_tlc_finds_what_the_model_says(configuration: str, tlc: list[str], tmp_path: Path) -> None:
    """Each configuration holds, or its first counterexample breaks the property that README.md names."""
    module = configuration.partition("-")[0]
    arguments = ("-workers", "1", "-metadir", str(tmp_path), "-config", f"{configuration}.cfg", module)
    done = subprocess.run(
        [*tlc, *arguments],
        cwd=_MODEL,
        check=False,
        capture_output=True,
        text=True,
        timeout=_CHECK_SECONDS,
    )
    violated = _VIOLATED.search(done.stdout)
    found = violated[1] if violated else _NOTHING if _NOTHING in done.stdout else done.stdout[-2000:]
    assert found == _FOUND[configuration]


def test_every_configuration_is_checked() -> None:
    """A configuration that nobody runs would tell nothing."""
    assert {file.stem for file in _MODEL.glob("*.cfg")} == _FOUND.keys() | _ONLY_BY_HAND
