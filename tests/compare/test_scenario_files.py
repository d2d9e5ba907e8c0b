"""Scenario files: those that the lab ships with, and every kind of mistake in one of your own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.errors import ConfigurationError
from compare.scenario import MAX_ORDERS, Ending, ExpectedOrder, Scenario
from compare.scenario_files import ScenarioError, built_in_scenarios, find_scenario

BUILT_IN: Final = {scenario.name: scenario for scenario in built_in_scenarios()}
LEAST: Final = {
    "happy-path",
    "payment-declined",
    "out-of-stock",
    "unknown-item",
    "exactly-at-the-limit",
    "duplicate-delivery",
    "last-item-race",
    "mixed-batch",
}

GOOD: Final = """\
description: Two want the last one.
stock: {laptop: 1}
orders:
  - name: race
    item: laptop
    price: 200.50
    count: 2
    expect: {completed: 1, failed: 1, reason: out_of_stock}
  - customer: late
    item: laptop
    price: 1
    after: race
    expect:
      status: FAILED
expect:
  stock: {laptop: 0}
"""
Write = Callable[[str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a scenario file and returns its path."""

    def writing(content: str | bytes) -> str:
        path = tmp_path / "mine.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return writing


def fault(path: str) -> str:
    """What is said of the file, without its path, which must come first in every line."""
    with pytest.raises(ScenarioError) as caught:
        find_scenario(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(path) for line in lines)
    return "\n".join(line.removeprefix(path) for line in lines)


def changed(old: str, new: str) -> str:
    """The good file with one mistake in it."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_the_least_set_is_there() -> None:
    """The scenarios that any comparison needs are built in; more may be."""
    assert BUILT_IN.keys() >= LEAST


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_built_in_scenario_is_found_by_its_name(name: str) -> None:
    """A scenario is named as its file is, and says what stock it expects in the end."""
    assert find_scenario(name) == BUILT_IN[name]
    assert BUILT_IN[name].expect.stock.keys() == BUILT_IN[name].stock.keys()


def test_the_simplest_scenarios_come_first() -> None:
    """They are listed in the order in which they are best read."""
    sizes = [(scenario.total_orders, scenario.deliveries) for scenario in built_in_scenarios()]
    assert sizes == sorted(sizes)


def test_a_good_file_is_read_exactly(write: Write) -> None:
    """Its name is the file's, prices are exact, and what is left out has its default."""
    scenario = find_scenario(write(GOOD))
    assert scenario.name == "mine"
    assert [order.price_cents for order in scenario.orders] == [200_50, 1_00]
    assert [order.quantity for order in scenario.orders] == [1, 1]
    assert scenario.total_orders == 3
    assert scenario.timeout == 30
    assert scenario.orders[1].expect == ExpectedOrder(status=Ending.FAILED)


def test_a_document_is_a_scenario_again(write: Write) -> None:
    """What a report says of a scenario can be read as one."""
    scenario = find_scenario(write(GOOD))
    assert Scenario.model_validate(scenario.document()) == scenario


@pytest.mark.parametrize(
    ("file", "name"), [("My Race!.yaml", "my-race"), ("---.yml", "scenario"), (".yaml", "yaml")]
)
def test_a_files_name_becomes_a_scenarios(tmp_path: Path, file: str, name: str) -> None:
    """Whatever the file is called, the scenario's name is one that fits."""
    path = tmp_path / file
    path.write_text(GOOD)
    assert find_scenario(str(path)).name == name


def test_a_file_may_name_its_scenario(write: Write) -> None:
    """A name in the file comes before the file's own."""
    assert find_scenario(write("name: other\n" + GOOD)).name == "other"


FAULTS: Final = {
    "missing field": (
        changed("description: Two want the last one.\n", ""),
        ":1: description: is missing; add it",
    ),
    "missing field of an order": (changed("    price: 1\n", ""), ":9: orders.1.price: is missing; add it"),
    "missing expectation": (
        changed("    expect:\n      status: FAILED\n", ""),
        ":9: orders.1.expect: is missing; add it",
    ),
    "missing status": (
        changed("      status: FAILED\n", "      reason: out_of_stock\n"),
        ":13: orders.1.expect.status: is missing; add it",
    ),
    "unknown field with a typo": (
        changed("    count: 2\n", "    cuont: 2\n"),
        ":7: orders.0.cuont: unknown field; did you mean `count`?",
    ),
    "unknown field of the scenario": (
        changed("stock: {laptop: 1}\norders", "stock: {laptop: 1}\nzzz: 3\norders"),
        ":3: zzz: unknown field; there are name, description, stock, orders, expect, deliveries, timeout",
    ),
    "unknown field of an expectation": (
        changed("      status: FAILED", "      status: FAILED\n      reasno: out_of_stock"),
        ":15: orders.1.expect.reasno: unknown field; did you mean `reason`?",
    ),
    "unknown field of the end": (
        changed("  stock: {laptop: 0}", "  stok: {laptop: 0}"),
        ":16: expect.stok: unknown field; did you mean `stock`?",
    ),
    "unknown field by a name that the reader uses itself": (
        GOOD + "each: 1\n",
        ":17: each: unknown field; there are",
    ),
    "wrong type": (
        changed("    count: 2", "    count: two"),
        ":7: orders.0.count: Input should be a valid integer",
    ),
    "a list for a mapping": (
        changed("stock: {laptop: 1}\norders", "stock: [laptop]\norders"),
        ":2: stock: Input should be a valid dictionary (it is ['laptop'])",
    ),
    "true for a number": (
        changed("    count: 2", "    count: true"),
        ":7: orders.0.count: give a whole number",
    ),
    "true for a price": (
        changed("    price: 1\n", "    price: true\n"),
        ":11: orders.1.price: give a price as an exact number, such as 199.99",
    ),
    "no number for a price": (
        changed("    price: 1\n", "    price: cheap\n"),
        ":11: orders.1.price: Input should be a valid decimal (it is 'cheap')",
    ),
    "a list for a price": (
        changed("    price: 1\n", "    price: [1]\n"),
        ":11: orders.1.price: give a price as an exact number, such as 199.99",
    ),
    "out of range": (
        changed("    price: 1\n", "    price: 0\n"),
        ":11: orders.1.price: Input should be greater than 0 (it is 0)",
    ),
    "below zero": (
        changed("stock: {laptop: 1}\norders", "stock:\n  laptop: -1\norders"),
        ":3: stock.laptop: Input should be greater than or equal to 0 (it is -1)",
    ),
    "over-precise price": (
        changed("200.50", "200.505"),
        ":6: orders.0.price: Decimal input should have no more than 2 decimal places (it is 200.505)",
    ),
    "infinite price": (changed("200.50", ".inf"), ":6: not valid YAML: .inf is no finite number."),
    "price that is no number": (changed("200.50", ".nan"), ":6: not valid YAML: .nan is no finite number."),
    "bad status": (
        changed("      status: FAILED", "      status: DONE"),
        ":14: orders.1.expect.status: Input should be 'COMPLETED', 'FAILED' or 'COMPENSATION_FAILED'",
    ),
    "bad reason": (
        changed("reason: out_of_stock", "reason: bored"),
        ":8: orders.0.expect.reason: Input should be 'unknown_item', 'out_of_stock', 'payment_declined', ",
    ),
    "a reason to complete": (
        changed("      status: FAILED", "      status: COMPLETED\n      reason: out_of_stock"),
        ":15: orders.1.expect.reason: a COMPLETED order has no reason; leave it out",
    ),
    "a split that doesn't cover the count": (
        changed("completed: 1, failed: 1", "completed: 1, failed: 2"),
        ":8: orders.0.expect: completed and failed must add up to `count`, 2, not 3",
    ),
    "after nobody": (
        changed("after: race", "after: rice"),
        ":12: orders.1.after: no earlier order is named 'rice'",
    ),
    "after itself": (
        changed("    after: race", "    name: late\n    after: late"),
        ":13: orders.1.after: no earlier order is named 'late'",
    ),
    "names given twice": (
        changed("  - customer: late", "  - name: race"),
        ":9: orders.1.name: an earlier order is named 'race', too",
    ),
    "stock of nothing expected": (
        changed("  stock: {laptop: 0}", "  stock: {phone: 0}"),
        ":16: expect.stock.phone: the scenario's own `stock` has no such item",
    ),
    "a name that is too long": (
        GOOD + f"name: {'x' * 61}\n",
        ":17: name: String should match pattern",
    ),
    "a fault without a step": (
        GOOD + "faults:\n  - fault: crash\n",
        ":18: faults.0: a crash strikes at a step; add `step`",
    ),
    "a fault that nobody knows": (
        GOOD + "faults:\n  - {fault: crush, step: pay}\n",
        ":18: faults.0.fault: Input should be 'crash', ",
    ),
    "a misspelt field of a fault": (
        GOOD + "faults:\n  - fault: crash\n    step: pay\n    att: before\n",
        ":20: faults.0.att: unknown field; did you mean `at`?",
    ),
    "a fault in the past": (
        GOOD + "faults:\n  - fault: delay\n    step: pay\n    seconds: -1\n",
        ":20: faults.0.seconds: only a clock can be behind; give a positive number",
    ),
    "a fault of an order that isn't there": (
        GOOD + "faults:\n  - fault: crash\n    step: pay\n    order: rice\n",
        ":20: faults.0.order: no order is named 'rice'",
    ),
    "patience that nobody has": (
        GOOD + "recovery: {step_timeout: 0}\n",
        ":17: recovery.step_timeout: Input should be greater than 0 (it is 0)",
    ),
    "a misspelt field of patience": (
        GOOD + "recovery: {step_timeot: 1}\n",
        ":17: recovery.step_timeot: unknown field; did you mean `step_timeout`?",
    ),
    "a bad status in one mode": (
        changed(
            "    expect:\n      status: FAILED",
            "    expect:\n      orchestrated: FAILED\n      choreographed: LOST",
        ),
        ":15: orders.1.expect.choreographed.status: Input should be 'COMPLETED', ",
    ),
    "an expectation for one mode only": (
        changed("    expect:\n      status: FAILED", "    expect:\n      orchestrated: FAILED"),
        ":13: orders.1.expect.choreographed: is missing; add it",
    ),
    "a cancel that nobody knows": (
        changed("    after: race", "    after: race\n    cancel: {when: 3}"),
        ":13: orders.1.cancel.when: unknown field; ",
    ),
    "no orders": (
        "description: none\norders: []\n",
        ":2: orders: Tuple should have at least 1 item after validation, not 0 (it is [])",
    ),
    "key given twice": (
        changed("    count: 2\n", "    count: 2\n    price: 3\n"),
        ":8: not valid YAML: the key 'price' is given twice.",
    ),
    "key that is a list": ("? [a]\n: b\n", ":1: not valid YAML: a key must be plain text."),
    "bad YAML": (changed("stock: {laptop: 1}\norders", "stock: {laptop: 1\norders"), ":3: not valid YAML: "),
    "tab for indentation": (
        changed("    count: 2", "\tcount: 2"),
        ":7: not valid YAML: found character '\\t' that cannot start any token.",
    ),
    "a date that is none": (
        changed("customer: late", "customer: 2024-99-99"),
        ":9: not valid YAML: '2024-99-99' is no timestamp; put text in quotes.",
    ),
    "a number of another base": (
        changed("    count: 2", "    count: 0x2"),
        ":7: not valid YAML: '0x2' is no int; put text in quotes.",
    ),
    "a time for a name": (
        changed("customer: late", "customer: 12:30"),
        ":9: not valid YAML: '12:30' is no int; put text in quotes.",
    ),
    "a tag that doesn't fit": (
        changed("customer: late", "customer: !!bool late"),
        ":9: not valid YAML: 'late' is no bool; put text in quotes.",
    ),
    "a tag that runs code": (
        changed("customer: late", "customer: !!python/object/apply:os.getcwd []"),
        ":9: not valid YAML: could not determine a constructor",
    ),
    "more own faults than faults": (
        GOOD + "schedule: [time passes]\nown_faults: 1\n",
        ":18: own_faults: there are 0 `faults`",
    ),
    "own faults of no schedule": (
        GOOD + "faults: [{fault: crash, step: pay}]\nown_faults: 1\n",
        ":18: own_faults: without a `schedule`, all faults strike by themselves; leave it out",
    ),
    "a schedule with an order that isn't there": (
        GOOD + "schedule:\n- customer places 1\n- inventory takes OrderCreated(7)\n",
        ":19: schedule.1: there is no order 7; the last is order 3",
    ),
    "a schedule with a slip in it": (
        GOOD + "schedule: [warehouse starts]\n",
        ":17: schedule.0: 'warehouse starts': 'warehouse' is nobody who starts",
    ),
    "empty file": ("", ": a scenario is a mapping with `description`, `stock` and `orders`."),
    "nothing but a comment": ("# later\n", ": a scenario is a mapping with"),
    "a list": ("- a\n- b\n", ": a scenario is a mapping with"),
    "two documents": (GOOD + "---\n" + GOOD, ":17: not valid YAML: but found another document."),
    "not UTF-8": (
        GOOD.replace("late", "sp\xe4t").encode("latin-1"),
        ":9: not UTF-8 text; save the file as UTF-8.",
    ),
    "bytes": (b"\x00\x01", ":1: not valid YAML: special characters are not allowed."),
    "nested too deeply": ("[" * 2_000, ": nested too deeply for a scenario."),
}


@pytest.mark.parametrize(("content", "says"), FAULTS.values(), ids=FAULTS)
def test_a_mistake_is_named(write: Write, content: str | bytes, says: str) -> None:
    """File, line, field and mend: all that it takes to put a file right."""
    assert fault(write(content)).startswith(says)


def test_every_mistake_is_told_at_once(write: Write) -> None:
    """A file with three mistakes gets three lines, and no follow-up faults."""
    path = write("descripton: typo\norders:\n  - {item: laptop, price: -1, expect: COMPLETED}\n")
    assert fault(path).splitlines() == [
        ":1: description: is missing; add it",
        ":3: orders.0.price: Input should be greater than 0 (it is -1)",
        ":1: descripton: unknown field; did you mean `description`?",
    ]


def test_a_long_value_is_cut_short(write: Write) -> None:
    """A mistake in a huge value doesn't bury its own message."""
    assert len(fault(write(changed("    count: 2", f"    count: {'many ' * 9999}")))) < 200


def test_more_orders_than_the_embedded_broker_holds_are_refused(write: Write) -> None:
    """The counts of all orders together have a limit, and repeated deliveries count."""
    order = f"  - {{item: a, price: 1, count: {MAX_ORDERS}, expect: COMPLETED}}\n"
    twice = fault(write("description: x\norders:\n" + 2 * order))
    assert f"{2 * MAX_ORDERS} orders, delivered 1 times, are too many" in twice
    again = fault(write("description: x\ndeliveries: 2\norders:\n" + order))
    assert f"{MAX_ORDERS} orders, delivered 2 times, are too many" in again


def test_a_missing_file_is_named_with_a_near_one(write: Write, tmp_path: Path) -> None:
    """A typo in a path is answered with the file that is meant."""
    meant = write(GOOD)
    assert fault(str(tmp_path / "mien.yaml")) == f": no such scenario file. Did you mean {meant}?"
    assert fault(str(tmp_path / "nothing" / "zzz.yaml")) == ": no such scenario file."
    assert fault("happy-path.yaml") == ": no such scenario file. Did you mean happy-path?"


def test_a_folder_is_no_scenario(tmp_path: Path) -> None:
    """A path that can't be read says why."""
    assert "can't be read" in fault(f"{tmp_path}/")


def test_an_unknown_name_is_answered_with_a_near_one() -> None:
    """A typo in a name is answered with the name that is meant, and anything else with all there are."""
    with pytest.raises(ScenarioError, match=r"No scenario is named 'hapy-path'; did you mean 'happy-path'\?"):
        find_scenario("hapy-path")
    with pytest.raises(ScenarioError, match=r"the built-in ones are always-failing-record, .*its path"):
        find_scenario("zzz")


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 5000, "a\0b", "a\0b/c", "x" * 5000 + ".yaml"])
def test_odd_names_are_refused_in_words(name: str) -> None:
    """Not even a name that no file system takes gets through."""
    with pytest.raises(ScenarioError):
        find_scenario(name)


def test_a_scenario_error_is_a_configuration_error() -> None:
    """The command line answers it with its usage code."""
    assert issubclass(ScenarioError, ConfigurationError)


def load_or_refuse(path: Path, content: bytes) -> None:
    """Read any content: it is a scenario, or a ScenarioError with a text."""
    path.write_bytes(content)
    try:
        assert isinstance(find_scenario(str(path)), Scenario)
    except ScenarioError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - most contents raise, some don't


QUIET: Final = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SCALARS: Final = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.text(), st.binary(max_size=9)
)
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=9,
)
TOKENS: Final = st.sampled_from(
    [*"[]{}:,-?&*!|>'\"%@`#\n\t ", "<<", "---", "...", "~", "!!int ", "!!set ", "!!omap ", "!!pairs ",
     "!!timestamp ", "!!binary ", "&a ", "*a", "0x", "0b_", "1:2", ".5", "1e9", ".inf", "each", "split",
     "null", "yes", "\ufeff", "\0"]
)  # fmt: skip


@QUIET
@given(content=st.binary() | st.text().map(str.encode) | st.lists(TOKENS).map("".join).map(str.encode))
@example(content=b"a: &a [*a]\n")
@example(content=b"<<: {a: 1}\n")
@example(content=b"<<: 1\n")
@example(content=b"!!set {a}\n")
@example(content=b"count: 0b_\n")
@example(content=b"count: " + b"9" * 5000)
@example(content=b"!!timestamp x: 1\n")
def test_no_content_gets_past_the_reader(tmp_path: Path, content: bytes) -> None:
    """Whatever is in a file, reading it raises nothing but a ScenarioError."""
    load_or_refuse(tmp_path / "any.yaml", content)


@QUIET
@given(data=st.data())
def test_no_value_gets_past_the_models(tmp_path: Path, data: st.DataObject) -> None:
    """Any value in the place of any of a good file's is a scenario still, or a ScenarioError."""
    scenario = yaml.safe_load(GOOD)
    target = scenario
    while True:
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        if not isinstance(target[key], dict | list) or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = data.draw(VALUES)
    load_or_refuse(tmp_path / "any.yaml", yaml.safe_dump(scenario).encode())


@QUIET
@given(at=st.integers(0, len(GOOD)), gone=st.integers(0, 9), put=st.lists(TOKENS, max_size=3).map("".join))
def test_no_slip_of_the_keyboard_gets_past(tmp_path: Path, at: int, gone: int, put: str) -> None:
    """A few letters more or less anywhere in a good file are a scenario still, or a ScenarioError."""
    load_or_refuse(tmp_path / "any.yaml", (GOOD[:at] + put + GOOD[at + gone :]).encode())
