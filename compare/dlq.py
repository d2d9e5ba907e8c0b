"""The dead letters of a broker, for operators: find them, and put the originals on their topics again.

They are a log like any other topic: a letter stays there after it was replayed. To replay it twice does no
harm, for the record keeps its id, and the inboxes of the services drop what they have processed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from common.broker import consumer_options, find_topics, stop_consumer
from common.dead_letters import DeadLetter, original, read_dead_letter
from common.envelope import Outgoing
from common.errors import BrokerError, ConfigurationError
from common.publisher import KafkaPublisher
from common.wiring import DEAD_LETTERS, dead_letter_topic

_FETCH_MAX_WAIT_MS: Final = 20
_POLL_MS: Final = 200


class DeadLetters:
    """The dead letters of a broker, newest last; of several with one id from one service, the newest.

    `topics` are all topics that the broker has, with the number of their partitions.
    """

    def __init__(
        self, bootstrap_servers: str, topics: Mapping[str, int], letters: Iterable[DeadLetter]
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topics = topics
        newest: dict[tuple[str, str], DeadLetter] = {}
        for letter in sorted(letters, key=lambda letter: (letter.at, letter.record.offset)):
            key = (letter.message_id or letter.origin or place(letter), letter.service)
            newest.pop(key, None)
            newest[key] = letter
        self.letters = list(newest.values())

    @classmethod
    async def read(cls, bootstrap_servers: str, topic: str | None = None) -> DeadLetters:
        """Read all that there are at this moment, or those of one topic, which may be named either way.

        Raises:
            BrokerError: the broker can't be read from.
            ConfigurationError: there is no such topic of dead letters.
        """
        topics = await find_topics(bootstrap_servers)
        wanted = sorted(name for name in topics if name.endswith(DEAD_LETTERS))
        if topic is not None:
            name = topic if topic.endswith(DEAD_LETTERS) else dead_letter_topic(topic)
            if name not in wanted:
                raise ConfigurationError(f"There is no topic {name} at {bootstrap_servers}.")
            wanted = [name]
        places = [TopicPartition(name, number) for name in wanted for number in range(topics[name])]
        records = await _read(bootstrap_servers, places) if places else []
        return cls(bootstrap_servers, topics, map(read_dead_letter, records))

    def find(self, names: Sequence[str]) -> list[DeadLetter]:
        """Those that are named by id, or by TOPIC:PARTITION@OFFSET.

        Raises:
            ConfigurationError: one of the names fits none.
        """
        found: dict[str, DeadLetter] = {}
        for name in names:
            fitting = [letter for letter in self.letters if name in {letter.message_id, place(letter)}]
            if not fitting:
                raise ConfigurationError(
                    f"There is no dead letter {name!r}; `dlq list` shows those there are."
                )
            found |= {place(letter): letter for letter in fitting}
        return list(found.values())

    def originals(self, letters: Iterable[DeadLetter]) -> list[Outgoing]:
        """The records as they were, each once, although several services may have given it up.

        Not those without a readable id, or whose body was left out: who could not read them can't now either,
        and would give them up once more.

        Raises:
            ConfigurationError: the place of one is gone.
        """
        records: dict[tuple[str, str], Outgoing] = {}
        for letter in letters:
            if not is_whole(letter):
                continue
            topic = letter.record.topic.removesuffix(DEAD_LETTERS)
            if letter.record.partition >= self._topics.get(topic, 0):
                gone = f"{topic}[{letter.record.partition}]"
                raise ConfigurationError(f"{place(letter)}: there is no {gone} to replay it on.")
            records[topic, letter.message_id] = original(letter.record, topic)
        return list(records.values())

    async def replay(self, records: Sequence[Outgoing]) -> None:
        """Put records on their topics; returns once the broker has acknowledged all of them.

        Raises:
            BrokerError: some may not have arrived.
        """
        publisher = KafkaPublisher(self._bootstrap_servers)
        await publisher.start()
        try:
            await publisher.publish(records)
        finally:
            await publisher.stop()


async def _read(bootstrap_servers: str, places: Sequence[TopicPartition]) -> list[Any]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, **consumer_options(fetch_max_wait_ms=_FETCH_MAX_WAIT_MS)
    )
    records: list[Any] = []
    try:
        await consumer.start()
        consumer.assign(places)
        for where, offset in (await consumer.beginning_offsets(places)).items():
            consumer.seek(where, offset)
        ends = await consumer.end_offsets(places)
        while ends:
            for batch in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                records += batch
            ends = {where: end for where, end in ends.items() if await consumer.position(where) < end}
    except KafkaError as error:
        raise BrokerError(f"the dead letters at {bootstrap_servers} can't be read: {error}") from error
    finally:
        await stop_consumer(consumer)
    return records


def is_whole(letter: DeadLetter) -> bool:
    """Whether it is worth a replay: inboxes know it by its id, and its body is there."""
    return bool(letter.message_id) and not letter.left_out


def place(letter: DeadLetter) -> str:
    """Where a letter is: TOPIC:PARTITION@OFFSET."""
    record = letter.record
    return f"{record.topic}:{record.partition}@{record.offset}"
