"""Records that not even the client can read: they are passed over, and stop nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

import choreographed
from common.domain.order import OrderStatus
from common.embedded import EmbeddedBroker
from tests.brokers import Embedded, producing
from tests.pump import place_order
from tests.running import PARTITIONS, asking, ended, running_mode, until

pytestmark = pytest.mark.live


@pytest.mark.usefixtures("odd_names")
async def test_a_record_that_the_client_cannot_read_stops_nobody(
    embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    """It is passed over and buried by its place, and the orders before and behind it end."""
    broker = Embedded(embedded)
    async with running_mode(choreographed.MODE, tmp_path, broker, sole_instance=True) as runners:
        commands = [place_order(number, quantity=1) for number in (1, 2)]
        await runners["order"].submit(asking(commands[0]))
        async with producing(broker) as producer:
            for partition in range(PARTITIONS):
                await producer.send_and_wait(
                    "orders.events", b"{}", partition=partition, headers=[("ODD_NAME", b"")]
                )
        await runners["order"].submit(asking(commands[1]))
        for command in commands:
            assert (await ended(runners["order"], command.order_id)).status is OrderStatus.COMPLETED

        async def all_buried() -> bool:
            return runners["payment"].core.counts["dead_letter"] == PARTITIONS

        await until(all_buried)
