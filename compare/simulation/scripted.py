"""A scenario's faults in the simulated world: to services, clocks, records and the broker, in its own time.

Which record is hit, and how often, is decided by the same code as in a replay (`compare.injection`). What
takes real time there (to stand still, to be away, to be held on the wire as by `compare.wire`) is a moment
here at which it is over, and to which the world's time can pass.

What differs from a replay: the second instance of a `rebalance` takes all of the partitions, not half of
them, so that they go from hand to hand and back; and what a `slow_broker` takes longer for is to acknowledge
a record and to hand it out, each once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from msgspec.structs import replace as with_fields

from common.envelope import Cause, Outgoing
from common.messages import Message
from common.probe import Boundary, Probe
from common.wiring import DEAD_LETTERS, Mode
from compare.faults import Fault
from compare.injection import (
    CrashError,
    Image,
    Injection,
    StandsStillError,
    Struck,
    never_struck,
    strikes_of,
)
from compare.plan import Plan
from compare.recording import Strike
from compare.simulation.actions import Action
from compare.simulation.broker import SPOILED, Stored
from compare.simulation.tables import START

_PASSED_BY: Final = timedelta(seconds=2)
"""How long a record waits to be overtaken, at most: there may be no other order."""

_Wired = tuple[str, bytes | None]
"""A topic and a key: what is here stays in order."""


class Left(NamedTuple):
    """What a service has still to do about what it has committed."""

    outgoing: tuple[Outgoing, ...]
    action: Action
    batch: tuple[Stored, ...] = ()
    """What it has taken; nothing, if it has woken or was asked for something."""
    published: bool = False
    told: bool = False
    """Whether it has passed the boundary behind that."""
    until: datetime = START
    """When the broker's answer comes."""


class Script:
    """Nothing goes wrong but what the actions themselves say; the world asks it at every turn."""

    def begin(self, now: Callable[[], datetime]) -> None:
        """A history begins; `now` tells its time."""

    def probe(self, service: str, inner: Probe) -> Probe:  # noqa: ARG002 - see Scripted
        """The probe of a service, with the world's own in it."""
        return inner

    def skew(self, service: str) -> timedelta:  # noqa: ARG002 - see Scripted
        """How far a service's clock is ahead."""
        return timedelta()

    def answers(self, service: str) -> bool:  # noqa: ARG002 - see Scripted
        """Whether a service takes requests."""
        return True

    def wakes(self, service: str) -> bool:  # noqa: ARG002 - see Scripted
        """Whether a service goes on with what is due."""
        return True

    def takes(self, service: str) -> bool:  # noqa: ARG002 - see Scripted
        """Whether a service takes records."""
        return True

    def starts(self, service: str) -> bool:  # noqa: ARG002 - see Scripted
        """Whether a service that has died can be there again."""
        return True

    def publishes(self, service: str) -> bool:  # noqa: ARG002 - see Scripted
        """Whether what a service has to publish goes out now."""
        return True

    def commits(self) -> bool:
        """Whether the broker takes offsets now."""
        return True

    @property
    def round_trip(self) -> timedelta:
        """How long the broker takes to answer."""
        return timedelta()

    def started(self, service: str) -> None:
        """A service that has died is there again."""

    def died(self, service: str) -> None:
        """A service has died: what it was about to do, it won't."""

    def taken(self, service: str) -> None:
        """A service has taken records."""

    def keep(self, service: str, left: Left) -> None:
        """Note what a service can't do yet."""

    def sent(self, service: str, records: Sequence[Outgoing]) -> Sequence[Outgoing]:  # noqa: ARG002 - see Scripted
        """What of the records that a service publishes comes to the broker at once, and how often."""
        return records

    def ends(self, order_id: str) -> None:
        """The end of an order is told."""

    def due(self) -> datetime | None:
        """When the next thing happens by itself; None if nothing will."""
        return None

    def arrivals(self) -> list[Outgoing]:
        """What comes to the broker by itself at this moment; it is told of once."""
        return []

    def resumed(self) -> tuple[str, Left] | None:
        """What some service can go on with now; it is told of once."""
        return None

    def handover(self) -> str | None:
        """A service whose partitions go to another of its instances now; it is told of once."""
        return None

    def wait(self, service: str) -> None:
        """There is something for a service to take."""

    @property
    def idle(self) -> bool:
        """Whether nothing ever happens by itself."""
        return True

    def strikes(self, first: datetime) -> tuple[Strike, ...]:  # noqa: ARG002 - see Scripted
        """What has struck, since the first order was placed."""
        return ()

    @property
    def not_applicable(self) -> tuple[str, ...]:
        """The faults that have no counterpart in this mode, or have not struck."""
        return ()

    def image(self) -> object:
        """This moment of it."""
        return None

    def put_back(self, image: object) -> None:
        """Go on from a moment before."""

    def known(self, grain: Callable[[datetime], int]) -> object:  # noqa: ARG002 - see Scripted
        """All that what comes next can depend on, with its times as numbers of grains."""
        return None


UNSCRIPTED: Final = Script()


@dataclass
class _State:
    """All that can change, but for what has struck. Faults that struck are known by their number there."""

    under_way: dict[int, datetime | None] = field(default_factory=dict)
    """By fault that struck: when it is over; None if that depends on an order's end."""
    treated: dict[tuple[str, str], tuple[Outgoing, ...]] = field(default_factory=dict)
    """By id and attempt: what became of a record that was struck, should it be handed over again."""
    held: dict[_Wired, tuple[Outgoing, ...]] = field(default_factory=dict)
    holds: dict[int, _Wired] = field(default_factory=dict)
    """By fault that struck: where it holds up what comes."""
    overtaken: dict[str, int] = field(default_factory=dict)
    """By type: the fault because of which a record waits to be overtaken by one of that type."""
    replays: dict[int, Outgoing] = field(default_factory=dict)
    in_flight: list[tuple[datetime, Outgoing]] = field(default_factory=list)
    """What the broker will have, and when at the earliest."""
    left: dict[str, tuple[Left, ...]] = field(default_factory=dict)
    """By service: what it can't do yet, in its order."""
    handovers: list[str] = field(default_factory=list)
    lags: dict[str, timedelta] = field(default_factory=dict)
    """By service: how much longer each batch takes."""
    ready: dict[str, datetime] = field(default_factory=dict)
    """By slow service: when it is through with its batch."""
    round_trip: timedelta = timedelta()
    ended: set[str] = field(default_factory=set)

    def copy(self) -> _State:
        return replace(
            self,
            under_way=dict(self.under_way),
            treated=dict(self.treated),
            held=dict(self.held),
            holds=dict(self.holds),
            overtaken=dict(self.overtaken),
            replays=dict(self.replays),
            in_flight=list(self.in_flight),
            left=dict(self.left),
            handovers=list(self.handovers),
            lags=dict(self.lags),
            ready=dict(self.ready),
            ended=set(self.ended),
        )


class _Image(NamedTuple):
    state: _State
    injected: Image


class Scripted(Script):
    """The faults of a scenario, and its repeated deliveries, in one mode; for one history."""

    def __init__(self, plan: Plan, mode: Mode) -> None:
        names = {order.command.order_id: order.spec.name for order in plan.orders}
        self._now: Callable[[], datetime] = lambda: START
        self._injection = Injection(plan.scenario, mode, names, self._seconds)
        self._deliveries = plan.scenario.deliveries
        self._plan = plan
        self._state = _State()

    def begin(self, now: Callable[[], datetime]) -> None:
        """A history begins; `now` tells its time."""
        self._now = now
        self._injection.begin()

    def _seconds(self) -> float:
        return (self._now() - START).total_seconds()

    # The services.

    def probe(self, service: str, inner: Probe) -> Probe:
        """The probe of a service: the faults', and then the world's own."""
        return _Both(self._injection.probe(service, lambda struck: self._act(service, struck)), inner)

    def skew(self, service: str) -> timedelta:
        """How far a service's clock is ahead."""
        return self._injection.skew(service)

    def answers(self, service: str) -> bool:
        """Whether a service takes requests: the broker need not be there for that."""
        return not self._under_way(Fault.STOP, service)

    def wakes(self, service: str) -> bool:
        """Whether a service goes on with what is due."""
        ready = self._state.ready.get(service)
        return self._free(service) and (ready is None or ready <= self._now())

    def takes(self, service: str) -> bool:
        """Whether a service takes records; if it is slow, it has waited before."""
        if not self._free(service):
            return False
        ready = self._state.ready.get(service)
        return service not in self._state.lags or (ready is not None and ready <= self._now())

    def starts(self, service: str) -> bool:
        """Whether a service that has died can be there again."""
        back = [self._state.under_way[number] for number in self._numbers(Fault.CRASH, service)]
        return not self._away and all(at is not None and at <= self._now() for at in back)

    def publishes(self, service: str) -> bool:
        """Whether what a service has to publish goes out now."""
        return self.answers(service) and not self._away

    def commits(self) -> bool:
        """Whether the broker takes offsets now."""
        return not self._away

    @property
    def round_trip(self) -> timedelta:
        """How long the broker takes to answer."""
        return self._state.round_trip

    def started(self, service: str) -> None:
        """A service that has died is there again."""
        for number in list(self._numbers(Fault.CRASH, service)):
            self._over(number)

    def died(self, service: str) -> None:
        """A service has died: what it was about to do, it won't."""
        state = self._state
        state.left.pop(service, None)
        state.ready.pop(service, None)
        # The one that comes after is as fast as ever.
        state.lags.pop(service, None)
        for number in list(self._numbers(Fault.STOP, service)):
            self._over(number)

    def taken(self, service: str) -> None:
        """A service has taken records."""
        self._state.ready.pop(service, None)

    def keep(self, service: str, left: Left) -> None:
        """Note what a service can't do yet."""
        self._state.left[service] = (*self._state.left.get(service, ()), left)

    def wait(self, service: str) -> None:
        """There is something for a service to take: if it is slow, it begins with that."""
        lag = self._state.lags.get(service)
        if lag is not None and self._free(service):
            self._state.ready.setdefault(service, self._now() + lag)

    def _act(self, service: str, struck: Struck) -> None:
        """Carry out what strikes a service at a boundary."""
        state, spec = self._state, struck.target.spec
        number, over = len(self._injection.struck) - 1, self._now() + timedelta(seconds=spec.duration_s)
        match spec.fault:
            case Fault.CRASH:
                state.under_way[number] = over
                raise CrashError(struck.boundary)
            case Fault.STOP:
                state.under_way[number] = over
                if struck.boundary in {Boundary.BEFORE, Boundary.DECIDED}:
                    raise StandsStillError(f"{service} stands still for {spec.duration_s:g} s")
            case Fault.BROKER_OUTAGE:
                state.under_way[number] = over
            case Fault.REBALANCE:
                state.under_way[number] = over
                state.handovers.append(service)
            case Fault.SLOW:
                state.lags[service] = timedelta(seconds=spec.duration_s)
            case Fault.SLOW_BROKER:
                state.round_trip = timedelta(seconds=spec.duration_s)

    # The wire.

    def sent(self, service: str, records: Sequence[Outgoing]) -> Sequence[Outgoing]:
        """What of the records that a service publishes comes to the broker at once, and how often."""
        at_once: list[Outgoing] = []
        for record in records:
            place = record.topic, record.key
            treated = self._treat(service, record)
            if place in self._state.held:
                waiting = self._state.held[place]
                self._state.held[place] = (*waiting, *(one for one in treated if one not in waiting))
            else:
                at_once += treated
        at_once *= self._deliveries
        if not self._away and not self.round_trip:
            return at_once
        self._state.in_flight += [(self._now() + self.round_trip, record) for record in at_once]
        return ()

    def ends(self, order_id: str) -> None:
        """The end of an order is told."""
        self._state.ended.add(order_id)
        for number, record in self._state.replays.items():
            if (record.key or b"").decode() == order_id and self._state.under_way[number] is None:
                self._state.under_way[number] = self._now() + self._duration(number)

    def _treat(self, service: str, record: Outgoing) -> tuple[Outgoing, ...]:
        """What is put on the wire for a record: it, or several, or none, or something else."""
        headers = dict(record.headers)
        known = record.id, headers.get("ce_attempt", b"1").decode()
        if known in self._state.treated:
            return self._state.treated[known]
        if record.topic.endswith(DEAD_LETTERS):
            return (record,)
        treated: tuple[Outgoing, ...] = (record,)
        kind = headers.get("ce_type", b"").decode()
        self._let_pass(kind, record)
        for struck in self._injection.strike_on_wire(service, record):
            treated = self._state.treated[known] = self._strike(struck, record, kind)
        return treated

    def _strike(self, struck: Struck, record: Outgoing, kind: str) -> tuple[Outgoing, ...]:
        state, spec = self._state, struck.target.spec
        number, place = len(self._injection.struck) - 1, (record.topic, record.key)
        match spec.fault:
            case Fault.POISON:
                struck.ended()
                return (with_fields(record, value=SPOILED),)
            case Fault.LOSE:
                struck.ended()
                return ()
            case Fault.DUPLICATE:
                struck.ended()
                return (record,) * (1 + (spec.times if isinstance(spec.times, int) else 1))
            case Fault.REPLAY:
                state.replays[number] = record
                state.under_way[number] = None
                if (order_id := (record.key or b"").decode()) in state.ended:
                    self.ends(order_id)
            case Fault.DELAY:
                self._hold(number, place, self._now() + timedelta(seconds=spec.duration_s))
            case Fault.REORDER:
                state.overtaken[kind] = number
                self._hold(number, place, self._now() + _PASSED_BY)
        return (record,)

    def _hold(self, number: int, place: _Wired, until: datetime) -> None:
        self._state.held.setdefault(place, ())
        self._state.holds[number] = place
        self._state.under_way[number] = until

    def _let_pass(self, kind: str, record: Outgoing) -> None:
        """Note that a record of another order overtakes what waits for that."""
        number = self._state.overtaken.get(kind)
        if number in self._state.under_way and self._state.holds[number] != (record.topic, record.key):
            self._state.under_way[number] = self._now()

    # Time.

    @property
    def idle(self) -> bool:
        """Whether nothing happens by itself."""
        return not self._plan.scenario.faults

    def due(self) -> datetime | None:
        """When the next thing happens by itself; None if nothing will."""
        state, now = self._state, self._now()
        found = [at for at in state.under_way.values() if at is not None]
        found += state.ready.values()
        found += [at for at, _ in state.in_flight]
        found += [left.until for kept in state.left.values() for left in kept]
        return min((at for at in found if at > now), default=None)

    def arrivals(self) -> list[Outgoing]:
        """What comes to the broker by itself at this moment; it is told of once."""
        self._end_what_is_over()
        if self._away:
            return []
        state, now = self._state, self._now()
        arrived = [record for at, record in state.in_flight if at <= now]
        state.in_flight = [(at, record) for at, record in state.in_flight if at > now]
        for number in [number for number in state.replays if self._is_over(number)]:
            arrived.append(state.replays.pop(number))
            self._over(number)
        for number in [number for number in state.holds if self._is_over(number)]:
            place = state.holds.pop(number)
            arrived += state.held.pop(place, ())
            self._over(number)
        return arrived

    def resumed(self) -> tuple[str, Left] | None:
        """What some service can go on with now; it is told of once."""
        state, now = self._state, self._now()
        for service, (first, *others) in state.left.items():
            if first.until > now or not (first.published or self.publishes(service)) or self._away:
                continue
            if others:
                state.left[service] = tuple(others)
            else:
                del state.left[service]
            return service, first
        return None

    def handover(self) -> str | None:
        """A service whose partitions go to another of its instances now; it is told of once."""
        for service in self._state.handovers:
            if self._free(service) and not self._under_way(Fault.CRASH, service):
                self._state.handovers.remove(service)
                return service
        return None

    def _end_what_is_over(self) -> None:
        for fault in (Fault.STOP, Fault.BROKER_OUTAGE, Fault.REBALANCE):
            for number in [number for number in self._numbers(fault) if self._is_over(number)]:
                self._over(number)
                service = self._injection.struck[number].service
                if fault is Fault.REBALANCE and service is not None:
                    self._state.handovers.append(service)

    def _is_over(self, number: int) -> bool:
        at = self._state.under_way[number]
        return at is not None and at <= self._now()

    def _over(self, number: int) -> None:
        del self._state.under_way[number]
        self._injection.struck[number].ended()

    def _numbers(self, fault: Fault, service: str | None = None) -> Iterator[int]:
        """Those under way of a kind, that have struck a service if one is named."""
        for number in self._state.under_way:
            struck = self._injection.struck[number]
            if struck.target.spec.fault is fault and service in {None, struck.service}:
                yield number

    def _under_way(self, fault: Fault, service: str | None = None) -> bool:
        return any(True for _ in self._numbers(fault, service))

    @property
    def _away(self) -> bool:
        return self._under_way(Fault.BROKER_OUTAGE)

    def _free(self, service: str) -> bool:
        """Whether a service moves, with the broker there, and has done all that it had to do."""
        return service not in self._state.left and self.publishes(service)

    def _duration(self, number: int) -> timedelta:
        return timedelta(seconds=self._injection.struck[number].target.spec.duration_s)

    # What is known of it.

    def strikes(self, first: datetime) -> tuple[Strike, ...]:
        """What has struck, since the first order was placed."""
        return strikes_of(self._injection.struck, (first - START).total_seconds())

    @property
    def not_applicable(self) -> tuple[str, ...]:
        """The faults that have no counterpart in this mode, or have not struck."""
        never = never_struck(self._plan.scenario, self._injection.struck)
        return (*self._injection.not_applicable, *never)

    def image(self) -> object:
        """This moment of it."""
        return _Image(self._state.copy(), self._injection.image())

    def put_back(self, image: object) -> None:
        """Go on from a moment before.

        Raises:
            TypeError: that was no moment of a script.
        """
        if not isinstance(image, _Image):
            message = "this moment is of a history without a script"
            raise TypeError(message)
        self._state = image.state.copy()
        self._injection.put_back(image.injected)

    def known(self, grain: Callable[[datetime], int]) -> object:
        """All that what comes next can depend on, with its times as numbers of grains."""
        state = self._state
        return (
            [(number, at and grain(at)) for number, at in sorted(state.under_way.items())],
            sorted(state.treated),
            [(place, [one.id for one in records]) for place, records in sorted(state.held.items(), key=repr)],
            sorted(state.overtaken.items()),
            sorted(state.replays),
            [(grain(at), record.id) for at, record in state.in_flight],
            [(name, [_known(one, grain) for one in kept]) for name, kept in sorted(state.left.items())],
            state.handovers,
            sorted(state.lags),
            [(name, grain(at)) for name, at in sorted(state.ready.items())],
            state.round_trip > timedelta(),
            self._injection.memory(),
        )


def _known(left: Left, grain: Callable[[datetime], int]) -> object:
    return [one.id for one in left.outgoing], left.published, left.told, grain(left.until)


def script_of(plan: Plan, mode: Mode) -> Script:
    """What happens by itself in a mode: the scenario's faults, but for those that its schedule stands for."""
    scenario = plan.scenario
    if scenario.schedule is not None:
        own = scenario.faults[: scenario.own_faults]
        plan = replace(plan, scenario=scenario.model_copy(update={"faults": own}))
    if plan.scenario.faults or plan.scenario.deliveries > 1:
        return Scripted(plan, mode)
    return UNSCRIPTED


class _Both(Probe):
    """Two probes, the first of which may keep the second from being asked."""

    def __init__(self, first: Probe, second: Probe) -> None:
        self._first = first
        self._second = second

    def deciding(self, command: Message, because: Cause) -> None:
        self._first.deciding(command, because)
        self._second.deciding(command, because)

    def passing(self, boundary: Boundary, commands: Sequence[Message]) -> None:
        self._second.passing(boundary, commands)
        self._first.passing(boundary, commands)
