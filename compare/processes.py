"""The other engine: each service of a replay is a process of its own, and a crash is a SIGKILL.

The code in the processes is the same as `compare.services` runs in one, with the same faults at the same
boundaries (`compare.host`). What differs is that they are real: a killed process leaves half-done what the
operating system makes of it, a stopped one (SIGSTOP) goes on in the middle of whatever it was at, and what
there is to know about a service, the lab asks the broker and the service's database, as any outsider could.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from common.core import Core
from common.domain.order import OrderStatus
from common.errors import BrokerError, LabError
from common.messages import CancelOrder, PlaceOrder, RetryCompensation, write
from common.probe import Boundary
from common.runner import BrokerLink
from common.wiring import Wiring
from compare.acts import Acts, away, keep_company
from compare.child import HOST, Child
from compare.engine import Surroundings
from compare.faults import IN_THE_DECIDER, Fault
from compare.injection import Struck
from compare.lines import Instructions, packed, unpacked
from compare.wire import Ends

_START_LIMIT_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.03
"""How often the lab looks whether all is quiet: each time costs the broker a request for each service."""


class Processes(Acts):
    """All services of a mode, each in a process that is started again when a fault has killed it.

    `host` is the command that runs `compare.host`.
    """

    def __init__(self, around: Surroundings, ends: Ends, host: Sequence[str] = HOST) -> None:
        super().__init__(replace(around, link=_link(around)), ends)
        self.children: dict[str, Child] = {}
        self._host = host
        self._cores: dict[str, Core] = {}
        self._offsets = _Offsets(around.link.bootstrap_servers)
        self._one_outage = asyncio.Lock()

    @property
    def idle(self) -> bool:
        """Whether no fault is under way: nothing is dead, stopped, away or held that will be back."""
        return self._wire.idle and not self._acts and not any(one.is_away for one in self.children.values())

    def cores(self) -> Mapping[str, Core]:
        """By service: a core over its database."""
        return self._cores

    def check(self) -> None:
        """Raise a LabError if a service has died that no fault has killed."""
        for child in self.children.values():
            child.check()

    async def start(self) -> None:
        """Start every service, and wait until all have their partitions.

        Raises:
            BrokerError: they were not ready in time.
            LabError: one has died.
        """
        self._injection.begin()
        for wiring in self._around.mode.services:
            self._cores[wiring.name] = self._around.premises.core(wiring)
            self.children[wiring.name] = child = self._child(wiring)
            child.start()
        try:
            async with asyncio.timeout(_START_LIMIT_S):
                await asyncio.gather(*(child.ready() for child in self.children.values()))
        except TimeoutError:
            late = ", ".join(str(child) for child in self.children.values() if not child.is_ready)
            message = f"the services were not ready within {_START_LIMIT_S:g} s ({late})"
            raise BrokerError(message) from None

    async def place(self, command: PlaceOrder) -> None:
        """Place an order; return once it is committed."""
        # Asked again because the process died before its answer, it finds the order there.
        await self._request(command, None)

    async def request(self, command: CancelOrder | RetryCompensation, at: OrderStatus) -> bool:
        """Ask for what an order can only take at a status; whether it was at that."""
        return await self._request(command, at)

    async def quiet(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether all that there is on the broker, up to these ends, is consumed, and nothing is to come.

        First what is committed, and then the databases: what a record leads to is in there before the record
        counts as consumed.
        """
        if not self.idle:
            return False
        for wiring in self._around.mode.services:
            heard = {self._around.link.prefix + topic for topic in wiring.subscriptions}
            due = {where: end for where, end in ends.items() if where.topic in heard and end}
            committed = await self._offsets.of(self._around.link.prefix + wiring.group, due)
            if any(committed.get(where, 0) < end for where, end in due.items()):
                return False
        partitions = range(self._around.link.partitions)
        return not any(core.backlog() or core.expects(partitions) for core in self._cores.values())

    async def progress(self, timeout_s: float) -> None:
        """Wait a moment: an outsider isn't told when something has been processed."""
        await asyncio.sleep(max(timeout_s, _LOOK_EVERY_S))

    async def stop(self) -> None:
        """Stop every service, and whatever a fault has left under way."""
        await self._end_acts()
        await asyncio.gather(*(child.stop() for child in self.children.values()))
        await self._clear_away()
        await self._offsets.stop()
        for core in self._cores.values():
            core.database.close()

    async def _request(self, command: PlaceOrder | CancelOrder | RetryCompensation, at: str | None) -> bool:
        answer = await self.children["order"].ask(
            "request", type=type(command).__name__, message=write(command).decode(), at=at
        )
        if answer["error"] is not None:
            raise LabError(f"the Order service can't take a {type(command).__name__}: {answer['error']}")
        return bool(answer["accepted"])

    def _child(self, wiring: Wiring) -> Child:
        return Child(str(wiring), self._host, partial(self._instructions, wiring), self._heard)

    def _instructions(self, wiring: Wiring) -> str:
        around = self._around
        return Instructions(
            mode=around.mode.name,
            service=wiring.name,
            scenario=around.plan.scenario,
            rules=around.plan.rules,
            link=around.link,
            folder=around.folder,
            orders=self._names if around.plan.scenario.faults else {},
            memory=self._injection.memory(),
            log_level=logging.getLogger().getEffectiveLevel(),
        ).model_dump_json()

    def _heard(self, child: Child, said: Mapping[str, Any]) -> None:
        """Take note of what a process says of its faults, and do what they want to be done."""
        match said:
            case {"say": "seen", "index": int(index), "order_id": str(order_id), "kind": str(kind)}:
                self._injection.see(index, order_id, kind)
            case {"say": "records", "id": int(number), "records": list(rows)}:
                at_once = self._wire.take(child.service, unpacked(rows))
                child.tell("records", id=number, records=packed(at_once))
            case {"say": "struck", "index": int(index)}:
                boundary = Boundary(said["boundary"])
                struck = self._injection.strike(
                    self._injection.target(index),
                    service=child.service,
                    boundary=boundary,
                    order_id=said["order_id"],
                )
                struck.at = said["at"]
                self._act(child, struck)

    def _act(self, child: Child, struck: Struck) -> None:
        """Carry out what a process can't do to itself."""
        seconds, fault = struck.target.spec.duration_s, struck.target.spec.fault
        if fault in IN_THE_DECIDER:
            struck.ended()
        match fault:
            case Fault.CRASH:
                child.dies(seconds, struck.ended)
            case Fault.STOP:
                self.begin(child.stand_still(seconds), struck)
            case Fault.BROKER_OUTAGE:
                self.begin(self._be_away(child, seconds), struck)
            case Fault.SLOW_BROKER:
                self._slow_down_broker(struck)
            case Fault.REBALANCE:
                second = self._child(self._around.mode.service(child.service))
                self.begin(keep_company(second, seconds), struck)

    async def _be_away(self, child: Child, seconds: float) -> None:
        """Take the broker away; the process that is at the boundary waits until it is."""
        async with self.outage():
            await child.go_on()
            await asyncio.sleep(seconds)

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """The broker is away for the length of the block, if the lab can take it away; one at a time."""
        broker = self._around.outage
        if broker is None:
            yield
            return
        async with self._one_outage, away(broker):
            yield


def _link(around: Surroundings) -> BrokerLink:
    """The way to the broker, without consumer groups unless a fault is about those.

    A member that is killed stays in its group until its session has ended, 10 s later, on any broker. Who
    takes its place would wait for that, and the scenario be about little else.
    """
    rebalances = any(spec.fault is Fault.REBALANCE for spec in around.plan.scenario.faults)
    return replace(around.link, sole_instance=around.link.sole_instance or not rebalances)


class _Offsets:
    """Asks the broker how far the groups have come."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._admin: AIOKafkaAdminClient | None = None

    async def of(self, group: str, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offsets that the group has committed, below 0 for none; nothing if the broker doesn't say."""
        try:
            if self._admin is None:
                admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap_servers)
                await admin.start()
                self._admin = admin
            found = await self._admin.list_consumer_group_offsets(group, partitions=list(partitions))
        except KafkaError:
            # One that has failed may fail for ever.
            await self.stop()
            return {}
        return {where: committed.offset for where, committed in found.items()}

    async def stop(self) -> None:
        """Disconnect; idempotent."""
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(KafkaError):
                await admin.close()
