"""The dead letters as an operator sees them: a command, its output and its exit code, on either broker."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import orchestrated
from common.broker import find_topics
from common.core import Core
from common.dead_letters import Failure, dead_letter
from common.domain.decision import Rules
from common.embedded import EmbeddedBroker
from common.envelope import Cause, Outgoing, origin, seal
from common.errors import PermanentError
from common.messages import CancelPayment, Message, Reason
from common.probe import Probe
from common.publisher import KafkaPublisher
from common.runner import BrokerLink, Runner
from tests.brokers import Broker, Embedded, Kafka, consuming, read
from tests.compare.test_cli import NOBODY, assert_usage, compare
from tests.databases import SQLITE
from tests.pump import NOW, delivered, order_id
from tests.running import PARTITIONS, until

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

PAYMENT = orchestrated.MODE.service("payment")
SOURCE = "/orchestrated/orchestrator"


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, embedded: EmbeddedBroker) -> Broker:
    """Each kind of broker in turn."""
    if request.param == "embedded":
        return Embedded(embedded)
    return Kafka(request.getfixturevalue("kafka"))


async def dlq(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return await asyncio.to_thread(compare, "dlq", *arguments, **environment)


def cancel(number: int, prefix: str = "") -> Outgoing:
    """A record that asks for an order's payment to be cancelled."""
    message = CancelPayment(order_id=order_id(number), reason=Reason.CANCELLED)
    because = origin(order_id(number), number % PARTITIONS)
    return seal(message, because, source=SOURCE, topic=f"{prefix}saga.commands", index=0, now=NOW)


def letter(record: Outgoing, offset: int = 0, service: str = "orchestrated/payment") -> Outgoing:
    """What becomes of a record that a service gives up."""
    failure = Failure("failed", PermanentError("no such bank"), service, 5, f"2026-01-02T03:04:0{offset}.0Z")
    return dead_letter(delivered(record, offset), f"{record.topic}.dlq", failure)


async def publish(broker: Broker, *records: Outgoing) -> None:
    """Put records on their topics, in this order."""
    publisher = KafkaPublisher(broker.bootstrap)
    await publisher.start()
    for record in records:
        await publisher.publish([record])
    await publisher.stop()


@pytest.fixture
async def letters(embedded: EmbeddedBroker) -> Embedded:
    """A broker with four dead letters: two services gave one record up, one of them twice; and a wild one."""
    broker = Embedded(embedded)
    await broker.create_topics(["saga.commands", "saga.commands.dlq", "other", "other.dlq"], PARTITIONS)
    wild = Outgoing("", "other.dlq", 2, None, b"\xff\x00", (("color", b"\x1b[31m\xff"),))
    first = cancel(1)
    await publish(
        broker, letter(first, 1), letter(first, 2, "another"), letter(first, 3), letter(cancel(2), 4), wild
    )
    return broker


async def test_list(letters: Embedded) -> None:
    """One line for each id and service, newest last, with all that is needed to find it."""
    done = await dlq("list", KAFKA_BOOTSTRAP_SERVERS=letters.bootstrap)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = (line.split() for line in done.stdout.splitlines())
    assert head == ["place", "time", "service", "reason", "tries", "type", "order", "id"]
    first, second = cancel(1), cancel(2)
    row = ["failed", "5", "CancelPayment"]
    assert lines == [
        ["other.dlq:2@0", "-", "-", "-", "-", "-", "-", "-"],
        ["saga.commands.dlq:1@1", "2026-01-02T03:04:02", "another", *row, order_id(1), first.id],
        ["saga.commands.dlq:1@2", "2026-01-02T03:04:03", "orchestrated/payment", *row, order_id(1), first.id],
        [
            "saga.commands.dlq:2@0",
            "2026-01-02T03:04:04",
            "orchestrated/payment",
            *row,
            order_id(2),
            second.id,
        ],
    ]
    of_one = await dlq("list", "--broker", letters.bootstrap, "--topic", "saga.commands", "--json")
    assert [one["id"] for one in json.loads(of_one.stdout)] == [first.id, first.id, second.id]


async def test_show(letters: Embedded) -> None:
    """All that is known of one, by its id or by its place; what is no text is shown in hexadecimal digits."""
    shown = (await dlq("show", cancel(2).id, "--broker", letters.bootstrap)).stdout
    for line in (
        "saga.commands.dlq:2@0",
        "  reason: failed, at try 5",
        "  origin: saga.commands[2]@4",
        "  error: PermanentError: no such bank",
        "  ce_type: CancelPayment",
        f'  {{"order_id":"{order_id(2)}","reason":"cancelled"}}',
        "  common.errors.PermanentError: no such bank",
    ):
        assert line in shown.splitlines()
    wild = await dlq("show", "other.dlq:2@0", "--broker", letters.bootstrap)
    assert wild.stdout == "other.dlq:2@0\nheaders\n  color: 0x1b5b33316dff\nbody\n  0xff00\nstack\n"
    as_json = await dlq("show", cancel(1).id, "--broker", letters.bootstrap, "--json")
    assert [one["service"] for one in json.loads(as_json.stdout)] == ["another", "orchestrated/payment"]


async def test_replay(letters: Embedded) -> None:
    """The original is on its topic again, once, in its partition, as it was; a dry run only says so."""
    first = cancel(1)
    dry = await dlq("replay", "--all", "--dry-run", "--broker", letters.bootstrap)
    assert len(dry.stdout.splitlines()) == 3
    done = await dlq("replay", first.id, "--broker", letters.bootstrap)
    assert (done.returncode, done.stdout) == (0, f"{first.id} is on saga.commands[1] again\n")
    everything = await dlq("replay", "--all", "--broker", letters.bootstrap)
    assert everything.returncode == 0
    assert everything.stdout.endswith(
        "1 without a readable id, or without their body, are left as they are\n"
    )
    async with consuming(letters, "saga.commands", "other", partitions=range(PARTITIONS)) as consumer:
        found = await read(consumer, 3)
    sent = [first, first, cancel(2)]
    assert sorted(map(_content, found)) == sorted(
        (one.partition, one.key, one.value, one.headers) for one in sent
    )


def _content(record: Any) -> tuple[object, ...]:  # noqa: ANN401 - aiokafka is untyped
    return record.partition, record.key, record.value, tuple(record.headers)


async def test_nothing_to_show(embedded: EmbeddedBroker) -> None:
    """A broker without dead letters, or even topics of them, is no error; nor is a topic made by asking."""
    for command in (["list"], ["replay", "--all"]):
        done = await dlq(*command, "--broker", embedded.bootstrap)
        assert (done.returncode, done.stdout) == (0, "There are no dead letters.\n")
    done = await dlq("list", "--topic", "saga.commands", "--broker", embedded.bootstrap)
    assert_usage(done, f"There is no topic saga.commands.dlq at {embedded.bootstrap}.")
    assert await find_topics(embedded.bootstrap) == {}


async def test_what_cannot_be_replayed(embedded: EmbeddedBroker) -> None:
    """An unknown id is refused, and so is a letter whose topic is gone; nothing is put anywhere."""
    broker = Embedded(embedded)
    await broker.create_topics(["saga.commands.dlq"], PARTITIONS)
    await publish(broker, letter(cancel(1)))
    for command in ("show", "replay"):
        done = await dlq(command, "nothing", "--broker", broker.bootstrap)
        assert_usage(done, "There is no dead letter 'nothing'")
    done = await dlq("replay", "--all", "--broker", broker.bootstrap)
    assert_usage(done, "saga.commands.dlq:1@0: there is no saga.commands[1] to replay it on.")
    assert list(await find_topics(broker.bootstrap)) == ["saga.commands.dlq"]


async def test_no_broker() -> None:
    """Without a broker to ask, it says how to name one; with one that is away, that it is."""
    assert_usage(await dlq("list"), "--broker HOST:PORT", "KAFKA_BOOTSTRAP_SERVERS")
    assert_usage(await dlq("list", "--broker", "embedded"), "'embedded' is not HOST:PORT")
    assert_usage(await dlq("replay"), "required")
    away = await dlq("list", "--broker", NOBODY)
    assert (away.returncode, away.stdout) == (2, "")
    assert away.stderr.startswith(f"Could not be done: the broker at {NOBODY} is not ready")


class Refusing(Probe):
    """Has every command fail for good, as long as it refuses."""

    refuses = True

    def deciding(self, command: Message, because: Cause) -> None:
        if self.refuses:
            raise PermanentError(f"no {type(command).__name__} for {because.id}")


@asynccontextmanager
async def paying(broker: Broker, folder: Path, probe: Probe) -> AsyncIterator[Runner]:
    """The Payment service, on topics of its own."""
    link = BrokerLink(broker.bootstrap, PARTITIONS, broker.fetch_max_wait_ms, prefix=f"{folder.name}.")
    await broker.create_topics([link.prefix + topic for topic in PAYMENT.all_topics], PARTITIONS)
    database = SQLITE.open("payment", folder, PAYMENT.domain.storage.tables)
    core = Core(PAYMENT, Rules(), database, link.prefix, probe=probe)
    runner = Runner(core, link, KafkaPublisher(broker.bootstrap))
    runner.start()
    try:
        await runner.ready()
        yield runner
    finally:
        await runner.stop()


async def test_a_poisoned_record_is_processed_after_all(broker: Broker, tmp_path: Path) -> None:
    """What a service has given up is in the list, and is processed, under its id, once it is replayed."""
    probe = Refusing()
    record = cancel(1, prefix=f"{tmp_path.name}.")
    async with paying(broker, tmp_path, probe) as runner:
        unreadable = replace(record, value=b"{")
        await publish(broker, unreadable, record)

        async def buried() -> bool:
            return runner.core.counts["dead_letter"] == 2 and (await runner.readiness()).backlog == 0

        await until(buried)
        listing = await dlq("list", "--topic", record.topic, "--broker", broker.bootstrap, "--json")
        (only,) = json.loads(listing.stdout)
        assert (only["id"], only["service"], only["reason"]) == (record.id, "orchestrated/payment", "failed")

        probe.refuses = False
        for _ in range(2):
            done = await dlq("replay", record.id, "--broker", broker.bootstrap)
            assert done.stdout == f"{record.id} is on {record.topic}[{record.partition}] again\n"
        async with consuming(
            broker, f"{tmp_path.name}.saga.events", partitions=range(PARTITIONS)
        ) as consumer:
            (answer,) = await read(consumer, 1)
        headers = dict(answer.headers)
        assert (headers["ce_type"], headers["ce_causationid"]) == (b"PaymentRefunded", record.id.encode())

        async def dropped() -> bool:
            return runner.core.counts["duplicate"] == 1

        await until(dropped)
