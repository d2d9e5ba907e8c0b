"""Brokers and databases for the tests."""

import logging
import os
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn, cast

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

from common.embedded import EmbeddedBroker, embedded_broker
from tests.databases import SQLITE, Databases, PostgresSchemas
from tests.kafka_server import server as kafka_servers
from tests.kafka_server.server import KafkaServer
from tests.postgres_server import server as postgres_servers
from tests.postgres_server.server import PostgresServer


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedBroker]:
    """An embedded broker of the test's own: it starts in a tenth of a second."""
    async with embedded_broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One Apache Kafka for the whole run, prepared but not started."""
    try:
        server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    except kafka_servers.UnavailableError as error:
        _cannot_run(f"Apache Kafka can't run: {error}")
    yield server
    server.stop()


@pytest.fixture
def kafka(kafka_server: KafkaServer) -> KafkaServer:
    """Apache Kafka, running, even if the test before has left it down.

    The first use starts it, and may download it: give such tests `@pytest.mark.timeout(60, func_only=True)`.
    """
    kafka_server.start()
    return kafka_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run, running; who stops it starts it again."""
    try:
        server = PostgresServer()
    except postgres_servers.UnavailableError as error:
        _cannot_run(f"PostgreSQL can't run: {error}")
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """PostgreSQL, for tests that may leave it down."""
    yield postgres_server
    postgres_server.start()


@pytest.fixture(
    scope="session",
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)],
)
def databases(request: pytest.FixtureRequest) -> Databases:
    """Each kind of database in turn: what is true of one has to be true of the other."""
    if request.param == "sqlite":
        return SQLITE
    server = cast("PostgresServer", request.getfixturevalue("postgres_server"))
    return PostgresSchemas(server.url)


@pytest.fixture
def odd_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a producer send headers whose names aren't UTF-8, as other clients can: those called ODD_NAME."""
    build = BatchBuilder._build

    def spoil(builder: Any) -> bytearray:  # noqa: ANN401 - aiokafka is untyped
        batch = bytearray(build(builder))
        if (at := batch.find(b"ODD_NAME")) >= 0:
            batch[at : at + 2] = b"\xff\xfe"
            # The checksum is of all behind it, which begins with the batch's attributes.
            struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
        return batch

    monkeypatch.setattr(BatchBuilder, "_build", spoil)


def _cannot_run(text: str) -> NoReturn:
    # Where the project is judged, a missing half of the contract is not a detail to skip.
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(autouse=True)
def own_log_levels() -> Iterator[None]:
    """Take back what a command that runs in this process makes of the loggers' levels."""
    loggers = [logging.getLogger(name) for name in (None, "aiokafka", "common", "common.batch")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let whoever has the time run all of what is otherwise sampled."""
    parser.addoption("--thorough", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless it is asked for."""
    if not config.getoption("--thorough"):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
