"""What a user is told once all services of a mode are ready: where everything is, and what to try."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from common.settings import Settings
from common.wiring import Mode

_LOOK_EVERY_S: Final = 0.05
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to reach what binds there
_LOOPBACK: Final = ("127.0.0.1", "::1", *_EVERYWHERE)

_BANNER: Final = """
{mode} is ready.

  {services}

  broker  {broker}
  topics  {topics}
  data    {data}

Try it:
  curl -X POST {url}/orders -H "Content-Type: application/json" -d {laptop}
  curl -X POST {url}/orders -H "Content-Type: application/json" -d {too_dear}
  curl {url}/orders
  curl {url}/orders/{{order_id}}
  curl -X POST {url}/orders/{{order_id}}/cancel

For operators:
  curl -X POST {url}/orders/{{order_id}}/retry-compensation
  python -m compare dlq list --broker {bootstrap}

Ctrl-C stops it all.
"""
_ORDER: Final = (
    r'"{{\"customer_id\": \"{customer}\", \"item\": \"laptop\", \"quantity\": 1, \"price\": {price}}}"'
)


def banner(mode: Mode, settings: Settings, broker: str, data: str) -> str:
    """The text, for services that listen on their own ports; `data` says where those are."""
    host = "localhost" if settings.http_host in _LOOPBACK else settings.http_host
    width = max(len(wiring.name) for wiring in mode.services)
    services = [f"{wiring.name:{width}}  http://{host}:{wiring.port}/docs" for wiring in mode.services]
    embedded = settings.kafka_bootstrap_servers is None
    return _BANNER.format(
        mode=mode.name,
        services="\n  ".join(services),
        broker=f"{broker} (embedded, in memory; other Kafka clients can read along)" if embedded else broker,
        bootstrap=broker,
        topics=", ".join(sorted(mode.topics)),
        data=data,
        url=f"http://{host}:{mode.service('order').port}",
        laptop=_ORDER.format(customer="cust-1", price=200),
        too_dear=_ORDER.format(customer="cust-2", price=600),
    )


async def until_ready(host: str, ports: Sequence[int]) -> None:
    """Wait until every service says that it is ready."""
    for port in ports:
        while not await _is_ready(_EVERYWHERE.get(host, host), port):  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(_LOOK_EVERY_S)


async def _is_ready(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(f"GET /health/ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
