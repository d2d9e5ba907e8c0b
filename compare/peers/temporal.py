"""The saga with Temporal: a workflow calls activities, and undoes what it has done when one of them refuses.

Written as Temporal's documentation has it: a refusal is an error that isn't retried, and starts the
compensations, in reverse order; everything else is retried without end. Workflow and activities are on one
task queue of one worker, which lets the server hand out tasks without a poll. The id of the workflow is that
of the order.

The server is Temporal's development server, with its state in an SQLite file. It is the only one that needs
no cluster to be set up, and isn't meant for production.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar, Final

import msgspec
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
)
from temporalio.exceptions import (
    ApplicationError,
    ApplicationErrorCategory,
    WorkflowAlreadyStartedError,
)
from temporalio.service import RPCError
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from common.messages import (
    CompleteOrder,
    FailOrder,
    Message,
    PlaceOrder,
    ProcessPayment,
    ReleaseInventory,
    ReserveInventory,
)
from compare.peers import TEMPORAL_SERVER
from compare.peers import temporal_saga as saga
from compare.peers.participants import refusal
from compare.peers.peer import Peer
from compare.peers.processes import Server, find_program, free_ports

_QUEUE: Final = "orders"
_MOST_CACHED: Final = 10_000
"""Workflows that the worker keeps in memory; one that isn't there is replayed from its history."""
_PURE: Final = ("common", "compare")
"""Packages that aren't loaded anew for each workflow: it uses only messages of them, which are pure."""
_RAISED: Final = "history.transferProcessorMaxPollRPS=10000"
"""Times a second that the server may look for work to hand on; 20 by default: each step waits 50 ms."""


class _Structs(EncodingPayloadConverter):
    """The lab's messages as JSON; Temporal's own converter doesn't know their kind of class."""

    @property
    def encoding(self) -> str:
        return "json/msgspec"

    def to_payload(self, value: Any) -> Payload | None:  # noqa: ANN401 - the base's signature
        if not isinstance(value, Message):
            return None
        return Payload(metadata={"encoding": self.encoding.encode()}, data=msgspec.json.encode(value))

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:  # noqa: ANN401 - the base's
        return msgspec.json.decode(payload.data, type=type_hint or Any)


class MessagesConverter(CompositePayloadConverter):
    """Temporal's converter, and before it the one for messages."""

    def __init__(self) -> None:
        super().__init__(_Structs(), *DefaultPayloadConverter.default_encoding_payload_converters)


class Temporal(Peer):
    """Temporal as it comes."""

    name: ClassVar = "temporal"
    errors: ClassVar = (RPCError,)
    tuned: ClassVar = False
    local: ClassVar = False

    async def launch(self) -> None:
        """Start server and worker."""
        (port,) = free_ports(1)
        self.server = server = await Server.start(self._command(port), self.terms.folder)
        self.started.push_async_callback(server.stop)

        async def connect() -> None:
            self._client = await Client.connect(
                f"127.0.0.1:{port}",
                data_converter=DataConverter(payload_converter_class=MessagesConverter),
            )
            await self._running()

        # The client raises RuntimeError while nobody listens.
        await server.ready(connect, RuntimeError, RPCError)
        steps = (self.take_on, self.reserve, self.charge, self.release, self.complete, self.fail)
        worker = Worker(
            self._client,
            task_queue=_QUEUE,
            workflows=[saga.OrderSaga],
            activities=steps,
            max_cached_workflows=_MOST_CACHED,
            workflow_runner=SandboxedWorkflowRunner(
                SandboxRestrictions.default.with_passthrough_modules(*_PURE)
            ),
        )
        await self.started.enter_async_context(worker)

    async def submit(self, order: PlaceOrder) -> None:
        """Start the workflow of an order."""
        with suppress(WorkflowAlreadyStartedError):
            await self._client.start_workflow(
                saga.OrderSaga.run,
                args=[order, self.local],
                id=order.order_id,
                task_queue=_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            )

    async def busy(self) -> bool:
        """Whether a workflow is running."""
        return await self._running() > 0

    @activity.defn(name=saga.PLACE)
    async def take_on(self, order: PlaceOrder) -> None:
        """Take the order on."""
        await self.services.order.carry_out(order)

    @activity.defn(name=saga.RESERVE)
    async def reserve(self, command: ReserveInventory) -> None:
        """Hold the goods."""
        _insist(await self.services.inventory.carry_out(command))

    @activity.defn(name=saga.CHARGE)
    async def charge(self, command: ProcessPayment) -> None:
        """Charge the customer."""
        _insist(await self.services.payment.carry_out(command))

    @activity.defn(name=saga.RELEASE)
    async def release(self, command: ReleaseInventory) -> None:
        """Give the goods back."""
        await self.services.inventory.carry_out(command)

    @activity.defn(name=saga.COMPLETE)
    async def complete(self, command: CompleteOrder) -> None:
        """End the order well."""
        self.told(await self.services.order.carry_out(command))

    @activity.defn(name=saga.FAIL)
    async def fail(self, command: FailOrder) -> None:
        """End the order whose effects are undone."""
        self.told(await self.services.order.carry_out(command))

    async def _running(self) -> int:
        return (await self._client.count_workflows("ExecutionStatus = 'Running'")).count

    def _command(self, port: int) -> list[str]:
        program = find_program(TEMPORAL_SERVER)
        command = [
            str(program),
            "server",
            "start-dev",
            "--headless",
            "--ip",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        command += ["--db-filename", str(self.terms.folder / "temporal.db"), "--log-level", "error"]
        if self.tuned:
            pragmas = ("journal_mode=wal", f"synchronous={self.terms.synchronous.lower()}")
            command += [f"--sqlite-pragma={pragma}" for pragma in pragmas]
            command += ["--dynamic-config-value", _RAISED]
        return command


class TunedTemporal(Temporal):
    """Temporal with the server's pace raised, and its database in the journal mode that the lab uses."""

    name: ClassVar = "temporal-tuned"
    tuned: ClassVar = True


class LocalTemporal(TunedTemporal):
    """The same, with local activities, which run within the workflow task and are recorded together."""

    name: ClassVar = "temporal-local"
    local: ClassVar = True


def _insist(answer: Message | None) -> None:
    """Raise for a refusal; it is benign, for it is what the service is there to say."""
    if (reason := refusal(answer)) is not None:
        raise ApplicationError(reason, non_retryable=True, category=ApplicationErrorCategory.BENIGN)
