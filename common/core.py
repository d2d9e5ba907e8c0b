"""The heart of every service in both modes: records and a time go in, what is to be published comes out.

It is sans I/O as far as the broker goes: it never touches a socket, a clock or a task, so that the same code
runs under a real broker, a simulated one and a test. For each batch, in one transaction of the service's own
database:

1. forget the outbox rows that the broker has acknowledged since the last time;
2. enter the message ids into the inbox; an id that is there already is a duplicate, and is dropped;
3. load the rows that the batch touches, and run the pure decider on each command in order (`common.batch`);
4. write the changed rows, the history, the deadlines, the retries and the outbox.

The caller publishes what is returned, waits for the acknowledgements, calls `acknowledge`, and only then
commits the broker's offsets. A crash between any two of these steps repeats work but no effect: what was not
committed is delivered again, what was committed but not published is in `unsent`, what was published twice
bears the same id.

What time brings is work, too: `wake` goes on with the retries and deadlines that are due, in the same way.

A core is used by one thread at a time.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection
from uuid_utils import UUID

from common.batch import Batch, Service, Task, Unreadable
from common.domain.decision import Rules
from common.envelope import Outgoing, Record, cause, kind_of, open_envelope, origin, parse, timestamp
from common.errors import UnreadableRecordError
from common.messages import MESSAGES, Message, Overdue, TimedOut
from common.probe import Boundary, Probe
from common.recovery import Recovery
from common.store.database import Database
from common.store.journal import (
    NO_PARCEL,
    Retry,
    add_counts,
    backlog,
    clean_up,
    first_seen,
    forget_keys,
    forget_received,
    forget_sent,
    latest_parcel,
    take_retries,
    unsent,
)
from common.store.runtime import due_deadlines, next_due
from common.store.schema import IDEMPOTENCY
from common.wiring import Reaction, Wiring

log = logging.getLogger(__name__)

_TRIAL: Final = "trial"
"""The id of no message."""
_MOST_DUE: Final = 500
"""Retries, and deadlines, that one transaction goes on with."""
_MOST_PARCELS: Final = 20
"""Read at a time; each is of one transaction, which is bounded as what is polled is."""
_MOST_FORGOTTEN: Final = 5_000
"""Messages that one transaction cleans up."""
_KNOWN: Final = frozenset(name.encode() for name in MESSAGES)
_ONLY_IN_MEMORY: Final = frozenset({"consumed", "skipped"})
"""Counts of nearly every record: to write them down would cost more than they tell."""


class Core:
    """One service: its wiring, its rules and its database.

    `prefix` goes before the name of every topic, so that separate runs can share a broker.
    """

    def __init__(  # noqa: PLR0913 - all but three have defaults, and are named where they are given
        self,
        wiring: Wiring,
        rules: Rules,
        database: Database,
        prefix: str = "",
        *,
        recovery: Recovery | None = None,
        probe: Probe | None = None,
    ) -> None:
        self.wiring = wiring
        self.database = database
        self.service = Service(wiring, rules, prefix, recovery or Recovery(), probe or Probe())
        self.counts = self.service.counts
        """What this instance has counted since it was made; see `common.batch.Service`."""
        self._reactions: dict[bytes | None, Reaction] = {
            name.encode(): row for name, row in wiring.reaction_to.items()
        }
        self._acknowledged: set[int] = set()
        self._handled: list[Message] = []
        self._next_due: str | None = ""

    def process(self, records: Sequence[Record], now: datetime) -> list[Outgoing]:
        """Take a batch of consumed records and return what they lead to, in the order to publish it in."""
        before = self.counts.copy()
        arrivals = [arrival for record in records if (arrival := self._read(record)) is not None]
        self.counts["consumed"] += len(records)
        self._handled = [arrival.command for arrival in arrivals if arrival.command is not None]
        if not arrivals and self.counts["unknown"] == before["unknown"]:
            return []
        self.passing(Boundary.BEFORE)
        with self._counting(before) as transaction:
            forget_sent(transaction, self._acknowledged)
            fresh = first_seen(transaction, [arrival.key for arrival in arrivals], timestamp(now))
            outgoing = self._decide(transaction, self._once(arrivals, fresh), now)
            self.passing(Boundary.DECIDED)
        self._acknowledged.clear()
        self.passing(Boundary.COMMITTED)
        return outgoing

    def submit(
        self, transaction: Connection, commands: Sequence[tuple[Message, int]], now: datetime
    ) -> list[Outgoing]:
        """Take commands from outside the broker, within the caller's transaction.

        Each comes with the partition of its order's key, where all that follows will stay.
        """
        before = self.counts.copy()
        tasks = [
            Task(command, origin(command.order_id, partition), awaited=True)
            for command, partition in commands
        ]
        outgoing = self._decide(transaction, tasks, now)
        self._write_down(transaction, before)
        return outgoing

    def due_in(self, now: datetime) -> float:
        """Seconds until `wake` has something to do, as far as is known; infinite if it never will."""
        match self._next_due:
            case None:
                return math.inf
            case "":
                return 0.0
            case due:
                return max(0.0, (datetime.fromisoformat(due) - now).total_seconds())

    def look_again(self) -> None:
        """Have the next `wake` look what there is: another instance may have left deadlines and retries."""
        self._next_due = ""

    def wake(self, partitions: Sequence[int], now: datetime) -> list[Outgoing]:
        """Go on with the retries and deadlines of these partitions that are due."""
        at = timestamp(now)
        with self._counting(self.counts.copy()) as transaction:
            forget_sent(transaction, self._acknowledged)
            # Before the retries are taken, for the deadline of an order waits until they are through.
            passed = due_deadlines(transaction, partitions, at, _MOST_DUE)
            tasks: list[Task | Unreadable] = []
            for retry in take_retries(transaction, partitions, at, _MOST_DUE):
                arrival = self._read(retry, retry.tries)
                if arrival is not None:
                    tasks.append(arrival)
            for deadline in passed:
                self.counts["timed_out" if deadline.final else "overdue"] += 1
                command = (TimedOut if deadline.final else Overdue)(order_id=deadline.order_id)
                tasks.append(Task(command, deadline.again()))
            outgoing = self._decide(transaction, tasks, now)
            self._next_due = next_due(transaction, partitions)
        self._acknowledged.clear()
        return outgoing

    @contextmanager
    def uncounted_if_failed(self, before: Counter[str] | None = None) -> Iterator[None]:
        """Have what was counted `before` be all that was, if the block fails: it is then rolled back."""
        known = self.counts.copy() if before is None else before
        try:
            yield
        except BaseException:
            self.counts.clear()
            self.counts.update(known)
            raise

    def passing(self, boundary: Boundary) -> None:
        """Tell the probe how far the last batch has come."""
        if self._handled:
            self.service.probe.passing(boundary, self._handled)

    def acknowledge(self, sent: Collection[Outgoing]) -> None:
        """Note what the broker has acknowledged, whole parcels; the next transaction drops them."""
        self._acknowledged.update({record.parcel for record in sent})

    def tidy(self) -> None:
        """Drop what is acknowledged from the outbox now, because no batch is there to do it along the way."""
        if self._acknowledged:
            with self.database.write() as transaction:
                forget_sent(transaction, self._acknowledged)
            self._acknowledged.clear()

    def try_to_write(self) -> None:
        """Write what is gone with the same transaction; SQLAlchemyError if the database takes nothing.

        That a disk is full, or can only be read, doesn't show in any other way while there is nothing to do.
        """
        with self.database.write() as transaction:
            forget_received(transaction, list(first_seen(transaction, [_TRIAL], _TRIAL)))

    def clean_up(self, now: datetime) -> bool:
        """Forget some of what is older than the dedupe window; whether there may be more of it."""
        edge = now - timedelta(seconds=self.service.recovery.dedupe_window_s)
        first_id = str(UUID(int=max(0, int(edge.timestamp() * 1000)) << 80))
        with self.database.write() as transaction:
            if IDEMPOTENCY in self.database.tables:
                forget_keys(transaction, timestamp(edge))
            return clean_up(transaction, timestamp(edge), first_id, _MOST_FORGOTTEN) == _MOST_FORGOTTEN

    def latest_parcel(self) -> int:
        """The number of the latest parcel that is in the outbox at this moment."""
        with self.database.read() as connection:
            return latest_parcel(connection)

    def unsent(self, partitions: Sequence[int], after: int = 0, until: int = NO_PARCEL) -> list[Outgoing]:
        """Some of what an earlier run or owner of these partitions left unpublished, in its order.

        What comes next is in parcels after the last one; nothing: that was all, up to parcel `until`. Without
        that, what is added meanwhile counts, too, and there may be no end of it.
        """
        with self.database.read() as connection:
            return unsent(
                connection, partitions, after, _MOST_PARCELS, until=until, without=self._acknowledged
            )

    def backlog(self) -> int:
        """How many records wait to be published."""
        with self.database.read() as connection:
            return backlog(connection, list(self._acknowledged))

    def expects(self, partitions: Sequence[int]) -> bool:
        """Whether a deadline or a retry of these partitions is still to come."""
        with self.database.read() as connection:
            return next_due(connection, partitions) is not None

    def _read(self, record: Record | Retry, tries: int = 0) -> Task | Unreadable | None:
        """Turn a record into a command for the domain, or None if it is not this service's business."""
        kind = kind_of(record)
        reaction = self._reactions.get(kind)
        if reaction is None and kind in _KNOWN:
            # By that header alone, so that what is not this service's business costs next to nothing.
            self.counts["skipped"] += 1
            return None
        try:
            envelope = open_envelope(record)
        except UnreadableRecordError as error:
            return Unreadable(record, error)
        if reaction is None:
            self.counts["unknown"] += 1
            return None
        because = cause(envelope, record.partition)
        try:
            command = reaction.translate(parse(record, envelope, reaction.message))
        except Exception as error:  # noqa: BLE001 - a translation that fails once fails always: nothing varies
            instead = self.wiring.instead_of_unreadable(reaction.command, envelope.subject)
            return Unreadable(record, error, instead, because)
        return Task(command, because, record, tries)

    def _once(self, arrivals: Sequence[Task | Unreadable], fresh: set[str]) -> list[Task | Unreadable]:
        """Drop the duplicates: those of earlier batches, and those within this one."""
        once = []
        for arrival in arrivals:
            if arrival.key in fresh:
                fresh.discard(arrival.key)
                once.append(arrival)
            else:
                self.counts["duplicate"] += 1
                log.debug("%s drops a duplicate of %r", self.wiring, arrival.key)
        return once

    def _decide(
        self, transaction: Connection, tasks: Sequence[Task | Unreadable], now: datetime
    ) -> list[Outgoing]:
        if not tasks:
            return []
        batch = Batch(self.service, transaction, now)
        batch.run(tasks)
        self._next_due = min(batch.due + ([] if self._next_due is None else [self._next_due]), default=None)
        return batch.outgoing

    @contextmanager
    def _counting(self, before: Counter[str]) -> Iterator[Connection]:
        """A transaction that keeps what is counted from `before` on, or has it uncounted if it fails."""
        with self.uncounted_if_failed(before), self.database.write() as transaction:
            yield transaction
            self._write_down(transaction, before)

    def _write_down(self, transaction: Connection, before: Counter[str]) -> None:
        more = {name: total - before[name] for name, total in self.counts.items() if total > before[name]}
        add_counts(transaction, {name: total for name, total in more.items() if name not in _ONLY_IN_MEMORY})
