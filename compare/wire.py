"""The wire between the services' producers and the broker, where records get lost, late, doubled or broken.

It belongs to no service: what it holds outlives the one that has sent it, as a network's buffers do. A
service believes of every record that it hands over that the broker has it. Within one key and topic nothing
overtakes anything, for Kafka never lets that happen; what is held holds up what comes behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from msgspec.structs import replace

from common.envelope import Outgoing
from common.errors import BrokerError
from common.publisher import Publisher
from common.wiring import DEAD_LETTERS
from compare.faults import Fault
from compare.injection import Injection, Struck

_NOT_JSON: Final = b"\xff\x00 this was a message once"
_PASSED_BY_S: Final = 2.0
"""How long a record waits to be overtaken, at most: there may be no other order."""
_TRY_AGAIN_S: Final = 0.05

Place = tuple[str, bytes | None]
"""A topic and a key: what is here stays in order."""


class Ends(Protocol):
    """Who knows which orders have ended."""

    async def until_ended(self, order_id: str) -> None:
        """Wait for the end of an order."""


class Wire:
    """What is between all services of a replay and the broker.

    `publisher` is its own way to the broker, for what it has held.
    """

    def __init__(self, injection: Injection, publisher: Publisher, ends: Ends) -> None:
        self._injection = injection
        self._publisher = publisher
        self._ends = ends
        self._treated: dict[tuple[str, str], tuple[Outgoing, ...]] = {}
        """By id and attempt: what became of a record that was struck, should it be handed over again."""
        self._held: dict[Place, list[Outgoing]] = {}
        self._overtaken: dict[str, tuple[Place, asyncio.Event]] = {}
        """By type: what waits to be overtaken by a record of that type, and the sign that it was."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether it holds nothing, and nothing is to come from it any more."""
        return not self._tasks

    def take(self, service: str, records: Sequence[Outgoing]) -> list[Outgoing]:
        """What of these goes to the broker at once."""
        at_once: list[Outgoing] = []
        for record in records:
            place = record.topic, record.key
            treated = self._treat(service, record)
            if place in self._held:
                waiting = self._held[place]
                waiting += [one for one in treated if one not in waiting]
            else:
                at_once += treated
        return at_once

    async def stop(self) -> None:
        """Drop what is held, and disconnect."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._publisher.stop()

    def _treat(self, service: str, record: Outgoing) -> tuple[Outgoing, ...]:
        """What is put on the wire for a record: it, or several, or none, or something else."""
        headers = dict(record.headers)
        known = record.id, headers.get("ce_attempt", b"1").decode()
        if known in self._treated:
            return self._treated[known]
        if record.topic.endswith(DEAD_LETTERS):
            return (record,)
        treated: tuple[Outgoing, ...] = (record,)
        kind = headers.get("ce_type", b"").decode()
        self._let_pass(kind, record)
        for struck in self._injection.strike_on_wire(service, record):
            treated = self._treated[known] = self._strike(struck, record, kind)
        return treated

    def _strike(self, struck: Struck, record: Outgoing, kind: str) -> tuple[Outgoing, ...]:
        spec = struck.target.spec
        place = record.topic, record.key
        match spec.fault:
            case Fault.POISON:
                struck.ended()
                return (replace(record, value=_NOT_JSON),)
            case Fault.LOSE:
                struck.ended()
                return ()
            case Fault.DUPLICATE:
                struck.ended()
                return (record,) * (1 + (spec.times if isinstance(spec.times, int) else 1))
            case Fault.REPLAY:
                self._start(self._replay(struck, record))
            case Fault.DELAY:
                self._held.setdefault(place, [])
                self._start(self._release(struck, place, asyncio.sleep(spec.duration_s)))
            case Fault.REORDER:
                passed = asyncio.Event()
                self._held.setdefault(place, [])
                self._overtaken[kind] = place, passed
                self._start(self._release(struck, place, _at_most(passed.wait(), _PASSED_BY_S)))
        return (record,)

    def _let_pass(self, kind: str, record: Outgoing) -> None:
        """Note that a record of another order overtakes what waits for that."""
        if kind in self._overtaken:
            place, passed = self._overtaken[kind]
            if place != (record.topic, record.key):
                passed.set()

    async def _release(self, struck: Struck, place: Place, until: Coroutine[Any, Any, object]) -> None:
        await until
        # What overtakes has to be on the broker first.
        await asyncio.sleep(_TRY_AGAIN_S)
        while waiting := self._held.get(place):
            # While this is under way, more may come, and must stay behind it.
            sent = list(waiting)
            await self._insist(sent)
            del waiting[: len(sent)]
        self._held.pop(place, None)
        struck.ended()

    async def _replay(self, struck: Struck, record: Outgoing) -> None:
        await self._ends.until_ended((record.key or b"").decode())
        await asyncio.sleep(struck.target.spec.duration_s)
        await self._insist([record])
        struck.ended()

    async def _insist(self, records: Sequence[Outgoing]) -> None:
        """Deliver, though the broker may be away."""
        while True:
            try:
                await self._publisher.start()
                await self._publisher.publish(records)
            except BrokerError:
                await asyncio.sleep(_TRY_AGAIN_S)
            else:
                return

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _at_most(work: Coroutine[Any, Any, object], seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await work


class WiredPublisher:
    """A service's publisher, with the wire behind it."""

    def __init__(self, service: str, wire: Wire, publisher: Publisher) -> None:
        self._service = service
        self._wire = wire
        self._publisher = publisher

    async def start(self) -> None:
        """Connect, unless that is done; BrokerError if the broker can't be reached."""
        await self._publisher.start()

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Hand the records to the wire, and wait until the broker has those that it lets through at once."""
        at_once = self._wire.take(self._service, records)
        if at_once:
            await self._publisher.publish(at_once)

    async def stop(self) -> None:
        """Disconnect; idempotent."""
        await self._publisher.stop()
