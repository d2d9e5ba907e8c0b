"""Recordings of what goes wrong, without a broker: the real services, with faults in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec.structs import replace

from common.domain.decision import Rules
from common.envelope import Cause, Outgoing
from common.errors import PermanentError
from common.messages import Command, Message
from common.probe import Probe
from common.recovery import Recovery
from common.wiring import Mode
from compare.evidence import Happened, gather_evidence
from compare.plan import plan
from compare.recording import Recording, Strike
from compare.scenario import Scenario
from tests.pump import NOW, Broker, Pump

PATIENCE: Final = Recovery(step_timeout_s=1.0, order_timeout_s=5.0, undo_tries=2)
SECONDS: Final = 120.0


def strike(record: Outgoing, kind: str) -> Strike:
    """The fault that struck a record on the wire."""
    headers = dict(record.headers)
    at = datetime.fromisoformat(headers["ce_time"].decode())
    at_ms = (at - NOW).total_seconds() * 1000
    return Strike(
        fault=0,
        kind=kind,
        service=headers["ce_source"].decode().rpartition("/")[2],
        boundary=None,
        order_id=headers["ce_subject"].decode(),
        record_id=headers["ce_id"].decode(),
        record_type=headers["ce_type"].decode(),
        at_ms=at_ms,
        over_ms=at_ms,
    )


class Wire:
    """Strikes the first `times` records of a type."""

    def __init__(self, kind: str, type_: str, times: int = 1) -> None:
        self.strikes: list[Strike] = []
        self._kind = kind
        self._type = type_
        self._times = times

    def __call__(self, record: Outgoing) -> Iterable[Outgoing]:
        given_up = record.topic.endswith(".dlq")
        if given_up or dict(record.headers)["ce_type"].decode() != self._type or not self._times:
            return (record,)
        self._times -= 1
        self.strikes.append(strike(record, self._kind))
        return () if self._kind == "lose" else (replace(record, value=b"\xff"),)


class Refusing(Probe):
    """Fails a command for good, the first `times` times, and notes the strikes."""

    def __init__(self, command: type[Command], service: str, times: int, broker: Broker) -> None:
        self.strikes: list[Strike] = []
        self._command = command
        self._service = service
        self._times = times
        self._broker = broker

    def deciding(self, command: Message, because: Cause) -> None:
        if isinstance(command, self._command) and self._times:
            self._times -= 1
            at_ms = (self._broker.now - NOW).total_seconds() * 1000
            self.strikes.append(
                Strike(
                    fault=0,
                    kind="permanent_error",
                    service=self._service,
                    boundary="decided",
                    order_id=because.correlation_id,
                    at_ms=at_ms,
                    over_ms=at_ms,
                )
            )
            raise PermanentError("no")


def refusing(command: type[Command], service: str, times: int = 1) -> Callable[[Broker], Refusing]:
    """Makes the probe of a pump."""
    return lambda broker: Refusing(command, service, times, broker)


def recorded_under(
    scenario: Scenario,
    mode: Mode,
    *,
    wire: Wire | None = None,
    probe: Callable[[Broker], Refusing] | None = None,
    later: Sequence[type[Command]] = (),
) -> Recording:
    """What the services do with a scenario under a fault; `later` is what is asked for when nothing moves."""
    plan_ = plan(scenario, Rules())
    made: list[Refusing] = []

    def make(broker: Broker) -> Probe:
        made.append(probe(broker) if probe else Refusing(Command, "", 0, broker))
        return made[-1]

    with TemporaryDirectory() as folder:
        struck = wire or Wire("none", "none")
        pump = Pump(
            mode,
            Path(folder),
            scenario.stock,
            recovery=PATIENCE,
            probe=make,
            wire=struck,
        )
        try:
            pump.request(order.command for order in plan_.orders)
            pump.run(SECONDS)
            for command in later:
                pump.request(command(order_id=order.command.order_id) for order in plan_.orders)
                pump.run(SECONDS)
            records = [record for log in pump.broker.logs.values() for record in log]
            strikes = (*struck.strikes, *made[0].strikes)
            return gather_evidence(plan_, pump.cores, records, "", Happened(None, 1.0, strikes=strikes))
        finally:
            pump.close()
