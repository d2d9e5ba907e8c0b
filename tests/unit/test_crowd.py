"""When a service waits for more before it goes on."""

from __future__ import annotations

from common.crowd import LASTS_S, Crowd

SOON_S = 0.001
JUST_NOT_S = LASTS_S - SOON_S


def test_a_lone_order_is_no_crowd_however_soon_the_next_follows() -> None:
    """Orders one at a time, or records that are not our business, are never waited with."""
    crowd = Crowd()
    assert not any(crowd.notice(orders, SOON_S * moment) for moment in range(100) for orders in (0, 1))


def test_several_orders_at_once_are_a_crowd_for_a_while() -> None:
    """Those that come one by one a moment later belong to it; what comes later doesn't."""
    crowd = Crowd()
    assert crowd.notice(2, 1.0)
    assert crowd.notice(1, 1.0 + JUST_NOT_S)
    assert not crowd.notice(1, 1.0 + LASTS_S)


def test_a_crowd_lasts_while_orders_come_together() -> None:
    """Each time that several are there counts anew."""
    crowd = Crowd()
    assert crowd.notice(2, 1.0)
    assert crowd.notice(3, 1.0 + JUST_NOT_S)
    assert crowd.notice(0, 1.0 + 2 * JUST_NOT_S)
