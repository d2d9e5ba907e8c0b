"""The names of what can happen in a simulated history."""

import re

import pytest

from compare.simulation.actions import TIME_PASSES, Action, Mishap, Verb, parse_action

ACTIONS = [
    Action("customer", Verb.PLACES, ("1",)),
    Action("customer", Verb.CANCELS, ("12",), Mishap.DIES_COMMITTED),
    Action("payment", Verb.TAKES, ("InventoryReserved(1)", "InventoryReserved(2)~3")),
    Action("inventory", Verb.TAKES, ("OrderCreated(2)",), beside=("OrderCreated(1)",)),
    Action("inventory", Verb.TAKES, ("OrderCreated(2)",), Mishap.FAILS_FOR_GOOD),
    Action("order", Verb.WAKES, mishap=Mishap.DIES_PUBLISHING),
    Action("order", Verb.STARTS),
    Action("payment", Verb.GOES_ON),
    Action("broker", Verb.LOSES, ("PaymentRefunded(1)~2",)),
    TIME_PASSES,
]


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_an_action_is_read_as_it_is_written(action: Action) -> None:
    """Schedules in files mean what was meant when they were written."""
    assert parse_action(str(action)) == action


@pytest.mark.parametrize(
    "text",
    [
        "",
        "payment",
        "payment eats ProcessPayment(1)",
        "order wakes, sings",
        "payment takes",
        "payment wakes ProcessPayment(1)",
        "payment takes ProcessPayment",
        "customer places OrderCreated(1)",
        "broker loses OrderCreated(1) beside OrderCreated(2)",
        "broker loses OrderCreated(1) + OrderCreated(2)",
        "broker loses OrderCreated(1), dies before",
        "time passes, fails",
        "customer places 1, fails",
        "customer places 1 + 2",
        "payment starts, stalls",
        "payment goes on, dies before",
        "inventory takes OrderCreated(1) beside OrderCreated(2), dies before",
    ],
)
def test_what_can_not_happen_is_refused(text: str) -> None:
    """A schedule with a slip in it says so, and how it is written."""
    with pytest.raises(ValueError, match="nothing that can happen; write it like 'payment takes"):
        parse_action(text)


@pytest.mark.parametrize(
    ("text", "slip"),
    [
        ("warehouse starts", "'warehouse' is nobody who starts; that is for: inventory, orchestrator, order"),
        ("customer takes OrderCreated(1)", "'customer' is nobody who takes"),
        ("payment loses OrderCreated(1)", "'payment' is nobody who loses; that is for: broker"),
        ("payment takes InventoryReservd(1)", "called 'InventoryReservd'; did you mean 'InventoryReserved'?"),
        ("inventory takes OrderCreated(1) beside Foo(2)", "no message is called 'Foo'"),
    ],
)
def test_whoever_and_whatever_nobody_knows_is_refused(text: str, slip: str) -> None:
    """A name with a slip in it would never come about, and nobody would notice."""
    with pytest.raises(ValueError, match=re.escape(slip)):
        parse_action(text)


def test_an_action_knows_its_orders() -> None:
    """An order that is left out takes all its actions with it."""
    assert parse_action(
        "inventory takes OrderCreated(2) + OrderCreated(10) beside OrderCreated(1)"
    ).orders == {
        1,
        2,
        10,
    }
    assert parse_action("customer places 3").orders == {3}
    assert TIME_PASSES.orders == frozenset()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("payment takes ProcessPayment(1)", None),
        ("payment takes ProcessPayment(1), dies committed", "dies committed"),
        ("broker repeats ProcessPayment(1)", "broker repeats"),
        ("inventory takes OrderCreated(1) beside OrderCreated(2)", "two at once"),
    ],
)
def test_an_action_knows_what_goes_wrong_in_it(text: str, kind: str | None) -> None:
    """Mishaps are counted, and are the first that a smaller history does without."""
    assert parse_action(text).kind == kind
