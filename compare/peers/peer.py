"""What all peers have in common: the services, a count of what is under way, and the judgement in the end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from sqlalchemy import URL

from common.domain.decision import Rules
from common.domain.order import OrderStatus
from common.messages import Message, PlaceOrder
from common.store.database import Synchronous
from compare.bench.judge import judge_domain
from compare.bench.subject import Costs, Ended, Expected
from compare.peers.participants import Participants, drop_schemas, end
from compare.peers.processes import PeerError, Server

_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a peer is measured under."""

    folder: Path
    """For all files: those of its server, and SQLite's. It is there, and is the peer's own."""
    stock: Mapping[str, int]
    """Pieces by item, to begin with."""
    rules: Rules = field(default_factory=Rules)
    synchronous: Synchronous = "FULL"
    """Of every SQLite database, the framework's own included where it lets that be set."""
    server: URL | None = None
    """A PostgreSQL server for the services' databases; None for SQLite."""
    run: str = "peer"
    """What the names of schemas on that server begin with."""
    bootstrap: str | None = None
    """The address of a Kafka broker, for a peer that needs one; its topics are there."""
    fetch_max_wait_ms: int = 5
    """How long the broker may hold a fetch that finds nothing; the embedded one always holds it so long."""


class Peer(ABC):
    """One framework that carries out the saga, as a `compare.bench.subject.Subject`.

    A subclass tells of each end by `has_ended`, and puts what it has started into `started`, to be ended in
    reverse order.
    """

    name: ClassVar[str]
    errors: ClassVar[tuple[type[Exception], ...]]
    """What the framework raises where it can't go on, beside SQLAlchemy's errors and Kafka's."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.started = AsyncExitStack()
        self.server: Server | None = None
        """The framework's own server, if it has one."""
        self._open: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._commits = 0

    async def start(self, ended: Ended) -> None:
        """Start all that it needs, and go on with what an earlier run in the same folder has left.

        Raises:
            LabError: something isn't there, or doesn't start; the text says how to mend it.
            SQLAlchemyError: a database can't be opened.
        """
        self._ended = ended
        terms = self.terms
        self.services = Participants(
            terms.folder,
            stock=terms.stock,
            rules=terms.rules,
            synchronous=terms.synchronous,
            server=terms.server,
            run=terms.run,
        )
        self.started.callback(self._leave_nothing)
        self.started.callback(self.services.close)
        await self.launch()

    async def place(self, orders: Sequence[PlaceOrder]) -> None:
        """Hand orders over; the framework has accepted them, as durably as it does, when this returns.

        An order that was handed over before is accepted again, and carried out once.

        Raises:
            PeerError: the framework accepts nothing any more.
        """
        self._open.update(order.order_id for order in orders)
        self._idle.clear()
        with self._understood():
            await asyncio.gather(*map(self.submit, orders))

    async def settle(self) -> None:
        """Wait until every order that was placed has ended, and the framework has nothing left to do.

        Raises:
            PeerError: the framework can't go on.
        """
        await self._idle.wait()
        with self._understood():
            while await self.busy():  # noqa: ASYNC110 - only the framework knows, and it has to be asked
                await asyncio.sleep(_PAUSE_S)

    def check(self) -> None:
        """Return at once, or raise a LabError if it can't go on."""
        if self.server is not None:
            self.server.check()

    async def judge(self, expected: Mapping[str, Expected]) -> tuple[str, ...]:
        """What is wrong in the services' databases, in words; nothing if all is right."""
        return await asyncio.to_thread(judge_domain, self.services.databases, expected, self.terms.stock)

    def mark(self) -> None:
        """Count costs from now on."""
        self._commits = self.committed() or 0

    async def costs(self) -> Costs:
        """What it has cost since `mark`, as far as that can be seen from outside the framework."""
        committed = self.committed()
        return Costs(
            records=None, bytes=None, commits=None if committed is None else committed - self._commits
        )

    async def stop(self) -> None:
        """End all that was started; SQLite's files stay."""
        await self.started.aclose()

    def has_ended(self, order_id: str, status: OrderStatus) -> None:
        """Note that the Order service has ended an order, and committed that; on the event loop."""
        self._open.discard(order_id)
        if not self._open:
            self._idle.set()
        self._ended(order_id, status)

    def told(self, answer: Message | None) -> None:
        """Note what the Order service has said, if that ends an order."""
        status = end(answer)
        if answer is not None and status is not None:
            self.has_ended(answer.order_id, status)

    def schemas(self) -> list[str]:
        """Its schemas on the PostgreSQL server."""
        return [f"{self.terms.run}_{service.name}" for service in self.services]

    def committed(self) -> int | None:
        """Transactions committed so far, by the services and the framework; None if that can't be known."""
        return None

    @abstractmethod
    async def launch(self) -> None:
        """Start the framework, and a server that it needs."""

    @abstractmethod
    async def submit(self, order: PlaceOrder) -> None:
        """Hand one order over, and wait until it is accepted."""

    @abstractmethod
    async def busy(self) -> bool:
        """Whether the framework has something left to do for orders that have ended."""

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Have the framework's own errors be the lab's."""
        try:
            yield
        except self.errors as error:
            raise PeerError(f"{self.name} can't go on: {error!r}") from error

    def _leave_nothing(self) -> None:
        if self.terms.server is not None:
            drop_schemas(self.terms.server, self.schemas())
