"""Peers to test, each with what it needs; one whose framework isn't installed here is skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, cast

import pytest

from common.embedded import embedded_broker
from common.store.postgresql import server_url
from compare.peers import PEERS
from compare.peers.peer import Terms
from tests.peers.orders import STOCK
from tests.postgres_server.server import PostgresServer

NAMES: Final = [
    pytest.param(name, marks=pytest.mark.postgres) if peer.postgresql else name
    for name, peer in PEERS.items()
]
RUN: Final = "test"
PARTITIONS: Final = 3


@pytest.fixture
async def terms(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Callable[[dict[str, int]], Terms]]:
    """Terms for the peer that is the test's parameter `name`, given the stock."""
    peer = PEERS[name]
    if (missing := peer.missing()) is not None:
        pytest.skip(missing)
    server = None
    if peer.postgresql:
        postgres = cast("PostgresServer", request.getfixturevalue("postgres_server"))
        server = server_url(postgres.url)
    async with AsyncExitStack() as stack:
        bootstrap = None
        if peer.topics:
            broker = await stack.enter_async_context(embedded_broker())
            await broker.create_topics([f"{RUN}.{topic}" for topic in peer.topics], PARTITIONS)
            bootstrap = broker.bootstrap

        def make(stock: dict[str, int]) -> Terms:
            return Terms(
                folder=tmp_path,
                stock=stock,
                synchronous="OFF",
                server=server,
                run=RUN,
                bootstrap=bootstrap,
            )

        yield make


@pytest.fixture
def stock() -> dict[str, int]:
    """Enough for all."""
    return dict(STOCK)
