"""The simulated world: the services' cores and databases, a broker, a clock, and customers.

It does one action at a time, and says which it could do next. Nothing in it depends on the machine, on real
time or on the order of a set, so that the same actions always lead to the same bytes.

A service that takes records does all of it at once: decide, commit, publish, commit offsets. Nobody else
could see it half done, unless it dies or stalls there, which is an action of its own (see `Mishap`), or two
instances of it are at work, which is another (`Action.beside`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from math import isinf
from typing import Any, Final

from common.broker import partition_of
from common.core import Core
from common.databases import tables_of
from common.domain.inventory import Stock
from common.domain.order import OrderStatus
from common.envelope import Outgoing
from common.messages import CancelOrder, Message, RetryCompensation
from common.probe import Boundary, Probe
from common.recovery import Recovery
from common.services import ORDERS, STOCK
from common.store.journal import counts
from common.store.rows import LoadedRows
from common.store.schema import INBOX, OUTBOX
from common.wiring import DEAD_LETTERS, Mode, Wiring
from compare.evidence import Happened, gather_evidence
from compare.faults import Fault
from compare.injection import CrashError, StandsStillError
from compare.plan import PlacedOrder, Plan
from compare.recording import Recording, Requested, Strike
from compare.simulation.actions import (
    CUSTOMER,
    DEATHS,
    MISHAPS_OF,
    OF_SERVICES,
    OPERATOR,
    TIME_PASSES,
    Action,
    Mishap,
    Verb,
)
from compare.simulation.broker import Place, SimulatedBroker, Stored, telling
from compare.simulation.hook import DiedError, Hook
from compare.simulation.locks import RowLocks, WouldWaitError, locking
from compare.simulation.memories import known_to, memory_of, remember
from compare.simulation.protections import Protection, without
from compare.simulation.scripted import UNSCRIPTED, Left, Script
from compare.simulation.situation import Situation, Snapshot
from compare.simulation.tables import START, MemoryDatabase, grains

PARTITIONS: Final = 2

_TICK: Final = timedelta(microseconds=1)
"""What any action takes: enough for times to tell what was first, too little for anything to be due."""
_ENDS: Final = {"OrderCompleted", "OrderFailed", "OrderCompensationFailed"}
_KINDS: Final = {
    Mishap.STALLS: Fault.STOP,
    Mishap.FAILS: Fault.ERROR,
    Mishap.FAILS_FOR_GOOD: Fault.PERMANENT_ERROR,
}
"""By mishap: the fault that it is in a scenario file; the others are crashes."""
_WIRE_KINDS: Final = {Verb.REPEATS: Fault.REPLAY, Verb.LOSES: Fault.LOSE, Verb.SPOILS: Fault.POISON}


class World:
    """One mode's services, in one history after the other; `begin` starts the next.

    `protections` are taken away.
    """

    tick: timedelta = _TICK
    """What any action takes."""

    def __init__(self, mode: Mode, protections: Collection[Protection] = ()) -> None:
        self.mode = mode
        self.taken_away = frozenset(protections)
        self._locks = RowLocks(held=Protection.ROW_LOCKS not in self.taken_away)
        self._wirings = {
            one.name: locking(without(one, self.taken_away), self._locks) for one in mode.services
        }
        self._databases = {one.name: MemoryDatabase(tables_of(one)) for one in mode.services}
        self._hook = Hook()
        self._places = {
            one.name: [(topic, part) for topic in sorted(one.subscriptions) for part in range(PARTITIONS)]
            for one in mode.services
        }
        self._fresh: dict[str, Mapping[str, Any]] = {}
        """By service: what its core knows when it has just been started over an empty database."""
        self.names = tuple(self._wirings)
        """Of the services, in the mode's order."""

    def begin(self, plan: Plan, script: Script = UNSCRIPTED) -> None:
        """Begin a history: the services are there, the stock is on its shelves, nothing has happened.

        What is in the script happens by itself, beside what the actions say.
        """
        self.plan = plan
        self.script = script
        self._recovery: Recovery = plan.scenario.patience
        self._orders = {order.number: order for order in plan.orders}
        self._numbers = {order.command.order_id: order.number for order in plan.orders}
        self.now_is = Situation(START, SimulatedBroker())
        self.doing: Action | None = None
        """What was done last, or tried; if a service breaks, that is why."""
        self.now_is.broker.create_topics(self.mode.all_topics, PARTITIONS)
        script.begin(lambda: self.now_is.now)
        self.cores: dict[str, Core] = {}
        self._prints: dict[str, object] = {}
        self._hook.arm(None)
        self._locks.release()
        for name, database in self._databases.items():
            database.clear()
            self.cores[name] = self._core(name, self._hook)
            self.now_is.generations[name] = self.now_is.broker.join(self._wirings[name].group)
            if name in self._fresh:
                remember(self.cores[name], self._fresh[name])
            else:  # it looks for what is left of an earlier life, once and for all
                self._boot(name)
                self._fresh[name] = memory_of(self.cores[name])
        rows = LoadedRows(STOCK)
        for item, available in plan.scenario.stock.items():
            rows.put(Stock(item, available))
        with self._databases["inventory"].write() as transaction:
            rows.save(transaction, START.isoformat())

    def close(self) -> None:
        """Close every database."""
        for database in self._databases.values():
            database.close()

    # What may happen.

    def enabled(self) -> list[Action]:
        """All that may happen now with nothing going wrong, what is next in turn first.

        Time passing is among it only if nothing else is; see `can`.
        """
        now = self.now_is
        found = [
            Action(name, Verb.STARTS) for name in self.names if name in now.down and self.script.starts(name)
        ]
        found += [action for action, due in self._requests() if due <= now.now and self._answers()]
        found += self.takes()
        found += [
            Action(name, Verb.WAKES)
            for name in self.names
            if self._wakes(name) and self.cores[name].due_in(self._clock(name)) <= 0
        ]
        found += [Action(name, Verb.GOES_ON) for name in sorted(now.stalled)]
        if not found and self.due() is not None:
            found.append(TIME_PASSES)
        return found

    def takes(self) -> list[Action]:
        """Each record that some service could take next, by itself, the oldest first."""
        heads = sorted(
            ((head.sequence, index, name, head.name) for index, name in enumerate(self.names)
             for head in self.heads(name)),
        )  # fmt: skip
        return list(dict.fromkeys(Action(name, Verb.TAKES, (record,)) for _, _, name, record in heads))

    def heads(self, name: str) -> list[Stored]:
        """The next record of each place that a service has to read; none if it can't now."""
        if not self._is_up(name) or not self.script.takes(name):
            return []
        group = self._wirings[name].group
        queues = (next(self.now_is.broker.fetch(group, place), None) for place in self._places[name])
        return [head for head in queues if head is not None]

    def queue(self, name: str, place: Place) -> list[Stored]:
        """What a service has still to read of a place."""
        return list(self.now_is.broker.fetch(self._wirings[name].group, place))

    def following(self, name: str, subjects: Sequence[str]) -> list[str]:
        """The names of the records that a service could take next, after these, the oldest first."""
        taken = Counter(record.place for record in self._resolve(name, subjects))
        queues = (self.queue(name, place)[taken[place] :] for place in self._places[name])
        heads = sorted((queue[0] for queue in queues if queue), key=lambda one: one.sequence)
        return list(dict.fromkeys(head.name for head in heads))

    def repeatable(self) -> list[str]:
        """The names of the records that the broker may have once more."""
        found = (one for one in self.now_is.broker.records() if not one.topic.endswith(DEAD_LETTERS))
        return list(dict.fromkeys(one.name for one in sorted(found, key=lambda one: one.sequence)))

    def touchable(self) -> list[str]:
        """The names of the records that may get lost, or spoiled, on their way."""
        return list(dict.fromkeys(one.name for one in self._untouched()))

    def unread(self) -> list[Stored]:
        """The records that are still to be taken by somebody."""
        found = {
            record.sequence: record
            for name in self.names
            for place in self._places[name]
            for record in self.queue(name, place)
        }
        return [found[sequence] for sequence in sorted(found)]

    def due(self) -> datetime | None:
        """When the next thing is due that is not due yet; None if nothing ever will be."""
        now = self.now_is.now
        found = [due for _, due in self._requests() if due > now]
        for name in self.names:
            seconds = self.cores[name].due_in(self._clock(name))
            if self._wakes(name) and 0 < seconds < float("inf"):
                found.append(now + timedelta(seconds=seconds))
        if (by_itself := self.script.due()) is not None:
            found.append(by_itself)
        return min(found, default=None)

    # What happens.

    def do(self, action: Action) -> bool:
        """Have something happen; whether it could, for otherwise nothing has changed."""
        self.doing = action
        if action.verb in OF_SERVICES and action.actor not in self.names:
            return False
        if action.mishap is not None and action.mishap not in MISHAPS_OF.get(action.verb, ()):
            return False
        happens = {
            Verb.PLACES: self._ask,
            Verb.CANCELS: self._ask,
            Verb.RETRIES: self._ask,
            Verb.TAKES: self._take,
            Verb.WAKES: self._wake,
            Verb.STARTS: self._start,
            Verb.GOES_ON: self._go_on,
            Verb.REPEATS: self._touch,
            Verb.LOSES: self._touch,
            Verb.SPOILS: self._touch,
            Verb.PASSES: self._pass,
        }[action.verb](action)
        if happens:
            self.now_is.steps += 1
            self.now_is.now += self.tick
            if not self.script.idle:
                self._catch_up()
        return happens

    def _catch_up(self) -> None:
        """Have happen what happens by itself at this moment."""
        script, again = self.script, True
        while again:
            again = False
            if arrived := script.arrivals():
                self._append(arrived)
                again = True
            if (resumed := script.resumed()) is not None:
                self._go_through(*resumed)
                again = True
            if (name := script.handover()) is not None:
                self._boot(name)
                again = True
        for name in self.names:
            if self._is_up(name) and any(self.queue(name, place) for place in self._places[name]):
                script.wait(name)

    def _ask(self, action: Action) -> bool:
        """Take a request of a customer or an operator."""
        due = dict(self._requests()).get(action.without_mishap())
        if due is None or due > self.now_is.now or not self._answers():
            return False
        (number,) = action.orders
        order, core = self._orders[number], self.cores["order"]
        command, at = _request(action.verb, order)
        if action.mishap in {Mishap.DIES_BEFORE, Mishap.DIES_DECIDED}:
            # Whoever has no answer asks again.
            self._die("order", action)
            return True
        partition = partition_of(command.order_id.encode(), PARTITIONS)
        with core.database.write() as transaction:
            rows = LoadedRows(ORDERS)
            rows.load(transaction, [command.order_id])
            row = rows.get(command.order_id)
            accepted = (row.status if row is not None else None) is at
            outgoing = core.submit(
                transaction, [(command, partition)] if accepted else [], self._clock("order")
            )
        self.now_is.asked.add((action.verb, number))
        if action.verb is Verb.PLACES:
            self.now_is.placed[number] = self.now_is.now
        else:
            what = "cancel" if action.verb is Verb.CANCELS else "retry_compensation"
            asked = Requested(order_id=command.order_id, what=what, accepted=accepted, at_ms=self._ms())
            self.now_is.requested += (asked,)
        self._finish("order", outgoing, action)
        return True

    def _take(self, action: Action) -> bool:
        name = action.actor
        if not self._is_up(name) or not self.script.takes(name):
            return False
        batch = self._resolve(name, action.subjects)
        beside = self._resolve(name, action.beside, after=batch)
        if not batch or (action.beside and not beside) or (beside and action.mishap):
            return False
        early = Protection.COMMIT_ORDER in self.taken_away
        if early:
            self._commit(name, batch)
        core, told, second = self.cores[name], list[Outgoing](), list[bool]()

        def meanwhile() -> None:
            outgoing = self._second(name, beside)
            if outgoing is not None:
                second.append(True)
                told.extend(outgoing)

        self._hook.arm(action.mishap, meanwhile if beside else None)
        self._forget_inbox(name)
        self.script.taken(name)
        try:
            outgoing = core.process(batch, self._clock(name))
        except DiedError:
            self._die(name, action)
            return True
        except CrashError as crash:
            self._crash(name, crash)
            return True
        except StandsStillError:
            self._hook.arm(None)
            return True
        finally:
            self._locks.release()
        self._note_failures(action)
        self._finish(name, [*told, *outgoing], action, () if early else batch)
        if second:
            self._commit(name, beside)
        return True

    def _note_failures(self, action: Action) -> None:
        """Note the orders at which the decider has failed, if it has."""
        kind = _KINDS.get(action.mishap) if action.mishap else None
        for order_id in dict.fromkeys(self._hook.failed):
            self._add_strike(kind or Fault.ERROR, action.actor, Boundary.DECIDED, order_id)
        self._note_tries(action.actor)
        self._hook.error = None

    def _note_tries(self, name: str) -> None:
        """Note what was tried in vain, and what was tried again too soon after that."""
        now = self._clock(name)
        tried = {message for _, message in self._hook.failing} | {*self._hook.decided}
        for (service, _, message), (times, last) in self.now_is.failures.items():
            # What was given up is tried anew, and at once, if it comes once more.
            given_up = times >= min(self._recovery.retry_tries, self._recovery.undo_tries)
            soon = last + least_delay(self._recovery, times)
            if service == name and message in tried and now < soon and not given_up:
                self.now_is.hasty += ((name, message),)
        for command, message in self._hook.failing:
            before, _ = self.now_is.failures.get((name, command, message), (0, now))
            self.now_is.failures[name, command, message] = (before + 1, now)

    def _second(self, name: str, batch: Sequence[Stored]) -> list[Outgoing] | None:
        """What another instance does meanwhile; None, if it has to wait."""
        other = self._core(name, self._hook)
        self._locks.nested = True
        try:
            return other.process(batch, self._clock(name))
        except WouldWaitError:
            return None
        finally:
            self._locks.nested = False

    def _wake(self, action: Action) -> bool:
        name = action.actor
        if not self._wakes(name) or self.cores[name].due_in(self._clock(name)) > 0:
            return False
        if action.mishap in {Mishap.DIES_BEFORE, Mishap.DIES_DECIDED}:
            self._die(name, action)
            return True
        self._hook.arm(action.mishap)
        outgoing = self.cores[name].wake(range(PARTITIONS), self._clock(name))
        self._note_failures(action)
        self._finish(name, outgoing, action)
        return True

    def _start(self, action: Action) -> bool:
        name = action.actor
        if name not in self.now_is.down or not self.script.starts(name):
            return False
        self.now_is.down.discard(name)
        self.script.started(name)
        if not self._boot(name, action.mishap):
            self._die(name, action)
        return True

    def _go_on(self, action: Action) -> bool:
        left = self.now_is.stalled.pop(action.actor, None)
        if left is None:
            return False
        # It doesn't know that it has lost its partitions. To commit their offsets it is not allowed any more.
        self._publish(action.actor, left)
        return True

    def _touch(self, action: Action) -> bool:
        """Have the broker repeat, lose or spoil a record."""
        (subject,) = action.subjects
        broker = self.now_is.broker
        if action.verb is Verb.REPEATS:
            there = [one for one in broker.records() if one.name == subject]
        else:
            there = [one for one in self._untouched() if one.name == subject]
        if not there:
            return False
        record = min(there, key=lambda one: one.sequence)
        if action.verb is Verb.REPEATS:
            broker.append(record, record.partition, name=record.name, id_=record.id)
        elif action.verb is Verb.LOSES:
            broker.lose(record)
        else:
            kind, message = record.name.partition("(")[0], dict(record.headers)["ce_id"].decode()
            for name, wiring in self._wirings.items():
                reads = record.place in self._places[name] and record in self.queue(name, record.place)
                # With faults of a scenario's own, a batch that was taken may be waiting to be published.
                counts = self.script.idle and kind in wiring.reaction_to
                self.now_is.unreadable[name, message] += reads and counts
            broker.spoil(record)
        self._skip_all()
        order_id = (record.key or b"").decode()
        self._add_strike(_WIRE_KINDS[action.verb], None, None, order_id, record)
        return True

    def _untouched(self) -> list[Stored]:
        """What nobody has taken yet, of what only comes once and has come once only."""
        ids = Counter(record.id for record in self.now_is.broker.records())
        return [record for record in self.unread() if not record.spoiled and ids[record.id] == 1]

    def _pass(self, action: Action) -> bool:
        due = self.due()
        if action != TIME_PASSES or due is None:
            return False
        self.now_is.early = self.now_is.early or self.enabled() != [TIME_PASSES]
        self.now_is.now = due
        return True

    # How it happens.

    def _finish(
        self, name: str, outgoing: Sequence[Outgoing], action: Action, batch: Sequence[Stored] = ()
    ) -> None:
        """Publish, commit the offsets, and die or stall on the way if that is to be."""
        self._committed(name)
        mishap = action.mishap
        if mishap in {Mishap.DIES_COMMITTED, Mishap.DIES_PUBLISHING}:
            half = len(outgoing) // 2 if mishap is Mishap.DIES_PUBLISHING else 0
            self._publish(name, outgoing[:half])
            self._die(name, action)
            return
        if mishap is Mishap.STALLS:
            self._strike(action, Boundary.COMMITTED)
            self.now_is.stalled[name] = tuple(outgoing)
            self._boot(name)
            return
        self._go_through(name, Left(tuple(outgoing), action, tuple(batch)))

    def _go_through(self, name: str, left: Left) -> None:
        """Publish and commit the offsets, as far as that can be done now."""
        script = self.script
        if not left.published and script.publishes(name):
            self._publish(name, left.outgoing)
            left = left._replace(published=True, until=self.now_is.now + script.round_trip)
        if not left.published or left.until > self.now_is.now:
            script.keep(name, left)
            return
        try:
            self._acknowledge(name, left)
        except CrashError as crash:
            self._crash(name, crash)

    def _acknowledge(self, name: str, left: Left) -> None:
        """Note that the broker has what was published, and commit the offsets."""
        core, mishap = self.cores[name], left.action.mishap
        if not left.told:
            if mishap is Mishap.DIES_PUBLISHED:
                self._die(name, left.action)
                return
            core.acknowledge(left.outgoing)
            if left.batch:
                core.passing(Boundary.PUBLISHED)
        if not self.script.commits():
            self.script.keep(name, left._replace(told=True))
            return
        self._commit(name, left.batch)
        if mishap is Mishap.DIES_ACKNOWLEDGED:
            self._die(name, left.action)
        elif left.batch:
            core.passing(Boundary.ACKNOWLEDGED)

    def _publish(self, name: str, outgoing: Sequence[Outgoing]) -> None:
        self._append(self.script.sent(name, outgoing))

    def _append(self, arrived: Sequence[Outgoing]) -> None:
        for record in arrived:
            headers = dict(record.headers)
            kind, attempt = headers.get("ce_type", b"?").decode(), headers.get("ce_attempt", b"1").decode()
            number = self._numbers.get((record.key or b"").decode(), 0)
            name = f"{kind}({number})" + (f"~{attempt}" if attempt != "1" else "")
            partition = record.partition
            if Protection.KEY_ORDERING in self.taken_away:
                partition = partition_of(telling(record).encode(), PARTITIONS)
            if record.topic.endswith(DEAD_LETTERS):
                name = f"dead {name}"
            self.now_is.broker.append(record, partition, name=name, id_=telling(record))
            if kind in _ENDS and number:
                self.now_is.ended.setdefault(number, self.now_is.now)
                self.script.ends((record.key or b"").decode())
        self._skip_all()

    def _skip_all(self) -> None:
        """Have every group leave behind what is none of its business: that has no effect."""
        broker = self.now_is.broker
        for name, wiring in self._wirings.items():
            for place in self._places[name]:
                log, at = broker.logs[place], broker.position(wiring.group, place)
                while at < len(log) and (log[at].lost or not _concerns(log[at], wiring)):
                    at += 1
                broker.committed[wiring.group, place] = at

    def _commit(self, name: str, batch: Sequence[Stored]) -> None:
        now = self.now_is
        for record in batch:
            now.broker.commit(
                self._wirings[name].group, now.generations[name], record.place, record.offset + 1
            )
        if batch:
            self._skip_all()

    def _die(self, name: str, action: Action) -> None:
        if action.mishap is Mishap.DIES_COMMITTED:
            self._committed(name)
        self._hook.arm(None)
        self._strike(action, DEATHS.get(action.mishap) if action.mishap else None)
        self.now_is.down.add(name)
        self.script.died(name)

    def _crash(self, name: str, crash: CrashError) -> None:
        """Die because the script says so, which has noted it."""
        if crash.boundary is Boundary.COMMITTED:
            self._committed(name)
        self._hook.arm(None)
        self.now_is.down.add(name)
        self.script.died(name)

    def _boot(self, name: str, mishap: Mishap | None = None) -> bool:
        """Start a service: it gets all partitions, and publishes what an earlier life has left.

        Whether it lives on after that: a mishap ends it on the way.
        """
        if Protection.OUTBOX in self.taken_away:
            self._databases[name].forget(OUTBOX)
        core = self.cores[name] = self._core(name, self._hook)
        self.now_is.generations[name] = self.now_is.broker.join(self._wirings[name].group)
        if mishap in {Mishap.DIES_BEFORE, Mishap.DIES_DECIDED}:
            return False
        after = 0
        while left := core.unsent(range(PARTITIONS), after):
            self._publish(name, left[: len(left) // 2] if mishap is Mishap.DIES_PUBLISHING else left)
            if mishap in {Mishap.DIES_PUBLISHING, Mishap.DIES_PUBLISHED}:
                return False
            core.acknowledge(left)
            after = left[-1].parcel
        outgoing = core.wake(range(PARTITIONS), self._clock(name))
        if mishap is Mishap.DIES_COMMITTED:
            return False
        self._publish(name, outgoing)
        core.acknowledge(outgoing)
        self._committed(name)
        return mishap is None

    def _core(self, name: str, probe: Probe) -> Core:
        rules = self.plan.rules
        probe = self.script.probe(name, probe)
        return Core(self._wirings[name], rules, self._databases[name], recovery=self._recovery, probe=probe)

    def _clock(self, name: str) -> datetime:
        """The time as a service has it."""
        return self.now_is.now + self.script.skew(name)

    def _forget_inbox(self, name: str) -> None:
        if Protection.INBOX in self.taken_away:
            self._databases[name].forget(INBOX)

    def _resolve(self, name: str, subjects: Sequence[str], after: Sequence[Stored] = ()) -> list[Stored]:
        """The records of these names, if a service could take all of them now, after those; else none."""
        queues = {place: iter(self.queue(name, place)) for place in self._places[name]}
        for record in after:
            next(queues[record.place])
        heads = {place: next(queue, None) for place, queue in queues.items()}
        found: list[Stored] = []
        for subject in subjects:
            fits = [head for head in heads.values() if head is not None and head.name == subject]
            if not fits:
                return []
            record = min(fits, key=lambda one: one.sequence)
            found.append(record)
            heads[record.place] = next(queues[record.place], None)
        return found

    def _is_up(self, name: str) -> bool:
        return name not in self.now_is.down

    def _answers(self) -> bool:
        """Whether the Order service takes requests."""
        return self._is_up("order") and self.script.answers("order")

    def _wakes(self, name: str) -> bool:
        return self._is_up(name) and self.script.wakes(name)

    def _requests(self) -> Iterator[tuple[Action, datetime]]:
        """What customers and operators are still to ask for, and when, as far as that is known."""
        now = self.now_is
        for number, order in self._orders.items():
            spec = order.spec
            for verb, since, delay in (
                (Verb.PLACES, self._since(spec.after), spec.at),
                (
                    Verb.CANCELS,
                    (now.placed if spec.cancel and spec.cancel.after == "placed" else now.ended).get(number),
                    spec.cancel.at if spec.cancel else None,
                ),
                (Verb.RETRIES, now.ended.get(number), spec.retry_compensation),
            ):
                if since is not None and delay is not None and (verb, number) not in now.asked:
                    actor = OPERATOR if verb is Verb.RETRIES else CUSTOMER
                    yield Action(actor, verb, (str(number),)), since + timedelta(seconds=float(delay))

    def _since(self, after: str | None) -> datetime | None:
        """When the orders of a name had all ended; without a name, the beginning."""
        if after is None:
            return START
        ends = [
            self.now_is.ended.get(number) for number, one in self._orders.items() if one.spec.name == after
        ]
        known = [end for end in ends if end is not None]
        return max(known, default=START) if len(known) == len(ends) else None

    # What is known of it.

    def _ms(self, moment: datetime | None = None) -> float:
        """Milliseconds from the first order's placing, until a moment or now."""
        return round(((moment or self.now_is.now) - self._first).total_seconds() * 1000, 3)

    @property
    def _first(self) -> datetime:
        """When the first order was placed."""
        return min(self.now_is.placed.values(), default=self.now_is.now)

    def _strike(self, action: Action, boundary: Boundary | None) -> None:
        kind = _KINDS.get(action.mishap, Fault.CRASH) if action.mishap else Fault.CRASH
        service = action.actor if action.actor in self.names else "order"
        ids = [
            self._orders[number].command.order_id for number in sorted(action.orders & self._orders.keys())
        ]
        if not ids:
            self._add_strike(kind, service, boundary, None)
        for order_id in ids:
            self._add_strike(kind, service, boundary, order_id)

    def _add_strike(
        self,
        kind: Fault,
        service: str | None,
        boundary: Boundary | None,
        order_id: str | None,
        record: Stored | None = None,
    ) -> None:
        headers = {name: value.decode() for name, value in record.headers} if record else {}
        # What was struck on its way was struck when it was told, whenever that comes out.
        at = self._ms(datetime.fromisoformat(headers["ce_time"]) if record else None)
        strike = Strike(
            fault=len(self.plan.scenario.faults) + len(self.now_is.strikes),
            kind=kind,
            service=service,
            boundary=boundary,
            order_id=order_id,
            record_id=headers.get("ce_id"),
            record_type=headers.get("ce_type"),
            at_ms=at,
            over_ms=at,
        )
        self.now_is.strikes += (strike,)

    def recording(self, unfinished: str | None = None) -> Recording:
        """What has happened, as a replay would have recorded it."""
        counted = {}
        for name, core in self.cores.items():
            with core.database.read() as connection:
                counted[name] = counts(connection)
        happened = Happened(
            unfinished=unfinished,
            wall_s=(self.now_is.now - START).total_seconds(),
            counts=counted,
            strikes=(*self.script.strikes(self._first), *self.now_is.strikes),
            not_applicable=self.script.not_applicable,
            requested=self.now_is.requested,
        )
        return gather_evidence(self.plan, self.cores, self.now_is.broker.records(), "", happened)

    def fingerprint(self) -> bytes:
        """A hash of all that what comes next, and its verdict, can depend on.

        That leaves out how often something was counted, and when it was, but for what is still due: two
        histories that differ in nothing else will be judged alike.
        """
        now = self.now_is
        for name in self.names:
            if name not in self._prints:
                self._prints[name] = self._databases[name].content()
        logs = [
            (place, [(one.id, one.lost, one.spoiled) for one in log])
            for place, log in sorted(now.broker.logs.items())
        ]
        known = (
            [(name, self._prints[name], *self._known(name)) for name in self.names],
            logs,
            sorted(now.broker.committed.items()),
            sorted(now.down),
            [(name, [*map(telling, left)]) for name, left in sorted(now.stalled.items())],
            sorted(now.asked),
            [(one.order_id, one.what, one.accepted) for one in now.requested],
            sorted((one.kind, one.order_id or "", one.record_id or "") for one in now.strikes),
            sorted(key for key, times in now.handled.items() if times > 1),
            grains(now.now),
            now.early,
            self.script.known(grains),
        )
        return blake2b(repr(known).encode(), digest_size=16).digest()

    def _known(self, name: str) -> tuple[object, ...]:
        """What a core knows beside its database: that a wake is due is known to it alone."""
        core, now = self.cores[name], self.now_is.now
        seconds = core.due_in(now)
        return (
            known_to(core),
            seconds <= 0,
            None if isinf(seconds) else int((now - START).total_seconds() + seconds),
        )

    # Coming back.

    def snapshot(self) -> Snapshot:
        """This moment."""
        return Snapshot(
            self.now_is.copy(),
            {name: database.image() for name, database in self._databases.items()},
            {name: memory_of(core) for name, core in self.cores.items()},
            self.script.image(),
        )

    def put_back(self, snapshot: Snapshot) -> None:
        """Go on from a moment before, of the same history or of one that shares its beginning."""
        self.now_is = snapshot.situation.copy()
        for name, database in self._databases.items():
            database.put_back(snapshot.images[name])
            remember(self.cores[name], snapshot.memories[name])
        self.script.put_back(snapshot.script)
        self._prints.clear()

    def _committed(self, name: str) -> None:
        """Note what a transaction of a service has done."""
        self.now_is.handled.update((name, message) for message in self._hook.decided)
        self._hook.arm(None)
        self._locks.release()
        self._prints.pop(name, None)


def least_delay(recovery: Recovery, tries: int) -> timedelta:
    """How long to wait at least after so many failures: twice as long each time, less a jitter of a fifth."""
    longest = min(recovery.retry_longest_s, recovery.retry_first_s * 2 ** (tries - 1))
    return timedelta(seconds=0.8 * longest)


def _request(verb: Verb, order: PlacedOrder) -> tuple[Message, OrderStatus | None]:
    """The command of a request, and the status at which its order can take it."""
    order_id = order.command.order_id
    match verb:
        case Verb.CANCELS:
            return CancelOrder(order_id=order_id), OrderStatus.PENDING
        case Verb.RETRIES:
            return RetryCompensation(order_id=order_id), OrderStatus.COMPENSATION_FAILED
        case _:
            return order.command, None


def _concerns(record: Stored, wiring: Wiring) -> bool:
    kind = dict(record.headers).get("ce_type", b"").decode()
    return kind in wiring.reaction_to
