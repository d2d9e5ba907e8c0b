"""One service of a replay in a process of its own: `python -m compare.host`, started by `compare.processes`.

It talks in lines of JSON. The first line on stdin says which service it is to be, and each further one is a
command. Its own lines, on stdout, begin with what they say:

- `ready`: the broker has given the service its partitions;
- `seen`: a fault has counted a record. The next process is told, should this one die;
- `struck`: a fault strikes. This is the last line if that is a crash, for then the process kills itself at
  that very boundary. If it is a stop, or the broker is to be taken away, the process stops itself there until
  the lab has it go on, and then says `moves`;
- `records`: what the service wants to publish, where faults strike on the wire. The wire is the lab's, for it
  outlives the service; the answer is what goes to the broker at once;
- `answer`: to a command;
- `died`: why the service can't go on.

The end of stdin ends the process, so it never outlives the lab, even one that is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import sys
import threading
from asyncio import Future, StreamReader
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

import choreographed
import orchestrated
from common.domain.order import OrderStatus
from common.envelope import Outgoing
from common.garbage import collect_seldom
from common.messages import CancelOrder, PlaceOrder, RetryCompensation, read
from common.patience import short
from common.probe import Boundary
from common.publisher import Publisher
from common.wiring import Mode
from compare.aim import Target
from compare.faults import Fault
from compare.injection import Injection, Struck
from compare.instance import LabRunner
from compare.lines import LONGEST_LINE, Instructions, packed, unpacked

MODES: Final = {mode.name: mode for mode in (orchestrated.MODE, choreographed.MODE)}
_REQUESTS: Final = {message.__name__: message for message in (PlaceOrder, CancelOrder, RetryCompensation)}
_DIED: Final = 1


class Mouth:
    """Says lines to the lab: each is out before anything else is done, so that no later death can keep it."""

    def __init__(self) -> None:
        self._file = os.dup(1)
        # What is printed by chance must not get between the lines.
        os.dup2(2, 1)
        self._turn = threading.Lock()

    def say(self, what: str, **details: object) -> None:
        """Say it."""
        rest = json.dumps({"say": what, **details}).encode() + b"\n"
        # A lab that has gone can't be told anything; the end of stdin says so, too.
        with self._turn, suppress(BrokenPipeError):
            while rest:
                rest = rest[os.write(self._file, rest) :]


class _HostedInjection(Injection):
    """Tells the lab whatever it counts, and whatever strikes."""

    def __init__(self, instructions: Instructions, mode: Mode, mouth: Mouth) -> None:
        super().__init__(instructions.scenario, mode, instructions.orders)
        self._mouth = mouth
        for index, order_id, kind in instructions.memory.seen:
            super().see(index, order_id, kind)
        for index in instructions.memory.struck:
            super().strike(self.target(index), service=None, boundary=None, order_id=None)

    def see(self, index: int, order_id: str, kind: str) -> None:
        """Count a record of a fault's step, unless it is counted already."""
        super().see(index, order_id, kind)
        self._mouth.say("seen", index=index, order_id=order_id, kind=kind)

    def strike(
        self, target: Target, *, service: str | None, boundary: Boundary | None, order_id: str | None
    ) -> Struck:
        """Note that a fault strikes now."""
        struck = super().strike(target, service=service, boundary=boundary, order_id=order_id)
        self._mouth.say("struck", index=target.index, boundary=boundary, order_id=order_id, at=struck.at)
        return struck


class Host:
    """The service, and what is told of it."""

    def __init__(self, instructions: Instructions, mouth: Mouth) -> None:
        mode, premises = MODES[instructions.mode], instructions.premises
        wiring = mode.service(instructions.service)
        injection = _HostedInjection(instructions, mode, mouth)
        publisher = premises.publisher()
        if injection.on_the_wire():
            publisher = _WiredPublisher(self, publisher)
        self._mouth = mouth
        self._numbers = itertools.count(1)
        self._on_the_wire: dict[int, Future[list[Outgoing]]] = {}
        self._runner = LabRunner(
            premises.core(wiring, injection.probe(wiring.name, self._act)),
            premises.link,
            publisher,
            injection.clock(wiring.name),
            own_thread=True,
        )

    async def run(self, lines: StreamReader) -> int:
        """Be the service until there are no more lines; returns the exit code."""
        running = self._runner.start()
        obeying = asyncio.create_task(self._obey(lines))
        telling = asyncio.create_task(self._tell_ready())
        await asyncio.wait({running, obeying}, return_when=asyncio.FIRST_COMPLETED)
        error = self._runner.failure
        if error is not None:
            self._mouth.say("died", error=str(error) or repr(error))
        for task in (obeying, telling):
            task.cancel()
        await asyncio.gather(obeying, telling, return_exceptions=True)
        await self._runner.stop()
        return 0 if error is None else _DIED

    async def by_the_wire(self, records: Sequence[Outgoing]) -> list[Outgoing]:
        """What of these goes to the broker at once."""
        number = next(self._numbers)
        answer: Future[list[Outgoing]] = asyncio.get_running_loop().create_future()
        self._on_the_wire[number] = answer
        self._mouth.say("records", id=number, records=packed(records))
        return await answer

    async def _tell_ready(self) -> None:
        await self._runner.ready()
        self._mouth.say("ready")

    async def _obey(self, lines: StreamReader) -> None:
        async with asyncio.TaskGroup() as requests:
            async for line in lines:
                command = json.loads(line)
                match command:
                    case {"do": "records", "id": int(number), "records": list(rows)}:
                        self._on_the_wire.pop(number).set_result(unpacked(rows))
                    case {"do": "request"}:
                        requests.create_task(self._request(**command))

    async def _request(self, *, id: int, type: str, message: str, at: str | None, **_: object) -> None:  # noqa: A002 - as the line has it
        """Take what would come over HTTP."""
        command = read(message.encode(), _REQUESTS[type])
        try:
            accepted = await self._runner.request(command, None if at is None else OrderStatus(at))
        except SQLAlchemyError as error:
            self._mouth.say("answer", id=id, accepted=False, error=short(error))
        else:
            self._mouth.say("answer", id=id, accepted=accepted, error=None)

    def _act(self, struck: Struck) -> None:
        """Carry out what strikes the service at a boundary; what else there is to be done is the lab's."""
        match struck.target.spec.fault:
            case Fault.CRASH:
                # To this thread, so that not even this one gets beyond it.
                signal.pthread_kill(threading.get_ident(), signal.SIGKILL)
            case Fault.STOP | Fault.BROKER_OUTAGE:
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
                self._mouth.say("moves")
            case Fault.SLOW:
                self._runner.lag_s = struck.target.spec.duration_s


class _WiredPublisher:
    """A publisher with the lab's wire behind it."""

    def __init__(self, host: Host, publisher: Publisher) -> None:
        self._host = host
        self._publisher = publisher

    async def start(self) -> None:
        """Connect, unless that is done; BrokerError if the broker can't be reached."""
        await self._publisher.start()

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Hand the records to the wire, and wait until the broker has those that it lets through at once."""
        at_once = await self._host.by_the_wire(records)
        if at_once:
            await self._publisher.publish(at_once)

    async def stop(self) -> None:
        """Disconnect; idempotent."""
        await self._publisher.stop()


async def _host() -> int:
    mouth = Mouth()
    lines = StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    line = await lines.readline()
    if not line:
        return 0
    instructions = Instructions.model_validate_json(line)
    logging.basicConfig(level=instructions.log_level, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # As in the lab itself: what a fault makes a service give up is in the report.
    logging.getLogger("common.batch").setLevel(logging.CRITICAL)
    return await Host(instructions, mouth).run(lines)


def main() -> int:
    """Be the service that the first line on stdin tells of; returns the exit code."""
    collect_seldom()
    return asyncio.run(_host())


if __name__ == "__main__":
    sys.exit(main())
