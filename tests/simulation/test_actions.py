"""The names of what can happen in a simulated history."""

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


@pytest.mark.parametrize("text", ["", "payment", "payment eats ProcessPayment(1)", "order wakes, sings"])
def test_what_can_not_happen_is_refused(text: str) -> None:
    """A schedule with a slip in it says so, and how it is written."""
    with pytest.raises(ValueError, match="nothing that can happen; write it like 'payment takes"):
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
        ("inventory takes A(1) beside B(2)", "two at once"),
    ],
)
def test_an_action_knows_what_goes_wrong_in_it(text: str, kind: str | None) -> None:
    """Mishaps are counted, and are the first that a smaller history does without."""
    assert parse_action(text).kind == kind
