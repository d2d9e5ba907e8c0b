"""A world that remembers what its services have done: the same again is looked up, not done.

What a service does depends on its database, on what its core knows beside it, on the records that it takes
and on the time; on nothing else. Each such local state is kept once, under a number, and with it what each
step from there has led to. To come back to a moment is then to take up some numbers; a database is filled
only when its service comes to something that it has not done before.

For that to be seldom, times must not differ for no reason. So each service has a logical clock (Lamport,
"Time, Clocks, and the Ordering of Events in a Distributed System", 1978): a transaction is a tick later than
the one before it, and than the records that it takes. An effect is still later than its cause, and what has
nothing to do with either makes no difference to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Connection, Table

from common.core import Core
from common.envelope import Headers, Outgoing, Record
from common.messages import Message
from common.probe import Boundary, Probe
from common.store.schema import HISTORY, INBOX, OUTBOX
from common.wiring import Mode, Wiring
from compare.faults import AT_A_BOUNDARY
from compare.plan import Plan
from compare.simulation.actions import Action, Mishap
from compare.simulation.broker import Stored, telling
from compare.simulation.hook import DiedError, Hook
from compare.simulation.memories import known_to, memory_of, remember
from compare.simulation.protections import Protection
from compare.simulation.scripted import UNSCRIPTED, Script
from compare.simulation.situation import Snapshot
from compare.simulation.tables import GRAIN, START, Image, MemoryDatabase, grains
from compare.simulation.world import World

_TICK: Final = timedelta(microseconds=1)
_AT: Final = "at"
_IN_CORE: Final = frozenset({Boundary.BEFORE, Boundary.DECIDED, Boundary.COMMITTED})
"""The boundaries that a core comes to by itself."""


class _State(NamedTuple):
    """What there is of a service at one moment."""

    image: Image
    memory: Mapping[str, Any]
    next_due: str | None
    clock: datetime
    print: bytes
    """A hash of that in it on which what comes next can depend."""


class _Move(NamedTuple):
    """What a step has led to."""

    to: int
    result: Any = None
    died: bool = False
    decided: tuple[str, ...] | None = None


class RememberingCore:
    """Stands in for a service's core, and does what that would do."""

    def __init__(self, core: Core, database: MemoryDatabase, hook: Hook, fresh: Callable[[], Core]) -> None:
        self._core = core
        self._database = database
        self._hook = hook
        self._fresh = fresh
        self._states: list[_State] = []
        self._numbers: dict[bytes, int] = {}
        self._moves: dict[tuple[int, Hashable], _Move] = {}
        self._clock = START - _TICK
        self._changed = False
        self._loaded = self._at = self._keep()

    @property
    def at(self) -> int:
        """The number of the state in which it is."""
        if self._changed:
            self._changed = False
            self._loaded = self._at = self._keep()
        return self._at

    @at.setter
    def at(self, number: int) -> None:
        self._changed = False
        self._at = number

    @property
    def print(self) -> bytes:
        """A hash of that on which what comes next can depend."""
        return self._states[self.at].print

    @property
    def wiring(self) -> Wiring:
        """The service's part in its mode."""
        return self._core.wiring

    @property
    def counts(self) -> Mapping[str, int]:
        """What it has counted."""
        self._load()
        return self._core.counts

    @property
    def database(self) -> MemoryDatabase:
        """Its database, as it is now."""
        self._load()
        return self._database

    def renew(self) -> None:
        """Begin another life."""
        self._step("renew", self._begin_again)

    def forget(self, table: Table) -> None:
        """Remove all rows of a table."""
        self._step(("forget", table.name), lambda _: self._database.forget(table))

    def process(self, records: Sequence[Record], now: datetime) -> list[Outgoing]:
        """As the core does it; at a time of its own."""
        at = self._tick(now, records)
        dies_at = self._hook.dies_at if self._hook.dies_at in _IN_CORE else None
        taken = tuple((one.topic, one.partition, one.offset, one.headers, one.value) for one in records)
        found: list[Outgoing] = self._step(
            ("process", taken, at, dies_at), lambda core: core.process(records, at), at, decides=True
        )
        return found

    def wake(self, partitions: Sequence[int], now: datetime) -> list[Outgoing]:
        """As the core does it; at a time of its own."""
        at = self._tick(now)
        found: list[Outgoing] = self._step(
            ("wake", at), lambda core: core.wake(partitions, at), at, decides=True
        )
        return found

    def submit(
        self, transaction: Connection, commands: Sequence[tuple[Message, int]], now: datetime
    ) -> list[Outgoing]:
        """As the core does it; at a time of its own."""
        self._clock = self._tick(now)
        self._changed = True
        return self._core.submit(transaction, commands, self._clock)

    def unsent(self, partitions: Sequence[int], after: int = 0) -> list[Outgoing]:
        """As the core has it."""
        found: list[Outgoing] = self._step(("unsent", after), lambda core: core.unsent(partitions, after))
        return found

    def acknowledge(self, sent: Collection[Outgoing]) -> None:
        """As the core does it."""
        if sent:
            parcels = tuple(sorted({record.parcel for record in sent}))
            self._step(("acknowledge", parcels), lambda core: core.acknowledge(sent))

    def due_in(self, now: datetime) -> float:
        """As the core has it."""
        match self._states[self.at].next_due:
            case None:
                return float("inf")
            case "":
                return 0.0
            case due:
                return max(0.0, (_moment(due) - now).total_seconds())

    def passing(self, boundary: Boundary) -> None:
        """Nothing waits for it there."""

    def _step(
        self,
        key: Hashable,
        run: Callable[[Core], Any],
        clock: datetime | None = None,
        *,
        decides: bool = False,
    ) -> Any:  # noqa: ANN401 - whatever the core returns
        move = self._moves.get((self.at, key))
        if move is None:
            move = self._moves[self._at, key] = self._run(run, clock, decides=decides)
        elif move.decided is not None:
            self._hook.decided[:] = move.decided
        self._at = move.to
        if move.died:
            raise DiedError
        return move.result

    def _run(self, run: Callable[[Core], Any], clock: datetime | None, *, decides: bool) -> _Move:
        self._load()
        self._loaded = -1  # until it is known how it ends
        self._clock = clock or self._clock
        result, died = None, False
        try:
            result = run(self._core)
        except DiedError:
            died = True
        self._loaded = self._keep()
        return _Move(self._loaded, result, died, tuple(self._hook.decided) if decides else None)

    def _begin_again(self, _: Core) -> None:
        self._core = self._fresh()

    def _tick(self, now: datetime, records: Sequence[Record] = ()) -> datetime:
        """The time of the next transaction."""
        told = (
            _moment(value.decode()) for one in records for name, value in one.headers if name == "ce_time"
        )
        return max(now, self._states[self.at].clock + _TICK, *(moment + _TICK for moment in told))

    def _load(self) -> None:
        """Have the database and the core be as they are to be now."""
        if self._loaded != self.at:
            state = self._states[self._at]
            self._database.put_back(state.image)
            remember(self._core, state.memory)
            self._clock = state.clock
            self._loaded = self._at

    def _keep(self) -> int:
        """The number of the state that the database and the core are in."""
        memory = memory_of(self._core)
        next_due, known = memory["_next_due"], known_to(self._core)
        all_of_it = _digest((self._database.everything(), known, next_due, self._clock))
        if all_of_it not in self._numbers:
            self._numbers[all_of_it] = len(self._states)
            print_ = _digest((self._content(), known, _grain(next_due)))
            self._states.append(_State(self._database.image(), memory, next_due, self._clock, print_))
        return self._numbers[all_of_it]

    def _content(self) -> list[tuple[str, list[tuple[Any, ...]]]]:
        """What is in the database; changes of different orders have no order, but for those of the stock."""
        if self.wiring.name == "inventory":
            return self._database.content()
        by_order = [one.name for one in HISTORY.columns if one.name != "sequence"].index("order_id")
        return [
            (name, sorted(rows, key=itemgetter(by_order)) if name == HISTORY.name else rows)
            for name, rows in self._database.content()
        ]


class RememberingWorld(World):
    """One mode's services, in all histories that begin alike; time stands still but where it passes."""

    tick = timedelta(0)

    def __init__(self, mode: Mode, protections: Collection[Protection] = ()) -> None:
        super().__init__(mode, protections)
        self._remembering: dict[str, RememberingCore] = {}
        self._followed = [
            ((wiring.group, place), place, frozenset(wiring.reaction_to))
            for name, wiring in self._wirings.items()
            for place in self._places[name]
        ]
        self._records: dict[tuple[bytes | None, str, bool, bool], int] = {}
        """Records by what there is to tell them by, with a number for each."""
        self._orders_of: list[bytes] = []
        """By that number: whose record it is."""

    def begin(self, plan: Plan, script: Script = UNSCRIPTED) -> None:
        """Begin; this can be done once."""
        super().begin(plan, script)
        for name, database in self._databases.items():
            fresh = partial(super()._core, name, self._hook)
            core = RememberingCore(self.cores[name], database, self._hook, fresh)
            self._remembering[name] = core
            self.cores[name] = cast("Core", core)

    def fingerprint(self) -> bytes:
        """A hash of all that what comes next, and its verdict, can depend on.

        It tells less apart than the other: of what is read by everybody, only the order within one order's
        records counts, and of a crash or a stop only that there was one.
        """
        now = self.now_is
        committed = now.broker.committed
        read = {place: len(log) for place, log in now.broker.logs.items()}
        for (_, place), offset in committed.items():
            read[place] = min(read[place], offset)
        logs = []
        for place, log in now.broker.logs.items():
            numbers, most = [self._number(one) for one in log], read[place]
            numbers[:most] = sorted(numbers[:most], key=self._orders_of.__getitem__)
            logs.append(numbers)
        known = (
            [core.print for core in self._remembering.values()],
            logs,
            [*committed.values()],
            sorted(now.down),
            [(name, [*map(telling, left)]) for name, left in sorted(now.stalled.items())],
            sorted(now.asked),
            sorted((one.order_id, one.what, one.accepted) for one in now.requested),
            sorted(
                (str(one.kind), one.order_id or "", one.record_id or "")
                for one in now.strikes
                if one.kind not in AT_A_BOUNDARY
            ),
            any(one.kind in AT_A_BOUNDARY for one in now.strikes),
            sorted(key for key, times in now.handled.items() if times > 1),
            grains(now.now),
            # Within a grain, what is due can be due already, or not yet.
            [core.due_in(now.now) <= 0 for core in self._remembering.values()],
            [due <= now.now for _, due in self._requests()],
            now.early,
        )
        return _digest(known)

    def snapshot(self) -> Snapshot:
        """This moment."""
        numbers = {name: {_AT: core.at} for name, core in self._remembering.items()}
        return Snapshot(self.now_is.copy(), {}, numbers, self.script.image())

    def put_back(self, snapshot: Snapshot) -> None:
        """Go on from a moment before."""
        self.now_is = snapshot.situation.copy()
        for name, core in self._remembering.items():
            core.at = snapshot.memories[name][_AT]

    def _pass(self, action: Action) -> bool:
        passes = super()._pass(action)
        if passes:
            # To the end of the grain, so that all that is due within it is: in which order it comes is open.
            self.now_is.now = START + (grains(self.now_is.now) + 1) * GRAIN
        return passes

    def _number(self, record: Stored) -> int:
        known = (record.key, record.id, record.lost, record.spoiled)
        number = self._records.get(known)
        if number is None:
            number = self._records[known] = len(self._records)
            self._orders_of.append(record.key or b"")
        return number

    def _skip_all(self) -> None:
        # As the other does it, but this is where the time goes.
        logs, committed = self.now_is.broker.logs, self.now_is.broker.committed
        for key, place, kinds in self._followed:
            log, at = logs[place], committed.get(key, 0)
            while at < len(log) and (log[at].lost or _kind(log[at].headers) not in kinds):
                at += 1
            committed[key] = at

    def _core(self, name: str, probe: Probe) -> Core:
        if name not in self._remembering:
            return super()._core(name, probe)
        self._remembering[name].renew()
        return cast("Core", self._remembering[name])

    def _boot(self, name: str, mishap: Mishap | None = None) -> bool:
        if name in self._remembering and Protection.OUTBOX in self.taken_away:
            self._remembering[name].forget(OUTBOX)
            _ = self._remembering[name].database  # from which nothing is left to be removed
        return super()._boot(name, mishap)

    def _forget_inbox(self, name: str) -> None:
        if Protection.INBOX in self.taken_away:
            self._remembering[name].forget(INBOX)


@lru_cache(maxsize=1024)
def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _grain(due_at: str | None) -> int | str | None:
    return grains(_moment(due_at)) if due_at else due_at


@lru_cache(maxsize=1024)
def _kind(headers: Headers) -> str:
    return dict(headers).get("ce_type", b"").decode()


def _digest(known: object) -> bytes:
    return blake2b(repr(known).encode(), digest_size=16).digest()
