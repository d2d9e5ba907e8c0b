"""Brokers for the tests."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from common.embedded import EmbeddedBroker, embedded_broker
from tests.kafka_server.server import KafkaServer, UnavailableError


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
    except UnavailableError as error:
        # Where the project is judged, a missing half of the contract is not a detail to skip.
        if os.environ.get("CI") == "true":
            pytest.fail(f"Apache Kafka can't run: {error}")
        pytest.skip(f"Apache Kafka can't run: {error}")
    yield server
    server.stop()


@pytest.fixture
def kafka(kafka_server: KafkaServer) -> KafkaServer:
    """Apache Kafka, running, even if the test before has left it down.

    The first use starts it, and may download it: give such tests `@pytest.mark.timeout(60, func_only=True)`.
    """
    kafka_server.start()
    return kafka_server
