"""The saga with DBOS: a workflow of transactions, each checkpointed in the database that it changes.

Written as DBOS's documentation has it: each service's database is a datasource, in which the outcome of a
step is recorded by the very transaction that carries the step out; the workflow's id is that of the order; a
workflow is durable once `start_workflow` has returned, and a process that starts goes on with what it finds
unfinished.

DBOS is a library, without a server beside its database. It runs synchronous workflows in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from dbos import DBOS, DBOSConfig, SetWorkflowID, SQLAlchemyDatasource, error
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine

from common.messages import (
    CompleteOrder,
    FailOrder,
    Message,
    PlaceOrder,
    ProcessPayment,
    ReleaseInventory,
    ReserveInventory,
)
from common.store.database import Synchronous
from compare.peers.participants import Participant, Tally, refusal
from compare.peers.peer import Peer

_THREADS: Final = {"sqlite": 4, "postgresql": 16}
"""Workflows that are carried out at once; with more of them, SQLite's writers wait for each other asleep."""

Step = Callable[[Message], Message | None]


class DBOSPeer(Peer):
    """DBOS with its own tables beside the services'."""

    errors: ClassVar = (error.DBOSException,)

    async def launch(self) -> None:
        """Start DBOS, which recovers what an earlier process has left."""
        self._loop = asyncio.get_running_loop()
        self._tally = Tally()
        event.listen(Engine, "commit", self._tally)
        self.started.callback(event.remove, Engine, "commit", self._tally)
        DBOS(config=self._config())
        self.started.callback(DBOS.destroy, destroy_registry=True)
        order, inventory, payment = map(self._step, self.services)
        self._saga = _define_saga(order, inventory, payment, self._tell)
        await asyncio.to_thread(DBOS.launch)

    async def submit(self, order: PlaceOrder) -> None:
        """Start the workflow of an order."""
        await asyncio.to_thread(self._start, order)

    async def busy(self) -> bool:
        """Whether a workflow is under way."""
        return bool(
            await DBOS.list_workflows_async(status="PENDING", limit=1, load_input=False, load_output=False)
        )

    def committed(self) -> int:
        """Transactions that SQLAlchemy has committed, in the services' databases and in DBOS's."""
        return self._tally.total

    def schemas(self) -> list[str]:
        """The services' schemas, and DBOS's own."""
        return [*super().schemas(), self._schema]

    @property
    def _schema(self) -> str:
        return f"{self.terms.run}_dbos"

    def _config(self) -> DBOSConfig:
        terms = self.terms
        config: DBOSConfig = {
            "name": "orders",
            # By default it is a hash of the workflows' code: another version's workflows aren't recovered.
            "application_version": "1",
            "log_level": "ERROR",
            "max_executor_threads": _THREADS["sqlite" if terms.server is None else "postgresql"],
        }
        if terms.server is None:
            engine = _sqlite(terms.folder / "dbos.db", terms.synchronous)
            self.started.callback(engine.dispose)
            config["system_database_engine"] = engine
        else:
            config["system_database_url"] = terms.server.render_as_string(hide_password=False)
            config["dbos_system_schema"] = self._schema
        return config

    def _step(self, service: Participant) -> Step:
        """What carries a command out in a transaction of a service's database, once."""
        engine = service.database.engine
        source = SQLAlchemyDatasource.create(
            engine.url.render_as_string(hide_password=False),
            # The service's own connections: in those that DBOS would make, SQLite begins a transaction with
            # the first change, and not with the reading that the change depends on.
            engine=engine,
            schema=f"{self.terms.run}_{service.name}",
        )
        # The rows that a decision depends on are locked when they are read. What is stricter, DBOS's default,
        # would only have transactions fail on PostgreSQL, and be repeated. SQLite knows but one kind.
        level: Literal["SERIALIZABLE", "READ COMMITTED"] = (
            "SERIALIZABLE" if engine.dialect.name == "sqlite" else "READ COMMITTED"
        )

        @source.transaction(name=service.name, isolation_level=level)
        def carry_out(command: Message) -> Message | None:
            return service.decide(source.sql_session().connection(), command)

        return carry_out

    def _start(self, order: PlaceOrder) -> None:
        with SetWorkflowID(order.order_id):
            DBOS.start_workflow(self._saga, order)

    def _tell(self, answer: Message | None) -> None:
        self._loop.call_soon_threadsafe(self.told, answer)


class SQLiteDBOS(DBOSPeer):
    """DBOS on SQLite."""

    name: ClassVar = "dbos-sqlite"


class PostgreSQLDBOS(DBOSPeer):
    """DBOS on PostgreSQL."""

    name: ClassVar = "dbos-postgresql"


def _define_saga(
    order_step: Step, inventory_step: Step, payment_step: Step, tell: Callable[[Message | None], None]
) -> Callable[[PlaceOrder], None]:
    @DBOS.workflow(name="order_saga")
    def order_saga(order: PlaceOrder) -> None:
        order_id = order.order_id
        order_step(order)
        reserve = ReserveInventory(order_id=order_id, item=order.item, quantity=order.quantity)
        refused = refusal(inventory_step(reserve))
        if refused is None:
            charge = ProcessPayment(
                order_id=order_id, customer_id=order.customer_id, amount_cents=order.total_cents
            )
            refused = refusal(payment_step(charge))
            if refused is None:
                tell(order_step(CompleteOrder(order_id=order_id)))
                return
            inventory_step(ReleaseInventory(order_id=order_id, reason=refused))
        tell(order_step(FailOrder(order_id=order_id, reason=refused)))

    return order_saga


def _sqlite(file: Path, synchronous: Synchronous) -> Engine:
    """What DBOS would make by itself, but for the journal, and how much of it waits for the disk."""
    engine = create_engine(f"sqlite:///{file}")

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:  # noqa: ANN401 - a DBAPI connection is untyped
        connection.isolation_level = "IMMEDIATE"
        for pragma in (
            "busy_timeout=30000",
            "foreign_keys=ON",
            "journal_mode=WAL",
            f"synchronous={synchronous}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine
