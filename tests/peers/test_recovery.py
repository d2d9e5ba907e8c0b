"""A durable peer whose process is killed, server and all, goes on as it promises when it is started again."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterable
from pathlib import Path
from typing import Final, cast

import pytest
from msgspec import json

from common.domain.decision import Rules
from common.messages import PlaceOrder
from common.store.postgresql import server_url
from compare.bench.judge import judge_domain
from compare.peers import PEERS
from compare.peers.participants import Participants, drop_schemas
from tests.peers.carrier import ended_orders
from tests.peers.orders import STOCK, make_orders
from tests.postgres_server.server import PostgresServer

ROOT: Final = Path(__file__).parents[2]
COUNT: Final = 40
DEADLY: Final = 3
LIMIT_S: Final = 80
DURABLE: Final = [
    pytest.param(name, marks=pytest.mark.postgres) if peer.postgresql else name
    for name, peer in PEERS.items()
    if not peer.topics
]


async def run(  # noqa: D103 - see the module that it runs
    name: str, folder: Path, server: str, deadly: int, orders: Iterable[PlaceOrder]
) -> tuple[int, list[str]]:
    arguments = (name, str(folder), server, str(deadly), str(COUNT), json.encode(list(orders)).decode())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.peers.carrier", *arguments, cwd=ROOT, stdout=PIPE
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode().split()


@pytest.mark.live
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", DURABLE)
async def test_orders_under_way_when_it_is_killed_end_rightly(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """All that was accepted ends as it has to, once; what wasn't is placed again, as a client would do it."""
    if (missing := PEERS[name].missing()) is not None:
        pytest.skip(missing)
    server = ""
    if PEERS[name].postgresql:
        server = cast("PostgresServer", request.getfixturevalue("postgres_server")).url
    orders = make_orders(COUNT)
    placed = [order for order, _ in orders.values()]

    code, accepted = await run(name, tmp_path, server, DEADLY, placed)
    assert code == -signal.SIGKILL
    services = _services(tmp_path, server)
    try:
        # Or there would be nothing to recover.
        assert ended_orders(services.order.database) < len(accepted)

        rest = [order for order in placed if order.order_id not in accepted]
        code, output = await run(name, tmp_path, server, 0, rest)
        assert (code, output[-1]) == (0, "all")
        due = {key: due for key, (_, due) in orders.items()}
        assert judge_domain(services.databases, due, STOCK) == ()
    finally:
        services.close()
        if server:
            schemas = [f"crash_{name}" for name in ("order", "inventory", "payment", "dbos")]
            drop_schemas(server_url(server), schemas)


def _services(folder: Path, server: str) -> Participants:
    return Participants(
        folder,
        stock=STOCK,
        rules=Rules(),
        synchronous="OFF",
        server=server_url(server) if server else None,
        run="crash",
    )
