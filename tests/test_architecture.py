"""What keeps the comparison honest: coordination style is the only variable, and choreography has no centre.

Each rule is a function over a source tree or a mode that tells the faults that it finds. It is tested twice:
it finds none in the project, and it finds the one that is planted.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import asdict

import choreographed
import choreographed.topics
import orchestrated
import orchestrated.topics
from common.errors import WiringError
from common.messages import MESSAGES, Command, Message, OrderCreated, SagaStarted
from common.services import INVENTORY, ORDER, PAYMENT
from common.wiring import Mode, Wiring, instead_of
from orchestrated.orchestrator import ORCHESTRATOR

ROOT: Final = Path(__file__).parents[1]

ARROWS: Final = {
    "common": set[str](),
    "orchestrated": {"common"},
    "choreographed": {"common"},
    "compare": {"common", "orchestrated", "choreographed"},
}
"""By package: the packages of this project that it may import."""
PURE: Final = {
    "__future__",
    "collections.abc",
    "common.domain",
    "common.messages",
    "dataclasses",
    "enum",
    "msgspec",
    "typing",
}
"""What the domain may import: nothing that knows a clock, a socket, a file or a random number."""
STATELESS: Final = ("common.process_table", "common.store", "sqlalchemy", "sqlite3")
"""What a wiring would need to remember where an order stands."""
ONLY_ORCHESTRATED: Final = {"orchestrator.py", "saga.py"}
LONGEST_WIRING: Final = 300
"""Lines, not counting empty ones, nor imports: a reader passes over those."""
DOMAIN_TABLES: Final = {
    table.name for domain in (ORDER, INVENTORY, PAYMENT) for table in domain.storage.tables
}

TreeCheck = Callable[[Path], Iterator[str]]
ModeCheck = Callable[[Mode], Iterator[str]]


# What modules import


def modules(root: Path, folder: str) -> list[Path]:
    """The modules under a folder of the tree."""
    return sorted((root / folder).rglob("*.py"))


def imports(root: Path, module: Path) -> Iterator[str]:
    """The dotted names that a module imports, anywhere in it; `from a import b` counts as `a` and `a.b`."""
    package = module.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*parents, *([node.module] if node.module else [])))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    """Whether a dotted name is that package, or something in it."""
    return name == package or name.startswith(f"{package}.")


def forbidden_arrows(root: Path) -> Iterator[str]:
    """Modules that import a package of this project which theirs may not know."""
    for package, allowed in ARROWS.items():
        for module in modules(root, package):
            known = {name.split(".")[0] for name in imports(root, module)} & ARROWS.keys()
            for other in sorted(known - allowed - {package}):
                yield f"{module.relative_to(root)} imports {other}"


def impure_domain(root: Path) -> Iterator[str]:
    """Modules of the domain that import anything beside what is pure."""
    for module in modules(root, "common/domain"):
        for name in imports(root, module):
            if not any(is_within(name, pure) for pure in PURE):
                yield f"{module.relative_to(root)} imports {name}"


def choreographed_memory(root: Path) -> Iterator[str]:
    """Choreographed modules that import what they would need to keep the state of a process."""
    for module in modules(root, "choreographed"):
        for name in imports(root, module):
            if any(is_within(name, forbidden) for forbidden in STATELESS):
                yield f"{module.relative_to(root)} imports {name}"


# What files there are


def uneven_files(root: Path) -> Iterator[str]:
    """Files that one wiring has and the other lacks, but for those that are the lesson."""
    here, there = (
        {str(module.relative_to(root / package)) for module in modules(root, package)}
        for package in ("orchestrated", "choreographed")
    )
    for name in sorted(here - there - ONLY_ORCHESTRATED):
        yield f"only orchestrated has {name}"
    for name in sorted(there - here):
        yield f"only choreographed has {name}"
    for name in sorted(ONLY_ORCHESTRATED - here):
        yield f"orchestrated lacks {name}"


def long_wirings(root: Path) -> Iterator[str]:
    """Wirings that can't be read in one sitting."""
    for package in ("orchestrated", "choreographed"):
        lines = sum(map(lines_to_read, modules(root, package)))
        if lines >= LONGEST_WIRING:
            yield f"{package} has {lines} lines"


def lines_to_read(module: Path) -> int:
    """The lines of a module that are neither empty nor part of an import."""
    text = module.read_text(encoding="utf-8")
    imported = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and number not in imported for number, line in lines)


# What a choreographed mode may not have


def listeners_to_everything(mode: Mode) -> Iterator[str]:
    """Services that consume every topic of the mode."""
    for service in mode.services:
        if service.subscriptions >= mode.topics:
            yield f"{service} consumes every topic"


def knowers_of_the_flow(mode: Mode) -> Iterator[str]:
    """Services that hear or tell every message which is part of the process, whose course they thus know."""
    known = {
        str(service): service.tells | {reaction.message for reaction in service.reactions}
        for service in mode.services
    }
    flow = frozenset().union(*known.values()) - mode.final
    for service, messages in known.items():
        if messages >= flow:
            yield f"{service} knows the whole flow"


def tellers_of_commands(mode: Mode) -> Iterator[str]:
    """Services that tell another what to do."""
    for service in mode.services:
        for message in sorted(service.tells, key=lambda told: told.__name__):
            if issubclass(message, Command):
                yield f"{service} tells the command {message.__name__}"


def keepers_of_state(mode: Mode) -> Iterator[str]:
    """Services that have tables beyond those of the three domains, which both modes share."""
    for service in mode.services:
        for table in service.domain.storage.tables:
            if table.name not in DOMAIN_TABLES:
                yield f"{service} keeps {table.name}"


def commands_with_a_topic(topic_for: Callable[[type[Message]], str]) -> Iterator[str]:
    """Commands that could be sent, because there is a topic for them."""
    for message in MESSAGES.values():
        if issubclass(message, Command):
            try:
                yield f"{message.__name__} goes to {topic_for(message)}"
            except WiringError:
                continue


# The project keeps the rules


@pytest.mark.parametrize(
    "check",
    [forbidden_arrows, impure_domain, choreographed_memory, uneven_files, long_wirings],
    ids=lambda check: check.__name__,
)
def test_the_source_tree_keeps_the_rule(check: TreeCheck) -> None:
    """No module of the project breaks the rule."""
    assert list(check(ROOT)) == []


@pytest.mark.parametrize(
    "check",
    [listeners_to_everything, knowers_of_the_flow, tellers_of_commands, keepers_of_state],
    ids=lambda check: check.__name__,
)
def test_choreography_has_no_centre(check: ModeCheck) -> None:
    """No choreographed service is an orchestrator in disguise."""
    assert list(check(choreographed.MODE)) == []


def test_no_command_can_be_sent_in_choreography() -> None:
    """There is no topic on which a choreographed service could tell another what to do."""
    assert list(commands_with_a_topic(choreographed.topics.topic_of)) == []


def test_the_rules_look_at_what_is_there() -> None:
    """The checks find modules in every package, and imports in them."""
    assert all(modules(ROOT, package) for package in (*ARROWS, "common/domain"))
    found = set(imports(ROOT, ROOT / "choreographed" / "payment.py"))
    assert {
        "__future__",
        "common.messages",
        "common.messages.ProcessPayment",
        "choreographed.topics",
    } <= found


def test_both_modes_share_their_domains() -> None:
    """Each domain service is the same object in both modes, so that nothing but the wiring can differ."""
    for name in ("order", "inventory", "payment"):
        assert orchestrated.MODE.service(name).domain is choreographed.MODE.service(name).domain
    own = {service.domain.name for service in orchestrated.MODE.services} - {
        service.domain.name for service in choreographed.MODE.services
    }
    assert own == {ORCHESTRATOR.name}


# A planted fault is found


def planted(root: Path, path: str, source: str) -> Path:
    """A source tree with one module that is as given, beside the files that a sound one has."""
    sound = ("__init__.py", "order.py")
    names = [f"{package}/{name}" for package in ("orchestrated", "choreographed") for name in sound]
    names += [f"orchestrated/{name}" for name in ONLY_ORCHESTRATED]
    for name in (*names, path):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source if name == path else "", encoding="utf-8")
    return root


FAULTS: Final[list[tuple[TreeCheck, str, str, list[str]]]] = [
    (forbidden_arrows, "common/core.py", "import orchestrated", ["common/core.py imports orchestrated"]),
    (forbidden_arrows, "common/a.py", "from compare.b import c", ["common/a.py imports compare"]),
    (
        forbidden_arrows,
        "orchestrated/order.py",
        "def late():\n    from choreographed import order",
        ["orchestrated/order.py imports choreographed"],
    ),
    (
        forbidden_arrows,
        "choreographed/order.py",
        "if True:\n    import orchestrated.saga as s",
        ["choreographed/order.py imports orchestrated"],
    ),
    (forbidden_arrows, "compare/run.py", "import choreographed, orchestrated, common.core", []),
    (impure_domain, "common/domain/order.py", "import time", ["common/domain/order.py imports time"]),
    (
        impure_domain,
        "common/domain/order.py",
        "from ..store import database",
        [
            "common/domain/order.py imports common.store",
            "common/domain/order.py imports common.store.database",
        ],
    ),
    (impure_domain, "common/domain/order.py", "from . import decision", []),
    (
        choreographed_memory,
        "choreographed/order.py",
        "from common.store.rows import RowTable",
        [
            "choreographed/order.py imports common.store.rows",
            "choreographed/order.py imports common.store.rows.RowTable",
        ],
    ),
    (
        choreographed_memory,
        "choreographed/order.py",
        "import common.process_table",
        ["choreographed/order.py imports common.process_table"],
    ),
    (uneven_files, "choreographed/tracker.py", "", ["only choreographed has tracker.py"]),
    (uneven_files, "choreographed/saga.py", "", []),
    (uneven_files, "orchestrated/retry.py", "", ["only orchestrated has retry.py"]),
    (long_wirings, "choreographed/order.py", "x = 1\n\n" * 300, ["choreographed has 300 lines"]),
    (long_wirings, "choreographed/order.py", "x = 1\n\n" * 299, []),
    (long_wirings, "choreographed/order.py", "from a import (\n    b,\n)\n" + "x = 1\n" * 299, []),
]


@pytest.mark.parametrize(("check", "path", "source", "faults"), FAULTS)
def test_a_fault_in_the_source_tree_is_found(
    check: TreeCheck, path: str, source: str, faults: list[str], tmp_path: Path
) -> None:
    """A module that breaks the rule is named with what it does, and one that only looks like it is not."""
    assert list(check(planted(tmp_path, path, source))) == faults


def test_a_missing_orchestrator_is_found(tmp_path: Path) -> None:
    """The two files that make the difference have to be there."""
    root = planted(tmp_path, "common/a.py", "")
    (root / "orchestrated" / "saga.py").unlink()
    assert list(uneven_files(root)) == ["orchestrated lacks saga.py"]


def start_saga(event: OrderCreated) -> SagaStarted:
    """Tell a command in place of a fact."""
    return SagaStarted(**asdict(event))


def with_service(service: Wiring) -> Mode:
    """The choreographed mode with a service replaced, unchecked: the rules must find faults by themselves."""
    mode = replace(choreographed.MODE)
    others = tuple(one for one in mode.services if one.name != service.name)
    object.__setattr__(mode, "services", (*others, service))
    return mode


def all_in_one_topic(_: type[Message]) -> str:
    """The topic of a mode that has one."""
    return "everything"


def test_a_listener_to_everything_is_found() -> None:
    """A service that consumes all topics of its mode is named, be it one or, for the orchestrator, two."""
    order = replace(choreographed.MODE.service("order"), topic_of=all_in_one_topic)
    others = tuple(replace(one, topic_of=all_in_one_topic) for one in choreographed.MODE.services[1:])
    one_topic = replace(choreographed.MODE, services=(order, *others))
    assert "choreographed/order consumes every topic" in set(listeners_to_everything(one_topic))
    assert list(listeners_to_everything(orchestrated.MODE)) == [
        "orchestrated/orchestrator consumes every topic"
    ]


def test_who_knows_the_whole_flow_is_found() -> None:
    """The orchestrator is what the rule is there to find, and nobody else in its mode is."""
    assert list(knowers_of_the_flow(orchestrated.MODE)) == ["orchestrated/orchestrator knows the whole flow"]


def test_a_teller_of_commands_is_found() -> None:
    """A choreographed service that sends a command is named with it, as are those of the other mode."""
    commanding = replace(
        choreographed.MODE.service("order"), substitutions=(instead_of(OrderCreated, start_saga),)
    )
    assert list(tellers_of_commands(with_service(commanding))) == [
        "choreographed/order tells the command SagaStarted"
    ]
    tellers = {fault.split()[0] for fault in tellers_of_commands(orchestrated.MODE)}
    assert tellers == {"orchestrated/order", "orchestrated/orchestrator"}


def test_a_keeper_of_state_is_found() -> None:
    """A choreographed service that remembers more than its domain is named with the table it does it in."""
    order = choreographed.MODE.service("order")
    tracker = replace(order, domain=replace(order.domain, storage=ORCHESTRATOR.storage))
    assert list(keepers_of_state(with_service(tracker))) == ["choreographed/order keeps sagas"]
    assert list(keepers_of_state(orchestrated.MODE)) == ["orchestrated/orchestrator keeps sagas"]


def test_a_topic_for_commands_is_found() -> None:
    """The orchestrated mode has a topic for each command, so each is named."""
    faults = set(commands_with_a_topic(orchestrated.topics.topic_of))
    assert "ReserveInventory goes to saga.commands" in faults
    assert len(faults) == sum(issubclass(message, Command) for message in MESSAGES.values())
