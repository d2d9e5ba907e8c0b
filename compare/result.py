"""The result document, which `--json` writes; its JSON Schema is `docs/result.schema.json`."""

from __future__ import annotations

import platform
from typing import Any, Final, Literal

from pydantic import Field

from common import __version__
from common.settings import Settings
from compare.checks import Finding, Verdict, judge, verdict_of
from compare.metrics import Metrics, measure
from compare.recording import Frozen, Recording
from compare.scenario import Scenario

SCHEMA_VERSION: Final = 1
"""Raised by a change that can break a reader; fields may be added without."""


class ModeResult(Frozen):
    """One scenario in one mode: what happened, what it cost, and whether it was right."""

    mode: str
    verdict: Verdict
    metrics: Metrics
    findings: tuple[Finding, ...]
    recording: Recording


class ScenarioResult(Frozen):
    """One scenario in the modes that it was replayed in."""

    scenario: dict[str, Any] = Field(description="the scenario file's content, defaults filled in")
    verdict: Verdict
    modes: tuple[ModeResult, ...]


class Setup(Frozen):
    """What both modes had in common beside the code."""

    lab_version: str
    python: str
    platform: str
    broker: str = Field(description="`embedded`, or the addresses that were given")
    engine: Literal["in process", "processes"] = Field(
        "in process",
        description="whether all services ran in the lab's process, or each in one of its own",
    )
    partitions: int
    fetch_max_wait_ms: int
    payment_limit_cents: int


class ResultDocument(Frozen):
    """All that a run has to say."""

    schema_version: Literal[1] = SCHEMA_VERSION
    setup: Setup
    verdict: Verdict
    scenarios: tuple[ScenarioResult, ...]


def mode_result(scenario: Scenario, recording: Recording) -> ModeResult:
    """Measure and judge a recording."""
    findings = judge(scenario, recording)
    return ModeResult(
        mode=recording.mode,
        verdict=verdict_of(findings),
        metrics=measure(recording),
        findings=findings,
        recording=recording,
    )


def scenario_result(scenario: Scenario, recordings: list[Recording]) -> ScenarioResult:
    """Put the modes of one scenario together."""
    modes = tuple(mode_result(scenario, recording) for recording in recordings)
    return ScenarioResult(
        scenario=scenario.document(), verdict=verdict_of(mode.verdict for mode in modes), modes=modes
    )


def setup(broker: str, fetch_max_wait_ms: int, settings: Settings, *, processes: bool = False) -> Setup:
    """Describe this machine and these settings."""
    return Setup(
        lab_version=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        broker=broker,
        engine="processes" if processes else "in process",
        partitions=settings.topic_partitions,
        fetch_max_wait_ms=fetch_max_wait_ms,
        payment_limit_cents=settings.rules.payment_limit_cents,
    )
