"""What one transaction of a service does: decide each command in turn, and keep what became of it.

A command that fails leaves the others alone. It is tried again when its time has come, with growing delays.
What can't be read, or has failed for good, goes to the dead letters, and the domain decides what is told in
its place, so that the saga ends all the same.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from msgspec import Struct, convert
from msgspec.structs import replace
from sqlalchemy import Connection

from common.dead_letters import Failure, dead_letter
from common.domain.decision import Rules
from common.envelope import Cause, Outgoing, Record, inbox_key, seal, timestamp
from common.errors import NewerSchemaError, PermanentError
from common.messages import COMPENSATIONS, Message, Overdue, Reason, Resumption, TimedOut
from common.probe import Probe
from common.recovery import Limit, Recovery
from common.store.journal import Change, Retry, add_history, add_retries, add_to_outbox, forget_received
from common.store.repository import Repository
from common.store.runtime import Deadline, Deadlines
from common.wiring import Wiring, dead_letter_topic

log = logging.getLogger(__name__)

_OF_DEADLINES: Final = (Overdue, TimedOut)
_UNDOS: Final = frozenset(COMPENSATIONS.values())


@dataclass(frozen=True)
class Service:
    """What the transactions of one service have in common."""

    wiring: Wiring
    rules: Rules
    prefix: str = ""
    """Goes before the name of every topic, so that separate runs can share a broker."""
    recovery: Recovery = field(default_factory=Recovery)
    probe: Probe = field(default_factory=Probe)
    counts: Counter[str] = field(default_factory=Counter)
    """Records `consumed`, `skipped` (not its own), `unknown` (of no type of the lab), `duplicate`, `retried`,
    `dead_letter`; commands `late` (overtaken) and `ignored`; deadlines `overdue` and `timed_out`."""

    @cached_property
    def source(self) -> str:
        """Who says what it tells."""
        return f"/{self.wiring.mode}/{self.wiring.name}"

    @cached_property
    def limits(self) -> Mapping[str, Limit]:
        """By status: how long it may last."""
        return {status: patience(self.recovery) for status, patience in self.wiring.deadlines.items()}

    @cached_property
    def topics(self) -> Mapping[type[Message], str]:
        """By message: the topic that it is told on."""
        return {message: self.prefix + self.wiring.topic_of(message) for message in self.wiring.tells}


class Task(Struct, frozen=True):
    """A command for the domain, the message that it descends from, and the record that brought it.

    One from outside, or of a deadline, has no record. `tries` is how often it has failed. `awaited` says that
    somebody waits for the outcome, and is to be told of an error.
    """

    command: Message
    because: Cause
    record: Record | Retry | None = None
    tries: int = 0
    awaited: bool = False

    @property
    def key(self) -> str:
        """What the inbox knows it by."""
        return inbox_key(self.because.id, self.because.attempt)


class Unreadable(Struct, frozen=True):
    """A record that can't be read or made a command, and what is decided in its place, if anything."""

    record: Record | Retry
    error: Exception
    command: Message | None = None
    because: Cause | None = None

    @property
    def key(self) -> str:
        """What the inbox knows it by: its place, for what it says of itself is not to be trusted.

        It sorts before the ids of all orders, so that it is forgotten in its time like them.
        """
        return f"00/{self.record.topic}/{self.record.partition}/{self.record.offset}"


class Batch:
    """One transaction's work, for one service."""

    def __init__(self, service: Service, transaction: Connection, now: datetime) -> None:
        self.outgoing: list[Outgoing] = []
        """What is to be published, in that order."""
        self.due: list[str] = []
        """When something will be due because of it."""
        self._service = service
        self._wiring = service.wiring
        self._domain = service.wiring.domain
        self._transaction = transaction
        self._now = now
        self._at = timestamp(now)
        self._repository: Repository[Any] = self._domain.storage.open()
        self._deadlines = Deadlines()
        self._changes: list[Change] = []
        self._retries: list[Retry] = []
        self._given_up: list[str] = []

    def run(self, tasks: Sequence[Task | Unreadable]) -> None:
        """Decide all, and write what became of it."""
        commands = [task.command for task in tasks if task.command is not None]
        self._repository.load(self._transaction, commands)
        self._deadlines.load(
            self._transaction, (command.order_id for command in commands if isinstance(command, Resumption))
        )
        for task in tasks:
            if isinstance(task, Task):
                self._try(task)
            else:
                self._bury(task)
        self._repository.save(self._transaction, self._at)
        self._deadlines.save(self._transaction, self._at)
        add_history(self._transaction, self._changes)
        add_retries(self._transaction, self._retries)
        forget_received(self._transaction, self._given_up)
        add_to_outbox(self._transaction, self.outgoing)

    def _try(self, task: Task) -> None:
        if isinstance(task.command, _OF_DEADLINES) and not self._is_due(task.command.order_id):
            return  # another instance was faster
        because = self._resumed(task)
        before = self._repository.state(task.command)
        try:
            if task.record is not None:
                self._service.probe.deciding(task.command, because)
            decision = self._domain.decide(before, task.command, self._service.rules)
            sealed = [self._seal(message, because, index) for index, message in enumerate(decision.messages)]
        except Exception as error:  # noqa: BLE001 - whatever it is, the other orders must not wait for it
            self._failed(task, error)
            return
        self._repository.keep(decision.state)
        self.outgoing += sealed
        if decision.late:
            self._service.counts["late"] += 1
            log.debug("%s: %s is late for order %s", self._wiring, _name(task.command), task.command.order_id)
        elif not decision.messages and decision.state == before:
            self._ignored(task)
        self._note(task.command, because, before, decision.state)

    def _is_due(self, order_id: str) -> bool:
        """Whether an order's deadline has passed, now that its row is locked."""
        deadline = self._deadlines.get(order_id)
        return deadline is not None and deadline.due_at is not None and deadline.due_at <= self._at

    def _resumed(self, task: Task) -> Cause:
        """The cause of what a command leads to: one that goes on with something has that one's cause."""
        if isinstance(task.command, Resumption):
            deadline = self._deadlines.get(task.command.order_id)
            if deadline is not None:
                return deadline.again()
        return task.because

    def _seal(self, message: Message, because: Cause, index: int) -> Outgoing:
        substitution = self._wiring.told_instead.get(type(message))
        told = substitution.translate(message) if substitution else message
        topic = self._service.topics[type(told)]
        return seal(told, because, source=self._service.source, topic=topic, index=index, now=self._now)

    def _note(self, command: Message, because: Cause, before: Any, after: Any) -> None:  # noqa: ANN401 - states differ by service; all have a status
        was = (before.status if before else None) or self._domain.origin
        now_is = (after.status if after else None) or self._domain.origin
        if was != now_is:
            self._changes.append(Change(command.order_id, because.id, was, now_is, self._at))
        if self._wiring.deadlines and (after != before or isinstance(command, Overdue)):
            self._arm(command, because, was, now_is)

    def _arm(self, command: Message, because: Cause, was: str, status: str) -> None:
        """Set the deadline for what is waited for now, in place of the one before."""
        limit = self._service.limits.get(status)
        if limit is None:
            self._deadlines.drop(command.order_id)
            return
        before = self._deadlines.get(command.order_id)
        tries = before.tries + 1 if before and isinstance(command, Overdue) else 1
        delay = limit.delay(tries, command.order_id)
        deadline = Deadline(
            order_id=command.order_id,
            partition=because.partition,
            due_at=None if delay is None else timestamp(self._now + delay),
            tries=tries,
            final=int(limit.is_last(tries)),
            attempt=because.attempt,
            cause_id=because.id,
            correlation_id=because.correlation_id,
            trace_id=because.trace_id,
        )
        self._deadlines.put(deadline)
        if deadline.due_at is not None:
            self.due.append(deadline.due_at)
        elif was != status:
            log.error("%s: order %s is %s, and waits for an operator", self._wiring, command.order_id, status)

    def _ignored(self, task: Task) -> None:
        self._service.counts["ignored"] += 1
        name, order_id, because = _name(task.command), task.command.order_id, task.because.id
        log.warning("%s ignores %s for order %r, caused by %r", self._wiring, name, order_id, because)

    def _failed(self, task: Task, error: Exception) -> None:
        """Try a command again later, or give it up."""
        if task.record is None:
            self._failed_by_itself(task, error)
            return
        tries = task.tries + 1
        insists = type(task.command) in self._domain.insists_on
        recovery = self._service.recovery
        most = recovery.undo_tries if type(task.command) in _UNDOS else recovery.retry_tries
        name, order_id = _name(task.command), task.command.order_id
        if insists or (tries < most and not isinstance(error, PermanentError)):
            self._service.counts["retried"] += 1
            due = timestamp(self._now + recovery.retry_delay(tries, task.key))
            log.warning(
                "%s: try %d of %s for order %s failed, again later: %r",
                self._wiring, tries, name, order_id, error,
            )  # fmt: skip
            self._retry_later(task, task.record, tries, due)
            return
        log.error("%s gives up %s for order %s at try %d: %r", self._wiring, name, order_id, tries, error)
        self._given_up.append(task.key)
        self._send_to_dead_letters(task.record, "failed", error, tries)
        substitute = self._domain.gives_up_with.get(type(task.command))
        if substitute is not None:
            reason = getattr(task.command, "reason", Reason.DEAD_LETTER)
            instead = convert({"order_id": order_id, "reason": reason}, substitute)
            self._try(Task(instead, task.because))

    def _failed_by_itself(self, task: Task, error: Exception) -> None:
        """A command that no record has brought: the next one is the deadline's."""
        if task.awaited:
            raise error
        name, order_id = _name(task.command), task.command.order_id
        log.error("%s fails at %s for order %s: %r", self._wiring, name, order_id, error)
        deadline = self._deadlines.get(order_id)
        if deadline is not None and self._is_due(order_id):
            delay = self._service.recovery.retry_delay(deadline.tries, order_id)
            postponed = timestamp(self._now + delay)
            self._deadlines.put(replace(deadline, due_at=postponed))
            self.due.append(postponed)

    def _retry_later(self, task: Task, record: Record | Retry, tries: int, due: str) -> None:
        headers = tuple(record.headers)
        self._retries.append(
            Retry(
                task.key, task.command.order_id, due, tries,
                record.topic, record.partition, record.offset, record.key, record.value, headers,
            )
        )  # fmt: skip
        self.due.append(due)

    def _bury(self, unreadable: Unreadable) -> None:
        """Give up a record that can't be read; trying again won't help."""
        log.error("%s can't read a record: %s", self._wiring, unreadable.error)
        newer = isinstance(unreadable.error, NewerSchemaError)
        self._send_to_dead_letters(
            unreadable.record, "newer_schema" if newer else "unreadable", unreadable.error, 1
        )
        if unreadable.command is not None and unreadable.because is not None:
            self._try(Task(unreadable.command, unreadable.because))

    def _send_to_dead_letters(
        self, record: Record | Retry, reason: str, error: Exception, tries: int
    ) -> None:
        self._service.counts["dead_letter"] += 1
        failure = Failure(reason, error, str(self._wiring), tries, self._at)
        self.outgoing.append(dead_letter(record, dead_letter_topic(record.topic), failure))


def _name(message: Message) -> str:
    return type(message).__name__
