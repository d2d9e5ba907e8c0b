"""The published schemas are those that the code has, and real documents and files fit them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
import yaml

from common.settings import Settings
from compare.result import ResultDocument, setup
from compare.scenario_files import built_in_scenarios
from tests.compare.recordings import DECLINED, PAID, both, scenario

ROOT: Final = Path(__file__).parents[2]
PUBLISHED: Final = ["result", "scenario", "simulation", "sweep", "ablation"]
SCENARIOS: Final = sorted((ROOT / "compare" / "scenarios").iterdir())


def published(of: str) -> dict[str, Any]:
    """A schema as `docs/` has it."""
    schema: dict[str, Any] = json.loads((ROOT / "docs" / f"{of}.schema.json").read_text())
    return schema


@pytest.mark.parametrize("of", PUBLISHED)
def test_the_published_schema_is_the_codes_own(of: str) -> None:
    """What `docs/` promises is what the program prints."""
    command = [sys.executable, "-m", "compare", "schema", of]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    mend = f"python -m compare schema {of} > docs/{of}.schema.json"
    assert (ROOT / "docs" / f"{of}.schema.json").read_text() == printed, f"it has changed; run: {mend}"


@pytest.mark.parametrize("of", PUBLISHED)
def test_a_published_schema_is_a_schema(of: str) -> None:
    """Any validator can use it."""
    assert jsonschema_rs.meta.is_valid(published(of))


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_a_built_in_scenario_file_fits_the_schema(file: Path) -> None:
    """An editor that uses the schema accepts the scenarios that the lab ships with."""
    jsonschema_rs.validate(published("scenario"), yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    "mistake",
    [
        {"price": 0},
        {"price": 1_000_001},
        {"quantity": 0},
        {"count": 5001},
        {"expect": "DONE"},
        {"expect": {"status": "DONE"}},
        {"expect": {"completed": -1}},
        {"cuont": 1},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_reader_refuses(mistake: dict[str, object]) -> None:
    """An editor that uses the schema marks the mistakes of a single field."""
    order = {"item": "laptop", "price": 1, "expect": "COMPLETED", **mistake}
    content = {"description": "A mistake.", "stock": {"laptop": 1}, "orders": [order]}
    assert not jsonschema_rs.is_valid(published("scenario"), content)
    content["stock"] = {"laptop": -1}
    content["orders"] = []
    assert len(list(jsonschema_rs.iter_errors(published("scenario"), content))) == 2


def test_a_filled_in_scenario_fits_the_schema() -> None:
    """So does what a result document says of a scenario."""
    for one in built_in_scenarios():
        jsonschema_rs.validate(published("scenario"), one.document())


def test_a_result_document_fits_the_schema() -> None:
    """A document that the code makes is one by the published schema; one without its verdict is none."""
    results = (both(scenario(PAID, DECLINED, deliveries=2)),)
    document = ResultDocument(
        setup=setup("embedded", 2, Settings()), verdict=results[0].verdict, scenarios=results
    )
    content = json.loads(document.model_dump_json())
    jsonschema_rs.validate(published("result"), content)
    del content["verdict"]
    assert not jsonschema_rs.is_valid(published("result"), content)
