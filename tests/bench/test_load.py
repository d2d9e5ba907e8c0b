"""Orders are determined by their numbers, and an id leads back to the number."""

from __future__ import annotations

from uuid import UUID

import pytest

from common.domain.decision import Rules
from common.domain.order import OrderStatus
from common.messages import Reason
from compare.bench.load import Placed, draw


def test_an_id_leads_back_to_its_order() -> None:
    """The load generator keeps no list of ids: it reads the number from each."""
    load = draw(0.2, 3)
    numbers = [0, 1, 4095, 4096, 99_999]
    assert [load.number(load.order(number).order_id) for number in numbers] == numbers


def test_ids_are_uuids_that_rise_with_the_numbers() -> None:
    """As those of the HTTP API do: databases are fast because of it."""
    load = draw(0.2, 3)
    ids = [load.order(number).order_id for number in range(5_000)]
    assert ids == sorted(ids)
    assert {UUID(one).version for one in ids} == {7}


@pytest.mark.parametrize("stranger", ["", "no id", "0198c0de-0000-7000-8000-000000000001"])
def test_a_strangers_id_is_no_order(stranger: str) -> None:
    """An order that nobody has placed is not taken for one of the load's."""
    load = draw(0.2, 3)
    with pytest.raises(KeyError):
        load.number(stranger)
    assert stranger not in Placed(load, 10)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 1 / 3, 1.0])
def test_as_many_are_declined_as_was_asked_for(share: float) -> None:
    """The share is met exactly, and evenly over the run."""
    load = draw(share, 1)
    declined = [load.is_declined(number) for number in range(3_000)]
    assert abs(sum(declined) - 3_000 * share) < 1
    assert abs(sum(declined[:300]) - 300 * share) < 1


def test_what_is_expected_follows_from_the_rules() -> None:
    """An order fails exactly if it costs more than may be paid."""
    load = draw(0.5, 2)
    limit = Rules().payment_limit_cents
    for number in range(10):
        order, due = load.order(number), load.expected(number)
        failed = order.total_cents > limit
        assert due.status == (OrderStatus.FAILED if failed else OrderStatus.COMPLETED)
        assert due.reason == (Reason.PAYMENT_DECLINED if failed else None)
        assert (due.item, due.quantity, due.amount_cents) == (order.item, order.quantity, order.total_cents)


def test_items_share_the_load() -> None:
    """With one item all contend for a row; with more, each has its part, and stock."""
    assert {draw(0, 1).order(number).item for number in range(10)} == {"item-0"}
    load = draw(0, 4)
    assert {load.order(number).item for number in range(10)} == load.stock.keys()


def test_only_what_was_placed_is_expected() -> None:
    """The orders that are yet to come are no part of it."""
    load = draw(0, 1)
    placed = Placed(load, 3)
    assert list(placed) == [load.order(number).order_id for number in range(3)]
    assert len(placed) == 3
    assert load.order(3).order_id not in placed
