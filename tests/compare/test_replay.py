"""What goes wrong during a replay is told as such, never as a verdict on the order's saga."""

from __future__ import annotations

import pytest

from common.errors import BrokerError
from compare.observer import Observer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


async def test_an_observer_of_a_broker_that_is_not_there() -> None:
    """It says that it can't read, and leaves nothing open."""
    with pytest.raises(BrokerError, match="The observer can't read from the broker"):
        await Observer("127.0.0.1:1", ["orders.events"], 1).start()
