"""The embedded broker: a Kafka broker that needs nothing installed beside Python packages.

It is the test cluster that ships inside librdkafka, in the confluent-kafka wheel. It speaks the Kafka
protocol over TCP on a free loopback port, so aiokafka connects to it as to any broker.
`common.embedded_process` holds the cluster; this module starts that process and hands it commands.

Why a process of its own: the cluster is C code with assertions, so a client that breaks its rules would abort
the lab with it; its control functions block their caller, back to back for as long as a second; and a broker
that can be killed and watched like any other is what a lab about failure needs. The child ends when its stdin
does, which the operating system closes even if the parent is killed, so it never outlives its parent.

Its limits, which real brokers don't have:
- everything is in memory: it ends with the process;
- a partition keeps at most 5 MiB and 100,000 record sets; a consumer that falls further behind has to get an
  error, hence `auto_offset_reset="none"` in `common.broker`;
- one member per consumer group (further ones mostly fail to join), and one assignor: mixing assignors in a
  group aborts the process. With aiokafka's session timeout of 10 s, the next member waits 9 s to join after
  the last one left, and 19 s after it was killed; a consumer that takes all partitions by `assign`, with a
  group for its commits only, never waits;
- no creating and deleting of topics by an admin client, no offsets by time, no idempotence, no transactions;
  a client that asks about an unknown topic creates it, with 4 partitions;
- an empty fetch is held for the whole `fetch_max_wait_ms`, even if a record arrives meanwhile.

Where the library's control functions can't be reached (an unusual build of confluent-kafka), a plain fallback
takes over: topics have 4 partitions, a group's first join takes 3 s, and no faults can be injected.
"""

import asyncio
import itertools
import json
import logging
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from common.errors import BrokerError

_PROGRAM = Path(__file__).with_name("embedded_process.py")
# Generous: starting takes 0.1 s and a command milliseconds, but a busy machine must not make them fail.
_REPLY_SECONDS = 20.0
_STOP_SECONDS = 2.0

_log = logging.getLogger(__name__)


class _Child(NamedTuple):
    process: Process
    commands: StreamWriter
    replies: StreamReader


class EmbeddedBroker:
    """A running embedded broker, for the event loop that started it; made by `embedded_broker`.

    Every command raises `BrokerError` when the process has ended, refuses, or doesn't answer in time.
    """

    def __init__(self, child: _Child, bootstrap: str) -> None:
        self._child = child
        self._ids = itertools.count(1)
        self._turn = asyncio.Lock()
        self.bootstrap = bootstrap

    async def create_topics(self, names: Iterable[str], partitions: int) -> None:
        """Create the topics; repeating it with the same partition count changes nothing."""
        await self._command("create_topics", names=list(names), partitions=partitions)

    async def down(self) -> None:
        """Close every connection and the listening port; records, topics and commits are kept."""
        await self._command("down")

    async def up(self) -> None:
        """Listen again, on the same port."""
        await self._command("up")

    async def set_round_trip(self, milliseconds: int) -> None:
        """Delay every answer of the broker by this long."""
        await self._command("set_round_trip", milliseconds=milliseconds)

    async def stop(self) -> None:
        """End the process: politely, and after two seconds by force. A second call changes nothing."""
        await _end(self._child)

    async def exited(self) -> int:
        """Wait until the process has ended; its exit code, or minus the signal that ended it."""
        return await self._child.process.wait()

    async def _command(self, do: str, **arguments: object) -> None:
        number = next(self._ids)
        async with self._turn:
            await _write(self._child, {"id": number, "do": do, **arguments})
            reply = await _read(self._child)
            # A command that was cancelled while it waited has left its reply unread.
            while reply["id"] != number:
                reply = await _read(self._child)
        if reply["error"]:
            raise BrokerError(f"the embedded broker refuses: {reply['error']}")


@asynccontextmanager
async def embedded_broker(*, controlled: bool = True) -> AsyncIterator[EmbeddedBroker]:
    """Run a broker for the length of the block.

    `controlled=False` takes the fallback even where the control functions are in reach.

    Raises `BrokerError` if it can't start: confluent-kafka is missing, or no loopback port is free.
    """
    child = await _spawn(*(() if controlled else ("--plain",)))
    try:
        yield EmbeddedBroker(child, await _greeted(child))
    finally:
        await _end(child)


async def _spawn(*options: str) -> _Child:
    # -P: modules would otherwise be looked up in common/ first, where one may hide a standard module.
    command = (sys.executable, "-P", str(_PROGRAM), *options)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    return _Child(process, cast("StreamWriter", process.stdin), cast("StreamReader", process.stdout))


async def _greeted(child: _Child) -> str:
    greeting = await _read(child)
    if "error" in greeting:
        raise BrokerError(f"the embedded broker can't start: {greeting['error']}")
    if greeting["fallback"] is not None:
        _log.warning(
            "embedded broker without control functions (%s): 4 partitions per topic, no faults, "
            "and the first join of each consumer group takes 3 s",
            greeting["fallback"],
        )
    return str(greeting["bootstrap"])


async def _write(child: _Child, message: dict[str, object]) -> None:
    # If the process is gone, the read that follows says so, with its exit code.
    with suppress(ConnectionError):
        child.commands.write(json.dumps(message).encode() + b"\n")
        await child.commands.drain()


async def _read(child: _Child) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_REPLY_SECONDS):
            line = await child.replies.readline()
            if not line:
                code = await child.process.wait()
                raise BrokerError(f"the embedded broker has ended (exit code {code}): start the lab again")
    except TimeoutError:
        raise BrokerError(
            f"the embedded broker doesn't answer within {_REPLY_SECONDS:g} s: start the lab again"
        ) from None
    reply: dict[str, Any] = json.loads(line)
    return reply


async def _end(child: _Child) -> None:
    child.commands.close()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await child.process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()
