"""What a service spends, counted where it spends it: records and their bytes, and transactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from sqlalchemy import Connection, event

from common.envelope import Headers, Outgoing
from common.publisher import KafkaPublisher
from common.store.database import Database


@dataclass
class Spent:
    """What one instance of a service has spent so far."""

    records: int = 0
    bytes: int = 0
    commits: int = 0

    def __sub__(self, before: Spent) -> Spent:
        return Spent(self.records - before.records, self.bytes - before.bytes, self.commits - before.commits)

    def __add__(self, more: Spent) -> Spent:
        return Spent(self.records + more.records, self.bytes + more.bytes, self.commits + more.commits)

    def count_commits(self, database: Database) -> None:
        """Count from now on the transactions that may write."""
        event.listen(database.engine, "commit", self._committed)

    def _committed(self, connection: Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("read_only") and not options.get("postgresql_readonly"):
            self.commits += 1


class CountingPublisher(KafkaPublisher):
    """Publishes as a live service does, and counts what is acknowledged."""

    def __init__(self, bootstrap_servers: str, spent: Spent) -> None:
        super().__init__(bootstrap_servers)
        self._spent = spent

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Return once the broker has acknowledged all of them; BrokerError if some may not have arrived."""
        await super().publish(records)
        self._spent.records += len(records)
        self._spent.bytes += sum(len(one.key or b"") + len(one.value or b"") for one in records)
        self._spent.bytes += size_of_headers(one.headers for one in records)


def size_of_headers(headers: Iterable[Headers]) -> int:
    """Bytes of the names and values of several records' headers; the names are ASCII."""
    return sum(map(len, chain.from_iterable(chain.from_iterable(headers))))
