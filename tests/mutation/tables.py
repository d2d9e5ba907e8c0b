"""Mutants of the tables: each entry left out, each state and number exchanged, one at a time.

`mutmut` changes what is in functions. What the deciders and the saga are made of is mostly in tables at the
top of a module, so this does the same for those: it runs tests on a copy of the project, in a process for
each mutant, and lists what no test has noticed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import math
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
MODULES: Final = (
    "common/domain/inventory.py",
    "common/domain/order.py",
    "common/domain/payment.py",
    "common/process_table.py",
    "common/recovery.py",
    "orchestrated/saga.py",
    "orchestrated/orchestrator.py",
    "choreographed/__init__.py",
    "choreographed/inventory.py",
    "choreographed/order.py",
    "choreographed/payment.py",
    "choreographed/topics.py",
    "common/core.py",
    "common/batch.py",
    "common/dead_letters.py",
)
FIRST: Final = ("domain", "saga", "process_table", "reactions", "wiring")
THEN: Final = ("clean_up", "dead_letters")
"""The files of tests/unit that run: the second lot only if the first has noticed nothing."""
OPTIONS: Final = (
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "--tb=no",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",  # of the plugins that are loaded below
    "-m",
    "not kafka and not live and not postgres",
)
PRELOADED: Final = (
    "aiokafka",
    "confluent_kafka",
    "fastapi",
    "hypothesis",
    "msgspec",
    "pydantic_settings",
    "sqlalchemy",
)
"""What takes long to import, and is none of this project's."""
OUTCOMES: Final = {0: "survived", 1: "killed", -signal.SIGALRM: "timeout"}
"""By exit status; with any other one the tests could not even begin, as the module refuses to be imported."""
LONGEST_S: Final = 120


def tops(tree: ast.Module) -> Iterator[ast.stmt]:
    """What runs when the module is imported, but for imports, functions and types."""
    for statement in tree.body:
        yield from statement.body if isinstance(statement, ast.ClassDef) else (statement,)


def places(tree: ast.Module) -> Iterator[tuple[ast.expr, str, int]]:
    """Each expression with a field and an index in it that a mutant changes."""
    for statement in tops(tree):
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            continue
        for node in ast.walk(statement.value):
            match node:
                case ast.Dict():
                    yield from ((node, "keys", index) for index in range(len(node.keys)))
                case ast.Tuple() | ast.Set() | ast.List():
                    yield from ((node, "elts", index) for index in range(len(node.elts)))
                case ast.Call(func=ast.Name(id="late")):
                    yield from ((node, "args", index) for index in range(1, len(node.args)))
                case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                    yield node, "value", 0
                case ast.Attribute(
                    value=ast.Name(id="S" | "SagaState" | "OrderStatus" | "Recovery" | "Step")
                ):
                    yield node, "attr", 0


def others(tree: ast.Module, node: ast.Attribute) -> str:
    """Another member of the same class that the module names."""
    assert isinstance(node.value, ast.Name)
    name = node.value.id
    named = {
        one.attr
        for one in ast.walk(tree)
        if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id == name
    }
    members = sorted(named)
    return members[(members.index(node.attr) + 1) % len(members)]


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """What each mutant changes, and its source."""
    original = ast.parse(source)
    for number in range(len(list(places(original)))):
        tree = copy.deepcopy(original)
        node, field, index = list(places(tree))[number]
        line, before = node.lineno, ast.unparse(node)
        match node:
            case ast.Dict():
                key = node.keys.pop(index)
                line = key.lineno if key else line
                value = node.values.pop(index)
                what = f"without {ast.unparse(key) if key else '**'}: {ast.unparse(value)}"
            case ast.Constant(value=int() | float() as value):
                node.value = value + 1
                what = f"{before} to {ast.unparse(node)}"
            case ast.Attribute():
                node.attr = others(tree, node)
                what = f"{before} to {ast.unparse(node)}"
            case _:
                gone = getattr(node, field).pop(index)
                line, what = gone.lineno, f"without {ast.unparse(gone)}"
        yield f"{line}: {what}", ast.unparse(ast.fix_missing_locations(tree))


def exit_status(folder: Path, files: Sequence[str]) -> int:
    """What pytest says of the project in this folder, in a process of its own."""
    child = os.fork()
    if not child:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        signal.alarm(LONGEST_S)
        tests = [f"tests/unit/test_{name}.py" for name in files]
        os._exit(pytest.main([*OPTIONS, f"--rootdir={folder}", *tests]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(folder: Path) -> str:
    """What becomes of the mutant in this folder."""
    status = exit_status(folder, FIRST) or exit_status(folder, THEN)
    return OUTCOMES.get(status, "refused")


def tell(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Try the mutants of the modules that are named, or of all, and tell what became of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("modules", nargs="*", default=MODULES)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of each module's mutants, drawn (default: all)"
    )
    parser.add_argument("--seed", type=int, default=1, help="what the sample is drawn with (default: 1)")
    arguments = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("common", "orchestrated", "choreographed", "compare", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        if exit_status(folder, FIRST) or exit_status(folder, THEN):
            sys.exit("The tests fail without any mutant.")
        for module in arguments.modules:
            found: Counter[str] = Counter()
            source = (ROOT / module).read_text()
            every = list(mutants(source))
            drawn = Random(arguments.seed).sample(every, math.ceil(len(every) * arguments.share))
            for what, mutant in drawn:
                (folder / module).write_text(mutant)
                found[result := outcome(folder)] += 1
                if result in {"survived", "timeout"}:
                    tell(f"{result}  {module}:{what}")
            (folder / module).write_text(source)
            tell(f"{module}  {found.total()} of {len(every)} mutants: {dict(sorted(found.items()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
