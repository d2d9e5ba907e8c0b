"""The embedded broker as a process, its fallback and its limits."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from common.broker import delete_topics, ensure_topics
from common.embedded import EmbeddedBroker, embedded_broker
from common.errors import BrokerError
from tests.brokers import Embedded, consuming, producing, read, send, values

_ROOT = Path(__file__).parents[1]
_CHILD = (sys.executable, "-P", str(_ROOT / "common" / "embedded_process.py"))
_MIB = 1024 * 1024

# Starts a broker, tells its address, and waits to be killed.
_PARENT = """
import asyncio
from common.embedded import embedded_broker

async def main():
    async with embedded_broker() as broker:
        print(broker.bootstrap, flush=True)
        await broker.exited()

asyncio.run(main())
"""


async def test_it_is_silent(embedded: EmbeddedBroker, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither use, nor faults, nor its end write a line to the terminal."""
    broker = Embedded(embedded)
    await embedded.create_topics(["t"], 1)
    await send(broker, "t", [b"a"])
    await embedded.down()
    await embedded.up()
    async with consuming(broker, "t", group="g") as consumer:
        await read(consumer, 1)
    await embedded.stop()
    assert capfd.readouterr() == ("", "")


async def test_stopping_ends_the_process(embedded: EmbeddedBroker) -> None:
    """A stop ends the process in order, a second one does nothing, and commands are refused after it."""
    await embedded.stop()
    await embedded.stop()
    assert await embedded.exited() == 0
    with pytest.raises(BrokerError, match="has ended"):
        await embedded.up()


async def test_a_dead_process_is_noticed(embedded: EmbeddedBroker) -> None:
    """When the process is killed `exited` returns its signal, and commands say that it has ended."""
    embedded._child.process.kill()
    assert await embedded.exited() == -signal.SIGKILL
    with pytest.raises(BrokerError, match=r"has ended \(exit code -9\): start the lab again"):
        await embedded.create_topics(["t"], 1)


async def test_a_frozen_process_is_killed(embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that doesn't answer is an error in bounded time, and a stop still ends it."""
    monkeypatch.setattr("common.embedded._REPLY_SECONDS", 0.1)
    embedded._child.process.send_signal(signal.SIGSTOP)
    with pytest.raises(BrokerError, match=r"doesn't answer within 0\.1 s"):
        await embedded.down()
    await embedded.stop()
    assert await embedded.exited() == -signal.SIGKILL


async def test_a_cancelled_command_leaves_the_next_one_in_step(embedded: EmbeddedBroker) -> None:
    """A reply that nobody waited for is not taken for that of the next command."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await embedded.create_topics(["t"], 2)
    with pytest.raises(BrokerError, match="already exists"):
        await embedded.create_topics(["t"], 3)
    await ensure_topics(embedded.bootstrap, ["t"], 2)


def test_it_ends_when_its_parent_is_killed() -> None:
    """A parent that is killed, and so can't clean up, leaves no broker behind."""
    command = (sys.executable, "-c", _PARENT)
    with subprocess.Popen(command, cwd=_ROOT, stdout=PIPE, stderr=PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith(b"127.0.0.1:")
        parent.kill()
        # The broker inherited stderr, so this reads to the end only when both processes are gone.
        assert parent.communicate(timeout=30) == (b"", b"")


def test_it_ends_with_its_input() -> None:
    """The process greets with its address, and ends in order and in silence when its input does."""
    done = subprocess.run(_CHILD, input=b"", capture_output=True, check=True)
    assert json.loads(done.stdout)["bootstrap"].startswith("127.0.0.1:")
    assert done.stderr == b""


def test_it_leaves_signals_to_its_parent() -> None:
    """Ctrl-C and a group's SIGTERM don't end it: its parent still needs it to stop in order."""
    with subprocess.Popen(_CHILD, stdin=PIPE, stdout=PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGTERM)
        output, _ = child.communicate(b'{"id": 1, "do": "down"}\n', timeout=30)
    assert json.loads(output) == {"id": 1, "error": None}
    assert child.returncode == 0


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    """Without a usable confluent-kafka the greeting is an error that says what to install."""
    (tmp_path / "confluent_kafka.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(_CHILD, input=b"", capture_output=True, check=True, env=environment)
    assert re.match(r"confluent-kafka can't be imported .*: install it", json.loads(done.stdout)["error"])
    assert done.stderr == b""


async def test_the_fallback_serves_records(caplog: pytest.LogCaptureFixture) -> None:
    """Without control functions there is still a broker, and a line in the log says what it lacks."""
    async with embedded_broker(controlled=False) as handle:
        broker = Embedded(handle)
        await handle.create_topics(["t"], 4)
        await ensure_topics(handle.bootstrap, ["t"], 4)
        await send(broker, "t", [b"a"])
        async with consuming(broker, "t", group="g") as consumer:
            assert values(await read(consumer, 1)) == [b"a"]
    assert (
        "4 partitions per topic, no faults, and the first join of each consumer group takes 3 s"
        in caplog.text
    )


async def test_the_fallback_refuses_what_it_cannot_do() -> None:
    """Another partition count than four, and every fault, is an error that names the reason."""
    async with embedded_broker(controlled=False) as handle:
        with pytest.raises(BrokerError, match=r"can't have 3 partitions, .* use 4, or a broker named by"):
            await handle.create_topics(["t"], 3)
        for command in (handle.down(), handle.up(), handle.set_round_trip(5)):
            with pytest.raises(BrokerError, match="control functions are out of reach"):
                await command


async def test_a_round_trip_delays_answers(embedded: EmbeddedBroker) -> None:
    """Every answer takes at least the round trip that was set."""
    await embedded.create_topics(["t"], 1)
    async with producing(Embedded(embedded)) as producer:
        await producer.send_and_wait("t", b"a", partition=0)
        await embedded.set_round_trip(200)
        started = asyncio.get_running_loop().time()
        await producer.send_and_wait("t", b"b", partition=0)
        assert asyncio.get_running_loop().time() - started >= 0.2


async def test_an_overrun_is_an_error(embedded: EmbeddedBroker) -> None:
    """A group whose commit was overrun by retention gets an error, not what is left after the loss."""
    await embedded.create_topics(["t"], 1)
    broker, partition = Embedded(embedded), TopicPartition("t", 0)
    async with consuming(broker, "t", group="g", partitions=[0]) as consumer:
        await send(broker, "t", [b"first"])
        await read(consumer, 1)
        await consumer.commit({partition: 1})
    await send(broker, "t", [bytes(_MIB // 2)] * 12)
    async with consuming(broker, "t", group="g", partitions=[0]) as consumer:
        with pytest.raises(OffsetOutOfRangeError):
            await read(consumer, 1)


async def test_topics_are_checked_but_not_created_by_an_admin_client(embedded: EmbeddedBroker) -> None:
    """Creating and deleting by an admin client is refused at once, with the way that works."""
    await embedded.create_topics(["there"], 1)
    with pytest.raises(BrokerError, match="no admin calls: create its topics through EmbeddedBroker"):
        await ensure_topics(embedded.bootstrap, ["there", "missing"], 1)
    with pytest.raises(BrokerError, match="no admin calls"):
        await delete_topics(embedded.bootstrap, ["there"])
    await ensure_topics(embedded.bootstrap, ["there"], 1)


async def test_an_unreachable_broker_is_named(embedded: EmbeddedBroker) -> None:
    """An address at which nothing listens is an error that names it, the time waited, and the mend."""
    await embedded.down()
    with pytest.raises(BrokerError) as caught:
        await ensure_topics(embedded.bootstrap, ["t"], 1, timeout=0.3)
    assert str(caught.value).startswith(f"the broker at {embedded.bootstrap} is not ready after 0.3 s")
    assert str(caught.value).endswith("start it, or correct the address (KAFKA_BOOTSTRAP_SERVERS, --broker)")


async def test_a_port_that_never_answers_is_named() -> None:
    """An address that accepts connections but is no broker is the same error, in the same time."""
    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    address = "{}:{}".format(*server.sockets[0].getsockname())
    with pytest.raises(BrokerError, match=f"{address} is not ready after 0.3 s"):
        await ensure_topics(address, ["t"], 1, timeout=0.3)
    server.close()
    for writer in connections:
        writer.close()
        await writer.wait_closed()
    await server.wait_closed()
