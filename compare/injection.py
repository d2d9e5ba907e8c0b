"""Injecting a scenario's faults into the services of one replay.

What strikes at a boundary or in the decider is a probe's doing (`common.probe`), what strikes between a
producer and the broker is the wire's. Both see records of the scenario's orders only, and count those of a
fault's step until its nth has come. Every strike is noted, so that the report can show where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import NamedTuple

from common.envelope import Cause, Outgoing
from common.errors import BrokerError, PermanentError, TransientError
from common.messages import Message
from common.probe import Boundary, Probe
from common.wiring import Mode
from compare.aim import Target, aim, not_applicable
from compare.faults import AT_A_BOUNDARY, IN_THE_DECIDER, ON_THE_WIRE, Fault
from compare.recording import Strike
from compare.scenario import Scenario

Clock = Callable[[], float]
"""Tells seconds since some moment that never changes."""


class CrashError(BaseException):
    """A service dies here. It is no Exception, so nothing of the service handles it."""

    def __init__(self, boundary: Boundary | None = None) -> None:
        super().__init__()
        self.boundary = boundary
        """The boundary at which it does, if somebody wants to know."""


class StandsStillError(BrokerError):
    """A service stands still here: what it has begun is rolled back, and done once it moves again."""


@dataclass
class Struck:
    """A fault that struck, in the clock of this process, or of a simulated world."""

    target: Target
    service: str | None
    boundary: Boundary | None
    order_id: str | None
    at: float
    clock: Clock = field(default=monotonic, repr=False, compare=False)
    over: float | None = None
    record_id: str | None = None
    """Of what it struck on the wire."""
    record_type: str | None = None

    def ended(self) -> None:
        """What was hit is as before."""
        self.over = self.clock()


class Memory(NamedTuple):
    """What has come so far of the faults, each known by its index."""

    seen: list[tuple[int, str, str]]
    """By fault: the order and the type of a record that was counted, oldest first."""
    struck: list[int]
    """The faults that have struck, once for each time."""


class Image(NamedTuple):
    """A moment of the faults, for a simulated history that comes back to it."""

    seen: Mapping[int, Mapping[tuple[str, str], None]]
    struck: Sequence[Struck]


Act = Callable[[Struck], None]
"""Carries out what a probe can't do by itself: stopping, slowing, taking the broker away, rebalancing."""


class Injection:
    """The faults of one replay in one mode.

    `orders` maps the id of each order of the scenario to the name of its specification, if it has one;
    `clock` tells when something strikes, and when that is over.
    """

    def __init__(
        self, scenario: Scenario, mode: Mode, orders: Mapping[str, str | None], clock: Clock = monotonic
    ) -> None:
        self.struck: list[Struck] = []
        self.not_applicable = [
            problem for spec in scenario.faults if (problem := not_applicable(spec, mode)) is not None
        ]
        self._orders = orders
        self._clock = clock
        self._targets = [aim(index, spec, mode) for index, spec in enumerate(scenario.faults)]
        self._seen: dict[int, dict[tuple[str, str], None]] = {target.index: {} for target in self._targets}

    def probe(self, service: str, act: Act) -> Probe:
        """The probe of a service; it is asked for once more when the service is rebuilt."""
        hit = [target for target in self._targets if target.service == service]
        return _LabProbe(self, hit, act)

    def begin(self) -> None:
        """Note what strikes from the beginning on."""
        for target in self._targets:
            if target.spec.fault is Fault.CLOCK_SKEW:
                self.strike(target, service=target.service, boundary=None, order_id=None)

    def clock(self, service: str) -> Callable[[], datetime]:
        """The clock of a service."""
        skew = self.skew(service)
        return lambda: datetime.now(UTC) + skew

    def skew(self, service: str) -> timedelta:
        """How far a service's clock is ahead."""
        return timedelta(
            seconds=sum(
                target.spec.duration_s
                for target in self._targets
                if target.spec.fault is Fault.CLOCK_SKEW and target.service == service
            )
        )

    def target(self, index: int) -> Target:
        """What the scenario's fault of that index hits."""
        return self._targets[index]

    def on_the_wire(self) -> list[Target]:
        """The faults that strike there."""
        return [target for target in self._targets if target.spec.fault in ON_THE_WIRE]

    def strike(
        self, target: Target, *, service: str | None, boundary: Boundary | None, order_id: str | None
    ) -> Struck:
        """Note that a fault strikes now."""
        struck = Struck(target, service, boundary, order_id, self._clock(), self._clock)
        self.struck.append(struck)
        return struck

    def strike_on_wire(self, service: str, record: Outgoing) -> Iterator[Struck]:
        """Strike a record between its producer and the broker, as often as faults want it."""
        headers = dict(record.headers)
        kind, order_id = headers.get("ce_type", b"").decode(), (record.key or b"").decode()
        for target in self.on_the_wire():
            if kind in target.records and self.is_nth(target, order_id, kind) and self.strikes_again(target):
                struck = self.strike(target, service=service, boundary=None, order_id=order_id)
                struck.record_id, struck.record_type = headers["ce_id"].decode(), kind
                yield struck

    def strikes_again(self, target: Target) -> bool:
        """Whether the fault strikes once more."""
        return target.spec.strikes_again(sum(one.target.index == target.index for one in self.struck))

    def is_nth(self, target: Target, order_id: str, kind: str) -> bool:
        """Whether a record of the step is the one that the fault wants; each is counted when first seen."""
        if order_id not in self._orders or target.spec.order not in {None, self._orders[order_id]}:
            return False
        seen = self._seen[target.index]
        if len(seen) < target.spec.nth:
            self.see(target.index, order_id, kind)
        return len(seen) == target.spec.nth and next(reversed(seen)) == (order_id, kind)

    def see(self, index: int, order_id: str, kind: str) -> None:
        """Count a record of a fault's step, unless it is counted already."""
        self._seen[index].setdefault((order_id, kind))

    def memory(self) -> Memory:
        """What a probe in another process needs to know, so that no fault strikes anew there."""
        seen = [(index, *record) for index, records in self._seen.items() for record in records]
        return Memory(seen, [struck.target.index for struck in self.struck])

    def image(self) -> Image:
        """All that has come so far, to come back to."""
        return Image(
            {index: dict(records) for index, records in self._seen.items()},
            [replace(struck) for struck in self.struck],
        )

    def put_back(self, image: Image) -> None:
        """Go on from there; what has struck is copied, for it may be over some time."""
        self._seen = {index: dict(records) for index, records in image.seen.items()}
        self.struck[:] = [replace(struck) for struck in image.struck]


class _LabProbe(Probe):
    """Strikes one service."""

    def __init__(self, injection: Injection, targets: Sequence[Target], act: Act) -> None:
        self._injection = injection
        self._at_boundary = [target for target in targets if target.spec.fault in AT_A_BOUNDARY]
        self._in_decider = [target for target in targets if target.spec.fault in IN_THE_DECIDER]
        self._act = act

    def deciding(self, command: Message, because: Cause) -> None:
        """Fail, as often as a fault wants it."""
        for target in self._in_decider:
            if not self._hits(target, command):
                continue
            permanent = target.spec.fault is Fault.PERMANENT_ERROR
            if permanent or self._injection.strikes_again(target):
                struck = self._injection.strike(
                    target, service=target.service, boundary=Boundary.DECIDED, order_id=command.order_id
                )
                struck.ended()
                error = PermanentError if permanent else TransientError
                raise error(f"{target.spec.step} of order {because.correlation_id} fails: injected")

    def passing(self, boundary: Boundary, commands: Sequence[Message]) -> None:
        """Strike at the boundary of the batch that has the record in it."""
        for target in self._at_boundary:
            hit = [command for command in commands if self._hits(target, command)]
            if hit and boundary is target.spec.at and self._injection.strikes_again(target):
                struck = self._injection.strike(
                    target, service=target.service, boundary=boundary, order_id=hit[0].order_id
                )
                self._act(struck)

    def _hits(self, target: Target, command: Message) -> bool:
        kind = type(command)
        return kind in target.commands and self._injection.is_nth(target, command.order_id, kind.__name__)


def strikes_of(found: Sequence[Struck], start: float) -> tuple[Strike, ...]:
    """What has struck, for the recording; `start` is when the first order was placed, in the same clock."""
    return tuple(
        Strike(
            fault=struck.target.index,
            kind=struck.target.spec.fault,
            service=struck.service,
            boundary=struck.boundary,
            order_id=struck.order_id,
            record_id=struck.record_id,
            record_type=struck.record_type,
            # What has been so from the beginning began before the first order.
            at_ms=max(0.0, ms(struck.at - start)),
            over_ms=None if struck.over is None else ms(struck.over - start),
        )
        for struck in found
    )


def never_struck(scenario: Scenario, found: Sequence[Struck]) -> Iterator[str]:
    """What the scenario wants to go wrong and didn't: it has tested less than it seems."""
    struck = {one.target.index for one in found}
    for index, spec in enumerate(scenario.faults):
        if index not in struck:
            yield f"fault {index + 1} ({spec.fault} at {spec.step}) never struck: no such record came"


def ms(seconds: float) -> float:
    """Seconds as milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)
