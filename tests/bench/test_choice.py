"""What arguments come to."""

from __future__ import annotations

import pytest

from common.command_line import Parser
from common.errors import ConfigurationError
from common.settings import Settings
from compare.bench.choice import Choice
from compare.bench.command import add_bench
from compare.checks import Verdict


def choice(*arguments: str) -> Choice:
    """What these arguments of the command come to."""
    parser = Parser()
    add_bench(parser.add_subparsers(), lambda verdict: list(Verdict).index(verdict))
    return Choice(parser.parse_args(["bench", *arguments]), Settings(database_url=None))


@pytest.mark.parametrize(("arguments", "seconds"), [((), 3600.0), (("--seconds", "5"), 5.0)])
def test_scaling_takes_as_long_as_it_takes(arguments: tuple[str, ...], seconds: float) -> None:
    """Unless it is told otherwise; and the settings say which."""
    chosen = choice("--scaling", *arguments)
    assert {phase.seconds for plan in chosen.plans for phase in plan.phases} == {seconds}
    assert chosen.used().seconds == seconds


@pytest.mark.parametrize("option", [("--quick",), ("--rates", "100")])
def test_scaling_has_loads_of_its_own(option: tuple[str, ...]) -> None:
    """What would change nothing is refused, with what would."""
    with pytest.raises(ConfigurationError, match=r"leave out --quick and --rates; fewer --orders"):
        choice("--scaling", *option)


@pytest.mark.parametrize(("arguments", "orders"), [((), 200), (("--quick",), 30)])
def test_one_at_a_time_has_orders_of_its_own(arguments: tuple[str, ...], orders: int) -> None:
    """However many there are in the closed loop."""
    (plan,) = choice("--orders", "5000", *arguments).plans
    assert [phase.orders for phase in plan.phases][:2] == [5000, orders]
