"""The three services as a framework meets them: the lab's deciders over the lab's tables, and no more of it.

What the lab's own runtime does around a decision (inbox, outbox, history, retries, deadlines) is left out,
for to guarantee the same in its own way is the framework's part. One command is one transaction of that
service's own database, as it is in a service that answers calls. All of them may be repeated: a decider
answers a command that it has carried out before with what it said then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final

from sqlalchemy import URL, Connection, event

from common.domain.decision import Rules
from common.domain.order import OrderStatus
from common.envelope import timestamp
from common.messages import (
    InventoryRejected,
    Message,
    OrderCompleted,
    OrderFailed,
    PaymentDeclined,
    Reason,
)
from common.services import INVENTORY, ORDER, PAYMENT, fill_stock
from common.store.database import Database, Synchronous
from common.store.postgresql import drop_schema, postgresql_engine
from common.wiring import Domain

_THREADS: Final = 5
"""As many as a service has connections to PostgreSQL."""


class Tally:
    """Counts the transactions that SQLAlchemy commits, in whichever thread, as a listener to `commit`."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = Lock()

    def __call__(self, _: Connection) -> None:
        """Count one."""
        with self._lock:
            self.total += 1


class Participant:
    """One service."""

    def __init__(self, domain: Domain[Any], database: Database, rules: Rules) -> None:
        self.name = domain.name
        self.database = database
        self.tally = Tally()
        self._domain = domain
        self._rules = rules
        self._threads: ThreadPoolExecutor | None = None
        if database.engine.dialect.name != "sqlite":
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"{domain.name}-")
        event.listen(database.engine, "commit", self.tally)

    async def carry_out(self, command: Message) -> Message | None:
        """Decide a command in a transaction of its own, and tell what the service answers, if anything.

        A server is waited for in a thread, so that the event loop goes on. SQLite, which carries out one
        transaction at a time, is called at once: that takes less than to hand over to a thread and back
        (measured).

        Raises:
            SQLAlchemyError: the database can't be used now; nothing was changed.
        """
        if self._threads is None:
            return self._in_transaction(command)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._in_transaction, command)

    def decide(self, transaction: Connection, command: Message) -> Message | None:
        """Decide a command within the caller's transaction."""
        repository = self._domain.storage.open()
        repository.load(transaction, [command])
        decision = self._domain.decide(repository.state(command), command, self._rules)
        repository.keep(decision.state)
        repository.save(transaction, timestamp(datetime.now(UTC)))
        return next(iter(decision.messages), None)

    def close(self) -> None:
        """Let what is under way end, and close the database."""
        if self._threads is not None:
            self._threads.shutdown()
        self.database.close()

    def _in_transaction(self, command: Message) -> Message | None:
        with self.database.write() as transaction:
            return self.decide(transaction, command)


class Participants:
    """All three: with empty databases but for the stock, or as an earlier run has left them.

    `server` is a PostgreSQL server, where their tables are in schemas that bear the name of the run; without
    it they are SQLite files in the folder.

    Raises:
        SQLAlchemyError: a database can't be opened.
    """

    def __init__(  # noqa: PLR0913 - conditions of a measurement, each named where it is given
        self,
        folder: Path,
        *,
        stock: Mapping[str, int],
        rules: Rules,
        synchronous: Synchronous,
        server: URL | None,
        run: str,
    ) -> None:
        def opened(domain: Domain[Any]) -> Participant:
            tables = domain.storage.tables
            if server is None:
                database = Database(f"sqlite:///{folder / domain.name}.db", tables, synchronous=synchronous)
            else:
                schema = f"{run}_{domain.name}"
                database = Database(server, tables, synchronous=synchronous, schema=schema)
            participant = Participant(domain, database, rules)
            stack.callback(participant.close)
            return participant

        with ExitStack() as stack:
            self.order = opened(ORDER)
            self.inventory = opened(INVENTORY)
            self.payment = opened(PAYMENT)
            fill_stock(self.inventory.database, stock)
            # All well: they are to stay open.
            self.close = stack.pop_all().close

    def __iter__(self) -> Iterator[Participant]:
        return iter((self.order, self.inventory, self.payment))

    @property
    def databases(self) -> dict[str, Database]:
        """Each service's database, by the service's name."""
        return {one.name: one.database for one in self}


def refusal(answer: Message | None) -> Reason | None:
    """Why a service has refused a step, or None if it has done it."""
    return answer.reason if isinstance(answer, InventoryRejected | PaymentDeclined) else None


def end(answer: Message | None) -> OrderStatus | None:
    """How the Order service says that an order has ended, or None if that isn't what it says."""
    match answer:
        case OrderCompleted():
            return OrderStatus.COMPLETED
        case OrderFailed():
            return OrderStatus.FAILED
        case _:
            return None


def drop_schemas(server: URL, schemas: list[str]) -> None:
    """Remove what a run has left on a PostgreSQL server.

    Raises:
        SQLAlchemyError: the server can't be used.
    """
    engine = postgresql_engine(server, None)
    try:
        with engine.begin() as connection:
            for schema in schemas:
                drop_schema(connection, schema)
    finally:
        engine.dispose()
