"""The saga with Restate: a workflow whose steps are in its server's journal, and undone when one refuses.

Written as Restate's guide to sagas has it: a refusal is a terminal error, which starts the compensations, in
reverse order; every other error has the invocation tried again, without end, and steps that are in the
journal are not repeated. The key of the workflow is the order's id. The services are served over HTTP/2 by
Hypercorn, as the Python SDK's templates do it, in the process that also places the orders.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

import httpx
import restate
from hypercorn import Config
from hypercorn.asyncio import serve

from common.messages import (
    CompleteOrder,
    FailOrder,
    Message,
    PlaceOrder,
    ProcessPayment,
    Reason,
    ReleaseInventory,
    ReserveInventory,
)
from compare.peers import RESTATE_SERVER
from compare.peers.participants import refusal
from compare.peers.peer import Peer
from compare.peers.processes import Server, find_program, free_ports

_HOST: Final = "127.0.0.1"
_PORTS: Final = "ports.json"
"""Where ports are kept for a later run: what has begun at an address is gone on with there."""
_NO_LIMIT: Final = 2**31 - 1
"""What Restate's documentation sets for Hypercorn, whose own limits would end connections that are in use."""
_UNFINISHED: Final = "SELECT count(*) AS n FROM sys_invocation WHERE status <> 'completed'"
_PLACING: Final = 64
"""Connections over which orders are handed over."""

Undo = Callable[[Reason], Awaitable[None]]


class Restate(Peer):
    """Restate's server, a single node with its log on disk."""

    name: ClassVar = "restate"
    errors: ClassVar = (httpx.HTTPError, restate.HttpError)

    async def launch(self) -> None:
        """Start the server, serve the workflow, and register it."""
        self._service_port, ingress, self._admin_port, node = self._ports()
        self._http = await self.started.enter_async_context(httpx.AsyncClient(timeout=30))
        # First to start and last to end, so that the server's connections are closed by then.
        await self._serve()
        self.server = server = await Server.start(
            [
                find_program(RESTATE_SERVER),
                "--no-logo",
                "--listen-mode",
                "tcp",
                "--base-dir",
                self.terms.folder / "restate",
            ],
            self.terms.folder,
            {
                "RESTATE_NODE_NAME": "lab",
                "RESTATE_BIND_ADDRESS": f"{_HOST}:{node}",
                "RESTATE_ADVERTISED_ADDRESS": f"http://{_HOST}:{node}",
                "RESTATE_INGRESS__BIND_ADDRESS": f"{_HOST}:{ingress}",
                "RESTATE_ADMIN__BIND_ADDRESS": f"{_HOST}:{self._admin_port}",
                "RESTATE_LOG_FILTER": "error",
                "RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC": str(
                    self.terms.synchronous != "FULL"
                ).lower(),
                "RESTATE_DISABLE_TELEMETRY": "true",
            },
        )
        self.started.push_async_callback(server.stop)
        await server.ready(self._register, httpx.HTTPError)
        self._client = await self.started.enter_async_context(
            restate.create_client(f"http://{_HOST}:{ingress}")
        )

    async def submit(self, order: PlaceOrder) -> None:
        """Start the workflow of an order."""
        await self._client.workflow_send(self._run, key=order.order_id, arg=order)

    async def busy(self) -> bool:
        """Whether an invocation is under way."""
        return await self._unfinished() > 0

    async def _serve(self) -> None:
        workflow = restate.Workflow("OrderSaga")

        @workflow.main()
        async def run(ctx: restate.WorkflowContext, order: PlaceOrder) -> None:
            await self._carry_out(ctx, order)

        self._run = run
        config = Config()
        config.bind = [f"{_HOST}:{self._service_port}"]
        config.h2_max_concurrent_streams = _NO_LIMIT
        config.keep_alive_max_requests = _NO_LIMIT
        config.keep_alive_timeout = _NO_LIMIT
        config.errorlog = None
        ended = asyncio.Event()
        serving = asyncio.create_task(serve(restate.app([workflow]), config, shutdown_trigger=ended.wait))

        async def stop() -> None:
            ended.set()
            await serving

        self.started.push_async_callback(stop)

    async def _carry_out(self, ctx: restate.WorkflowContext, order: PlaceOrder) -> None:
        order_id = order.order_id
        compensations: list[Undo] = []

        async def release(reason: Reason) -> None:
            command = ReleaseInventory(order_id=order_id, reason=reason)
            await ctx.run_typed("release", self._release, command=command)

        await ctx.run_typed("place", self._place, order=order)
        try:
            reserve = ReserveInventory(order_id=order_id, item=order.item, quantity=order.quantity)
            await ctx.run_typed("reserve", self._reserve, command=reserve)
            compensations.append(release)
            charge = ProcessPayment(
                order_id=order_id, customer_id=order.customer_id, amount_cents=order.total_cents
            )
            await ctx.run_typed("charge", self._charge, command=charge)
        except restate.TerminalError as error:
            reason = Reason(error.message)
            for compensation in reversed(compensations):
                await compensation(reason)
            await ctx.run_typed("fail", self._end, command=FailOrder(order_id=order_id, reason=reason))
        else:
            await ctx.run_typed("complete", self._end, command=CompleteOrder(order_id=order_id))

    async def _place(self, order: PlaceOrder) -> None:
        await self.services.order.carry_out(order)

    async def _reserve(self, command: ReserveInventory) -> None:
        _insist(await self.services.inventory.carry_out(command))

    async def _charge(self, command: ProcessPayment) -> None:
        _insist(await self.services.payment.carry_out(command))

    async def _release(self, command: ReleaseInventory) -> None:
        await self.services.inventory.carry_out(command)

    async def _end(self, command: CompleteOrder | FailOrder) -> None:
        self.told(await self.services.order.carry_out(command))

    async def _register(self) -> None:
        """Tell the server where the workflow is; it asks there what it finds, so both have to be up."""
        answer = await self._http.post(
            f"http://{_HOST}:{self._admin_port}/deployments",
            json={"uri": f"http://{_HOST}:{self._service_port}", "force": True},
        )
        answer.raise_for_status()

    async def _unfinished(self) -> int:
        answer = await self._http.post(
            f"http://{_HOST}:{self._admin_port}/query",
            json={"query": _UNFINISHED},
            headers={"Accept": "application/json"},
        )
        answer.raise_for_status()
        return int(answer.json()["rows"][0]["n"])

    def _ports(self) -> list[int]:
        kept = self.terms.folder / _PORTS
        if not kept.exists():
            kept.write_text(json.dumps(free_ports(4)))
        ports: list[int] = json.loads(kept.read_text())
        return ports


def _insist(answer: Message | None) -> None:
    """Raise for a refusal, which ends the step for good."""
    if (reason := refusal(answer)) is not None:
        raise restate.TerminalError(reason)
