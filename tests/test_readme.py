"""The README keeps its word: its commands print what it shows, and all that it names exists.

Each rule is a function from text to faults, so that a planted mistake can show that the rule finds it.

In a ```console or ```bash block, a line that starts with `$ ` is a command, and the lines up to the next are
its output; a line of `...` stands for any number of lines. Those that begin with `python -m compare` or are
`make help` are run in a copy of the project, so what they write stays there; one without output must succeed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from common.settings import Settings
from compare.scenario_files import find_scenario

ROOT: Final = Path(__file__).parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
LIMIT_S: Final = 100

_BLOCK: Final = re.compile(r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL: Final = {"console", "bash", "sh"}
_ELISION: Final = re.compile(r"^\s*(?:\.\.\.|…)\s*$", re.MULTILINE)
_RUN: Final = re.compile(r"python -m compare\b|make help$")
_MAKE: Final = re.compile(r"(?:^|[`$;&|])\s*make ([a-z][a-z-]*)", re.MULTILINE)
_INLINE: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_FILE: Final = re.compile(r"[\w.-]+(/[\w.-]+)*(/|\.(py|ya?ml|md|json|toml|txt|cfg))|Makefile|Dockerfile")
_SETTING: Final = re.compile(r"^\|\s*`([A-Z][A-Z0-9_]+)`\s*\|", re.MULTILINE)

_VARIES: Final = (
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b\d+@\d+\b"), "PLACE"),
    (re.compile(r"\b[\d.]+(?= ms\b)|(?<=at most )[\d.]+|\b\d+\.\d(?= [▶●↩✖>*<x] )"), "TIME"),
    (re.compile(r"Python \d+\.\d+\S*, [^\n]*?(?=\.\s|\.$)"), "Python VERSION, PLATFORM"),
    (re.compile(r"\s+"), " "),
)


class Example(NamedTuple):
    """A command, and the output that is shown below it."""

    command: str
    output: str


def examples(text: str) -> list[Example]:
    """The commands of the blocks, with their outputs."""
    found: list[Example] = []
    for block in _BLOCK.finditer(text):
        if block["kind"] in _SHELL - {"sh"}:
            _, *parts = re.split(r"^\$ ", block["body"], flags=re.MULTILINE)
            found += (Example(*map(str.strip, part.partition("\n")[::2])) for part in parts)
    return found


def normal(output: str) -> str:
    """The output without what differs from run to run and from machine to machine."""
    for pattern, same in _VARIES:
        output = pattern.sub(same, output)
    return output.strip()


def output_faults(shown: str, real: str) -> Iterator[str]:
    """A real output other than the one that is shown; what is left out may be anything."""
    parts = _ELISION.split(shown)
    if not re.fullmatch(".*".join(re.escape(normal(part)) for part in parts), normal(real)):
        yield f"it prints:\n{real}"


def target_faults(text: str, makefile: str) -> Iterator[str]:
    """`make` targets that a block or a code span names, but the Makefile hasn't got."""
    blocks = [block["body"] for block in _BLOCK.finditer(text) if block["kind"] in _SHELL]
    code = "\n".join([*blocks, *(f"`{span}" for span in _INLINE.findall(_BLOCK.sub("", text)))])
    for target in dict.fromkeys(_MAKE.findall(code)):
        if not re.search(rf"^{target}:", makefile, re.MULTILINE):
            yield f"the Makefile has no target {target!r}"


def link_faults(text: str, root: Path) -> Iterator[str]:
    """Relative links to nothing, be it a file or a heading of this text."""
    prose = _BLOCK.sub("", text)
    headings = {_anchor(line.lstrip("# ")) for line in prose.splitlines() if line.startswith("#")}
    for link in _LINK.finditer(prose):
        path, _, anchor = link["target"].partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        if path and not (root / path).exists():
            yield f"there is no {path}, which is linked to"
        if not path and anchor not in headings:
            yield f"there is no heading #{anchor}, which is linked to"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def file_faults(text: str, root: Path) -> Iterator[str]:
    """Files and folders that a code span names, but the project hasn't got, by path or by name."""
    packages = (root / name for name in ("common", "orchestrated", "choreographed", "compare"))
    names = {path.name for package in packages for path in package.rglob("*.py")}
    for span in dict.fromkeys(_INLINE.findall(_BLOCK.sub("", text))):
        if _FILE.fullmatch(span) and span not in names and not (root / span).exists():
            yield f"there is no {span}"


def setting_faults(text: str) -> Iterator[str]:
    """Variables of the table that the lab doesn't read, and such as it reads but the table hasn't got."""
    told = set(_SETTING.findall(text))
    known = {name.upper() for name in Settings.model_fields}
    yield from (f"{name} is no setting" for name in sorted(told - known))
    yield from (f"{name} is missing from the table" for name in sorted(known - told))


def scenarios(text: str) -> list[str]:
    """The YAML blocks that are scenario files."""
    blocks = (block["body"] for block in _BLOCK.finditer(text) if block["kind"] in {"yaml", "yml"})
    return [block for block in blocks if re.search(r"^orders:", block, re.MULTILINE)]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder in which the project seems to be: what is written there doesn't reach it."""
    folder = tmp_path / "project"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the command prints in a terminal of 80 columns, on both outputs."""
    return subprocess.run(
        ["sh", "-c", re.sub(r"^python\b", shlex.quote(sys.executable), command)],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=LIMIT_S,
        cwd=folder,
        env=_environment(os.environ),
    )


def _environment(real: Mapping[str, str]) -> dict[str, str]:
    unwanted = {name.upper() for name in Settings.model_fields} | {"MAKEFLAGS", "MAKELEVEL", "FORCE_COLOR"}
    kept = {name: value for name, value in real.items() if name not in unwanted}
    return kept | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}


RUNNABLE: Final = [example for example in examples(README) if _RUN.match(example.command)]


def test_the_readme_has_a_command_to_run() -> None:
    """There is at least one example that these tests run."""
    assert RUNNABLE


@pytest.mark.live
@pytest.mark.timeout(120)
@pytest.mark.parametrize("example", RUNNABLE, ids=lambda example: example.command)
def test_a_command_prints_what_is_shown(example: Example, copy: Path) -> None:
    """What a reader sees below a command is what the command prints."""
    done = run(example.command, copy)
    if example.output:
        assert list(output_faults(example.output, done.stdout)) == []
    else:
        assert done.returncode == 0, done.stdout


def test_every_make_target_exists() -> None:
    """Whatever a reader is told to `make` can be made."""
    assert list(target_faults(README, (ROOT / "Makefile").read_text())) == []


def test_every_link_leads_somewhere() -> None:
    """No relative link is dead."""
    assert list(link_faults(README, ROOT)) == []


def test_every_file_exists() -> None:
    """No file is named that isn't there."""
    assert list(file_faults(README, ROOT)) == []


def test_every_setting_is_in_the_table() -> None:
    """The table has the settings that there are, and no others."""
    assert list(setting_faults(README)) == []


def test_every_scenario_is_one(tmp_path: Path) -> None:
    """A scenario that a reader copies is read without a fault."""
    for number, content in enumerate(scenarios(README)):
        path = tmp_path / f"from-the-readme-{number}.yaml"
        path.write_text(content)
        assert find_scenario(str(path)).orders


PLANTED: Final = """\
# Lab
```console
$ python -m compare run happy-path
order 1 of 1: 01a20a70-94e8-717b-896f-7fe887c55834
   27.8 ▶ ProcessPayment      3.1 ● OrderCreated
        saga.commands 0@6
...
time 79.1 ms, at most 212.7
Python 3.11.7, Linux x86_64.
$ python -m compare list
```
Then `make compare`, see [the law](LICENSE) and [below](#its-end), `common/core.py`, `saga.py` and `common/`.

```sh
make help  # what there is
```
| variable | default |
|---|---|
| `KAFKA_BOOTSTRAP_SERVERS` | none |

## Its end
"""
REAL: Final = """\
order 1 of 1: 01a20a70-ada6-733e-bed3-bf377b9d5eff
  127.8 ▶ ProcessPayment    13.1 ● OrderCreated  \n        saga.commands 0@0
anything
time 9.1 ms, at most 1.5
Python 3.13.1, Darwin arm64.
"""


def shown(text: str) -> list[str]:
    """The faults of the first example of a text, beside the real output."""
    return list(output_faults(examples(text)[0].output, REAL))


def targets(text: str) -> list[str]:
    """The faults of a text's targets, beside a small Makefile."""
    return list(target_faults(text, "help:\ncompare: x\n"))


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        (shown, "order 1 of 1", "order 1 of 2"),
        (shown, "● OrderCreated", "✖ OrderCreated"),
        (shown, "...\n", ""),
        (shown, "saga.commands", "saga.events"),
        (shown, "...\ntime", "...\nnothing of this\n...\ntime"),
        (shown, "x86_64.\n", "x86_64.\nand more\n"),
        (targets, "make compare", "make believe"),
        (targets, "make help", "make hel"),
        (lambda text: list(link_faults(text, ROOT)), "(LICENSE)", "(LICENCE)"),
        (lambda text: list(link_faults(text, ROOT)), "#its-end", "#the-end"),
        (lambda text: list(file_faults(text, ROOT)), "common/core.py", "common/cores.py"),
        (lambda text: list(file_faults(text, ROOT)), "`saga.py`", "`sagaz.py`"),
        (lambda text: list(file_faults(text, ROOT)), "`common/`", "`commons/`"),
    ],
)
def test_a_planted_mistake_is_found(rule: Callable[[str], list[str]], old: str, new: str) -> None:
    """Each rule accepts a right text, and finds one thing wrong in it."""
    assert rule(PLANTED) == []
    assert PLANTED.count(old) == 1
    assert len(rule(PLANTED.replace(old, new))) == 1


def test_planted_settings_are_found() -> None:
    """A table without a setting, and one with a setting that nobody reads, are both wrong."""
    table = "\n".join(f"| `{name.upper()}` | default |" for name in Settings.model_fields)
    assert list(setting_faults(table)) == []
    assert list(setting_faults(table + "\n| `NO_SUCH` | |")) == ["NO_SUCH is no setting"]
    without = table.replace("DATA_DIR", "DATA_DIRS")
    assert list(setting_faults(without)) == ["DATA_DIRS is no setting", "DATA_DIR is missing from the table"]


def test_examples_are_found() -> None:
    """Commands and outputs are told apart, and a command may have no output."""
    first, second = examples(PLANTED)
    assert first.command == "python -m compare run happy-path"
    assert first.output.endswith("Linux x86_64.")
    assert second == Example("python -m compare list", "")


def test_scenarios_are_found() -> None:
    """Of the YAML blocks, those with orders are scenarios."""
    text = "```yaml\na: 1\n```\n\n```yaml\ndescription: x\norders: []\n```\n"
    assert scenarios(text) == ["description: x\norders: []\n"]
