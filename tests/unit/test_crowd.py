"""When a service waits for more records before it goes on."""

from __future__ import annotations

from common.crowd import Crowd

_SOON_S = 0.001


def test_a_lone_order_is_no_crowd_however_soon_the_next_follows() -> None:
    """Orders one at a time, or records that are not our business, are never waited with."""
    crowd = Crowd()
    assert not any(crowd.is_there(orders, _SOON_S * moment) for moment in range(100) for orders in (0, 1))


def test_several_orders_at_once_are_a_crowd_for_a_while() -> None:
    """Those that come one by one a moment later belong to it; what comes much later doesn't."""
    crowd = Crowd()
    assert crowd.is_there(2, 1.0)
    assert crowd.is_there(1, 1.0 + _SOON_S)
    assert not crowd.is_there(1, 2.0)
