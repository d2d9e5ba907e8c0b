"""Reading scenario files, built in or the user's own; errors name file, line, field and mend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from reprlib import Repr
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from common.errors import ConfigurationError
from compare.faults import FaultSpec
from compare.scenario import (
    CancelSpec,
    ExpectedEnd,
    ExpectedOrder,
    ExpectedPerMode,
    ExpectedSplit,
    OrderSpec,
    RecoverySpec,
    Scenario,
)

_BUILT_IN: Final = files("compare") / "scenarios"
SUFFIXES: Final = (".yaml", ".yml")
_SHORT: Final = Repr()
_SHORT.maxlevel = 1
_SHORT.maxstring = 60


class ScenarioError(ConfigurationError):
    """A scenario can't be found, or its file can't be used."""


def built_in_scenarios() -> list[Scenario]:
    """All that the lab ships with, in the order in which they are best read."""
    scenarios = (_load(file, file.name) for file in _BUILT_IN.iterdir() if file.name.endswith(SUFFIXES))
    return sorted(scenarios, key=lambda scenario: (scenario.total_orders, scenario.deliveries, scenario.name))


def find_scenario(name_or_path: str) -> Scenario:
    """The built-in scenario of that name, or the one in that file.

    Raises:
        ScenarioError: there is neither, or the file isn't a valid scenario.
    """
    if name_or_path.endswith(SUFFIXES) or "/" in name_or_path:
        return _load(Path(name_or_path), name_or_path)
    built_in = {Path(file.name).stem: file for file in _BUILT_IN.iterdir()}
    if name_or_path in built_in:
        return _load(built_in[name_or_path], built_in[name_or_path].name)
    close = get_close_matches(name_or_path, built_in, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the built-in ones are {', '.join(sorted(built_in))}."
    message = f"No scenario is named {name_or_path!r}; {hint} For a file of your own, give its path (*.yaml)."
    raise ScenarioError(message)


def _load(file: Traversable | Path, shown_as: str) -> Scenario:
    text = _text(file, shown_as)
    try:
        node = yaml.compose(text, Loader=_ExactLoader)
        data = yaml.load(text, Loader=_ExactLoader)  # noqa: S506 - _ExactLoader is a SafeLoader
    except yaml.YAMLError as error:
        raise ScenarioError(_yaml_fault(shown_as, text, error)) from error
    except RecursionError as error:
        message = f"{shown_as}: nested too deeply for a scenario."
        raise ScenarioError(message) from error
    if not isinstance(data, dict):
        message = f"{shown_as}: a scenario is a mapping with `description`, `stock` and `orders`."
        raise ScenarioError(message)
    data.setdefault(
        "name", re.sub(r"[^a-z0-9._-]+", "-", Path(file.name).stem.lower()).strip("-._") or "scenario"
    )
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        faults = "\n".join(_faults(shown_as, node, error.errors(include_url=False)))
        raise ScenarioError(faults) from error


def _text(file: Traversable | Path, shown_as: str) -> str:
    try:
        raw = file.read_bytes()
    except FileNotFoundError as error:
        message = f"{shown_as}: no such scenario file.{_near(Path(shown_as))}"
        raise ScenarioError(message) from error
    except (OSError, ValueError) as error:
        message = f"{shown_as}: can't be read: {error}."
        raise ScenarioError(message) from error
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"{shown_as}:{line}: not UTF-8 text; save the file as UTF-8."
        raise ScenarioError(message) from error


def _near(path: Path) -> str:
    """A hint at a scenario of almost the same name: a file beside it, or a built-in one."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    near = {file.name: str(file) for file in beside if file.name.endswith(SUFFIXES)}
    near |= {file.name: Path(file.name).stem for file in _BUILT_IN.iterdir()}
    close = get_close_matches(path.name, near, n=1)
    return f" Did you mean {near[close[0]]}?" if close else ""


def _yaml_fault(shown_as: str, text: str, error: yaml.YAMLError) -> str:
    match error:
        case yaml.MarkedYAMLError(problem=str(problem), problem_mark=yaml.Mark(line=line)):
            pass
        case yaml.reader.ReaderError(reason=problem, position=position):
            line = text.count("\n", 0, position)
        case _:
            problem, line = str(error), 0
    return f"{shown_as}:{line + 1}: not valid YAML: {problem}."


def _faults(shown_as: str, root: yaml.Node | None, errors: Iterable[ErrorDetails]) -> Iterator[str]:
    errors = list(errors)
    for error in errors:
        # A list whose members are faulty is also said to be too short; the members' own faults say more.
        if error["type"] == "too_short" and any(_within(other, error) for other in errors):
            continue
        path = _path((*error["loc"], *error.get("ctx", {}).get("at", ())))
        line = _line(root, path)
        where = ".".join(map(str, path)) or "scenario"
        yield f"{shown_as}:{line}: {where}: {_mend(error, path)}"


def _path(location: tuple[int | str, ...]) -> list[int | str]:
    """Where it is in the file, which doesn't say of which kind an order's expectation is."""
    match location:
        case ("orders", int(), "expect", "modes", mode, _, *rest):
            return [*location[:3], mode, *rest]
        case ("orders", int(), "expect", _, *rest):
            return [*location[:3], *rest]
        case _:
            return list(location)


def _within(inner: ErrorDetails, outer: ErrorDetails) -> bool:
    depth = len(outer["loc"])
    return len(inner["loc"]) > depth and inner["loc"][:depth] == outer["loc"]


def _mend(error: ErrorDetails, path: list[int | str]) -> str:
    if error["type"] == "missing":
        return "is missing; add it"
    if error["type"] == "extra_forbidden":
        close = get_close_matches(str(path[-1]), _fields(path[:-1]), n=1)
        return (
            f"unknown field; did you mean `{close[0]}`?"
            if close
            else (f"unknown field; there are {', '.join(_fields(path[:-1]))}")
        )
    value = error["input"]
    shown = value if isinstance(value, Decimal) else _SHORT.repr(value)
    given = "" if error["type"] in {"value_error", "misfit"} else f" (it is {shown})"
    return error["msg"].removeprefix("Value error, ") + given


def _fields(path: list[int | str]) -> list[str]:
    """The fields that a mapping at this place may have."""
    models: Mapping[tuple[str, ...], tuple[type[BaseModel], ...]] = {
        (): (Scenario,),
        ("orders",): (OrderSpec,),
        ("orders", "expect"): (ExpectedOrder, ExpectedSplit, ExpectedPerMode),
        ("orders", "expect", "orchestrated"): (ExpectedOrder, ExpectedSplit),
        ("orders", "expect", "choreographed"): (ExpectedOrder, ExpectedSplit),
        ("orders", "cancel"): (CancelSpec,),
        ("faults",): (FaultSpec,),
        ("recovery",): (RecoverySpec,),
        ("expect",): (ExpectedEnd,),
    }
    plain = tuple(part for part in path if isinstance(part, str))
    return [field for model in models.get(plain, ()) for field in model.model_fields]


def _line(root: yaml.Node | None, path: list[int | str]) -> int:
    """The line, from 1, of the value at this path, or of the nearest thing around it that exists."""
    node, line = root, 1
    for part in path:
        child = _child(node, part)
        if child is None:
            break
        node, line = child
    return line


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return value, key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None


class _ExactLoader(yaml.SafeLoader):
    """Safe YAML whose numbers are decimal and stay exact, and whose keys must not be given twice."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - the base's signature
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, ValueError):
            problem = f"{_SHORT.repr(node.value)} is no {node.tag.rpartition(':')[2]}; put text in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        return int(str(self.construct_scalar(node)))

    def construct_exact(self, node: yaml.ScalarNode) -> Decimal:
        text = str(self.construct_scalar(node))
        try:
            return Decimal(text.replace("_", ""))
        except InvalidOperation:
            problem = f"{text} is no finite number"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the base's signature
        seen = set()
        # A tag can claim that something else is a mapping; the base says so.
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()  # type: ignore[redundant-expr] # see above
        for key, _ in pairs:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key must be plain text"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_ExactLoader.add_constructor("tag:yaml.org,2002:int", _ExactLoader.construct_whole)
_ExactLoader.add_constructor("tag:yaml.org,2002:float", _ExactLoader.construct_exact)
