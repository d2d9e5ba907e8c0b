"""The heart of every service in both modes: records and a time go in, what is to be published comes out.

It is sans I/O as far as the broker goes: it never touches a socket, a clock or a task, so that the same code
runs under a real broker, a simulated one and a test. For each batch, in one transaction of the service's own
database:

1. forget the outbox rows that the broker has acknowledged since the last time;
2. enter the message ids into the inbox; an id that is there already is a duplicate, and is dropped;
3. load the rows that the batch touches, and run the pure decider on each command in order;
4. write the changed rows, the history and the outbox.

The caller publishes what is returned, waits for the acknowledgements, calls `acknowledge`, and only then
commits the broker's offsets. A crash between any two of these steps repeats work but no effect: what was not
committed is delivered again, what was committed but not published is in `unsent`, what was published twice
bears the same id.

A core is used by one thread at a time.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from common.domain.decision import Rules
from common.envelope import Cause, Outgoing, Record, cause, open_envelope, origin, parse, seal, timestamp
from common.errors import UnreadableRecordError
from common.messages import Message
from common.store.database import Database
from common.store.journal import (
    Change,
    add_history,
    add_to_outbox,
    backlog,
    first_seen,
    forget_sent,
    unsent,
)
from common.store.repository import Repository
from common.wiring import Wiring

log = logging.getLogger(__name__)


class _Task(NamedTuple):
    """A command for the domain, and the message that it descends from."""

    command: Message
    because: Cause


class Core:
    """One service: its wiring, its rules and its database.

    `prefix` goes before the name of every topic, so that separate runs can share a broker.
    """

    def __init__(self, wiring: Wiring, rules: Rules, database: Database, prefix: str = "") -> None:
        self.wiring = wiring
        self.database = database
        self.counts: Counter[str] = Counter()
        """Records `consumed`, `skipped` (not its own), `duplicate`, `unreadable`; commands `ignored`."""
        self._rules = rules
        self._prefix = prefix
        self._source = f"/{wiring.mode}/{wiring.name}"
        self._acknowledged: set[str] = set()

    def process(self, records: Sequence[Record], now: datetime) -> list[Outgoing]:
        """Take a batch of consumed records and return what they lead to, in the order to publish it in."""
        tasks = [task for record in records if (task := self._read(record)) is not None]
        self.counts["consumed"] += len(records)
        if not tasks:
            return []
        with self.database.write() as transaction:
            forget_sent(transaction, self._acknowledged)
            fresh = first_seen(transaction, [task.because.id for task in tasks], timestamp(now))
            outgoing = self._decide(transaction, self._once(tasks, fresh), now)
        self._acknowledged.clear()
        return outgoing

    def submit(
        self, transaction: Connection, command: Message, partition: int, now: datetime
    ) -> list[Outgoing]:
        """Take a command from outside the broker, within the caller's transaction.

        `partition` is that of the order's key, where all that follows will stay.
        """
        return self._decide(transaction, [_Task(command, origin(command.order_id, partition))], now)

    def acknowledge(self, sent: Collection[Outgoing]) -> None:
        """Note what the broker has acknowledged; the next transaction drops it from the outbox."""
        self._acknowledged.update(record.id for record in sent)

    def tidy(self) -> None:
        """Drop what is acknowledged from the outbox now, because no batch is there to do it along the way."""
        if self._acknowledged:
            with self.database.write() as transaction:
                forget_sent(transaction, self._acknowledged)
            self._acknowledged.clear()

    def unsent(self, partitions: Sequence[int]) -> list[Outgoing]:
        """What an earlier run or owner of these partitions left unpublished, in the order to publish it."""
        with self.database.read() as connection:
            waiting = unsent(connection, partitions)
        return [record for record in waiting if record.id not in self._acknowledged]

    def backlog(self) -> int:
        """How many records wait to be published."""
        with self.database.read() as connection:
            return max(0, backlog(connection) - len(self._acknowledged))

    def _read(self, record: Record) -> _Task | None:
        """Turn a record into a command for the domain, or None if it is not this service's business."""
        try:
            envelope = open_envelope(record)
            reaction = self.wiring.reaction_to.get(envelope.type)
            if reaction is None:
                self.counts["skipped"] += 1
                return None
            command = reaction.translate(parse(record, reaction.message))
        except UnreadableRecordError as error:
            self.counts["unreadable"] += 1
            log.error("%s skips a record that it cannot read: %s", self.wiring, error)  # noqa: TRY400 - no bug
            return None
        return _Task(command, cause(envelope, record.partition))

    def _once(self, tasks: Sequence[_Task], fresh: set[str]) -> list[_Task]:
        """Drop the duplicates: those of earlier batches, and those within this one."""
        once = []
        for task in tasks:
            if task.because.id in fresh:
                fresh.discard(task.because.id)
                once.append(task)
            else:
                self.counts["duplicate"] += 1
                log.debug("%s drops a duplicate of %r", self.wiring, task.because.id)
        return once

    def _decide(self, transaction: Connection, tasks: Sequence[_Task], now: datetime) -> list[Outgoing]:
        at = timestamp(now)
        repository: Repository[Any] = self.wiring.domain.storage.open()
        repository.load(transaction, [task.command for task in tasks])
        outgoing: list[Outgoing] = []
        changes: list[Change] = []
        for command, because in tasks:
            before = repository.state(command)
            after, messages = self.wiring.domain.decide(before, command, self._rules)
            repository.keep(after)
            if not messages:
                self._ignored(command, because)
            changes += self._changes(command, because, before, after, at)
            outgoing += (self._seal(message, because, index, now) for index, message in enumerate(messages))
        repository.save(transaction, at)
        add_history(transaction, changes)
        add_to_outbox(transaction, outgoing)
        return outgoing

    def _ignored(self, command: Message, because: Cause) -> None:
        self.counts["ignored"] += 1
        name = type(command).__name__
        log.warning(
            "%s ignores %s for order %r, caused by %r", self.wiring, name, command.order_id, because.id
        )

    def _changes(
        self,
        command: Message,
        because: Cause,
        before: Any,  # noqa: ANN401 - states differ by service; all have a status
        after: Any,  # noqa: ANN401 - as above
        at: str,
    ) -> list[Change]:
        was = (before.status if before else None) or self.wiring.domain.origin
        now_is = (after.status if after else None) or self.wiring.domain.origin
        return [Change(command.order_id, because.id, was, now_is, at)] if was != now_is else []

    def _seal(self, message: Message, because: Cause, index: int, now: datetime) -> Outgoing:
        substitution = self.wiring.told_instead.get(type(message))
        told = substitution.translate(message) if substitution else message
        topic = self._prefix + self.wiring.topic_of(type(told))
        return seal(told, because, source=self._source, topic=topic, index=index, now=now)
