"""A simulated history as a scenario file: what happened to its orders, as faults and as a schedule.

The schedule is the history itself, for the simulation, which follows it and looks at no faults then but
those that the scenario had before. The others are for a replay, in which nobody chooses the order of events:
of the mishaps, those that a scenario file has words for. These have none: to die half-way through publishing,
anything while starting, waking or taking a request, and anything that hits the second or a later attempt of a
message, but not the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from common.domain.order import OrderStatus
from common.messages import MESSAGES, Message, Reason, Step
from common.probe import Boundary
from common.wiring import Mode
from compare.aim import Target, aim
from compare.faults import IN_THE_DECIDER, ON_THE_WIRE, OWNERS, Fault, FaultSpec, Participant, Which
from compare.lab import MODES
from compare.plan import PlacedOrder
from compare.recording import OrderEnd
from compare.scenario import (
    LESS_PATIENT,
    Ending,
    ExpectedEnd,
    ExpectedOrder,
    ExpectedPerMode,
    OrderSpec,
    RecoverySpec,
    Scenario,
)
from compare.simulation.actions import DEATHS, Action, Mishap, Verb
from compare.simulation.drive import History

_STALLED_S: Final = Decimal("0.5")
"""How long a service stands still in a replay."""
_LONGEST_NAME: Final = 60
_WIDTH: Final = 110
_SUBJECT: Final = re.compile(r"(?P<kind>[A-Za-z]+)\((?P<order>[0-9]+)\)(?:~(?P<attempt>[0-9]+))?")
_OF_SERVICES: Final = {
    **{mishap: Fault.CRASH for mishap, boundary in DEATHS.items() if boundary is not None},
    Mishap.STALLS: Fault.STOP,
    Mishap.FAILS: Fault.ERROR,
    Mishap.FAILS_FOR_GOOD: Fault.PERMANENT_ERROR,
}
_OF_THE_BROKER: Final = {Verb.REPEATS: Fault.DUPLICATE, Verb.LOSES: Fault.LOSE, Verb.SPOILS: Fault.POISON}
_PARTICIPANTS: Final[tuple[Participant, ...]] = ("order", "inventory", "payment")


def as_scenario(history: History, name: str, description: str, others: Sequence[History] = ()) -> Scenario:
    """The history as a scenario; `others` are what comes of the same in other modes.

    Orders are expected to end as they ended there. One that did not end is expected to be completed.
    """
    orders, names = _orders(history, (history, *others))
    faults = (*history.scenario.faults, *_faults(history, names))
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:_LONGEST_NAME]
    return Scenario(
        name=cleaned or "simulated",
        description=description,
        stock=history.scenario.stock,
        orders=orders,
        expect=ExpectedEnd(),
        deliveries=history.scenario.deliveries,
        timeout=history.scenario.timeout,
        faults=faults,
        recovery=_recovery(history.scenario, patient=not faults),
        schedule=tuple(map(str, history.actions)),
        own_faults=len(history.scenario.faults),
    )


def write_scenario(scenario: Scenario, path: Path) -> None:
    """Write a scenario file.

    Raises:
        OSError: it can't be written.
    """
    document = _plain(scenario.model_dump(exclude_defaults=True))
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    path.write_text(text, encoding="utf-8")


# The orders.


def _orders(
    history: History, histories: Sequence[History]
) -> tuple[tuple[OrderSpec, ...], Mapping[int, str]]:
    """The orders one by one, and the name of each.

    Orders alike stay together if others wait for the end of all of them, or a fault aims at any of them.
    """
    taken = {spec.name for spec in history.scenario.orders}
    awaited = {spec.after for spec in history.scenario.orders} - {None}
    awaited |= {fault.order for fault in history.scenario.faults}
    specs: list[OrderSpec] = []
    names: dict[int, str] = {}
    for order in history.plan.orders:
        spec = order.spec
        if spec.name in awaited:
            names[order.number] = str(spec.name)
            if names[order.number] in {known.name for known in specs}:
                continue
            count = spec.count
        else:
            alone = spec.count == 1 and spec.name is not None
            names[order.number] = str(spec.name) if alone else _new_name(order.number, taken)
            count = 1
        expected = _expected(order, histories)
        update = {"name": names[order.number], "count": count, "expect": expected}
        specs.append(spec.model_copy(update=update))
    return tuple(specs), names


def _new_name(number: int, taken: set[str | None]) -> str:
    name = f"order {number}"
    while name in taken:
        name += "'"
    taken.add(name)
    return name


def _expected(order: PlacedOrder, histories: Sequence[History]) -> ExpectedOrder | ExpectedPerMode:
    ends = {one.mode: _end(one.recording.orders[order.number - 1]) for one in histories}
    first, *others = ends.values()
    if all(end == first for end in others) or not MODES.keys() <= ends.keys():
        return first
    return ExpectedPerMode(orchestrated=ends["orchestrated"], choreographed=ends["choreographed"])


def _end(order: OrderEnd) -> ExpectedOrder:
    if order.status not in set(Ending):
        return ExpectedOrder(status=Ending.COMPLETED)
    reason = Reason(order.reason) if order.reason and order.status != OrderStatus.COMPLETED else None
    return ExpectedOrder(status=Ending(order.status), reason=reason)


def _recovery(scenario: Scenario, *, patient: bool) -> RecoverySpec:
    """What makes the services as patient as they were: a scenario with faults has other defaults."""
    if patient or scenario.faults:
        return scenario.recovery
    was, given = scenario.patience, dict[str, Any]()
    for field in RecoverySpec.model_fields:
        name = field if hasattr(was, field) else f"{field}_s"
        if (value := getattr(was, name)) != getattr(LESS_PATIENT, name):
            given[field] = value if isinstance(value, int) else Decimal(str(value))
    return RecoverySpec(**{**scenario.recovery.model_dump(exclude_none=True), **given})


# The faults.


@dataclass(frozen=True)
class _Hit:
    """A mishap of a history that a scenario file may have words for."""

    fault: Fault
    service: str | None
    """The service that it hits; none for a record on the wire."""
    kind: str
    order: int
    attempt: int
    boundary: Boundary | None = None


def _faults(history: History, names: Mapping[int, str]) -> Iterator[FaultSpec]:
    """What went wrong, as faults, each with the number of times that it strikes in a row."""
    mode, found = MODES[history.mode], dict[_Hit, int]()
    for hit in _hits(history.actions):
        # What strikes several times strikes at once, or at one attempt after the other.
        first = _Hit(hit.fault, hit.service, hit.kind, hit.order, 1, hit.boundary)
        before = found.get(first, 0)
        if hit.attempt == 1 or (hit.fault is Fault.LOSE and hit.attempt == before + 1):
            found[first] = before + 1
    for hit, times in found.items():
        spec = next(_specs(hit, mode, names[hit.order]), None)
        if spec is not None:
            target = aim(0, spec, mode)
            often = times if spec.fault in {Fault.CRASH, Fault.ERROR, Fault.LOSE, Fault.DUPLICATE} else 1
            yield spec.model_copy(update={"times": often, "nth": _nth(hit, target, history)})


def _hits(actions: Sequence[Action]) -> Iterator[_Hit]:
    """The mishaps among these actions; what fails does so at all that it takes, what dies does so once."""
    for at, action in enumerate(actions):
        if action.verb in _OF_THE_BROKER:
            fault = _OF_THE_BROKER[action.verb]
        elif action.verb is Verb.TAKES and action.mishap in _OF_SERVICES:
            fault = _OF_SERVICES[action.mishap]
        else:
            continue
        for subject in action.subjects if fault in IN_THE_DECIDER else action.subjects[:1]:
            if (found := _SUBJECT.fullmatch(subject)) is None:
                continue  # a dead letter
            order = int(found["order"])
            over = fault is Fault.DUPLICATE and _is_over(order, subject, actions[at + 1 :])
            yield _Hit(
                Fault.REPLAY if over else fault,
                None if fault in ON_THE_WIRE else action.actor,
                found["kind"],
                order,
                int(found["attempt"] or 1),
                Boundary.COMMITTED if fault is Fault.STOP else _boundary(action.mishap),
            )


def _boundary(mishap: Mishap | None) -> Boundary | None:
    return DEATHS.get(mishap) if mishap is not None else None


def _is_over(order: int, repeated: str, later: Sequence[Action]) -> bool:
    """Whether nothing comes to an order any more but a record that it has had."""
    return not any(order in action.orders and repeated not in action.subjects for action in later)


def _specs(hit: _Hit, mode: Mode, order: str) -> Iterator[FaultSpec]:
    """Specifications that hit in this mode what is to be hit, the plainest first."""
    message = MESSAGES.get(hit.kind)
    if message is None:
        return
    for where in _on_the_wire(message, mode) if hit.service is None else _at_a_service(hit, message, mode):
        given: dict[str, Any] = {"fault": hit.fault, "order": order, **where}
        if hit.fault in {Fault.CRASH, Fault.STOP}:
            given["at"] = hit.boundary
        if hit.fault is Fault.STOP:
            given["seconds"] = _STALLED_S
        try:
            spec = FaultSpec.model_validate(given)
            target = aim(0, spec, mode)
        except (ValidationError, KeyError):
            continue
        if hit.service is None:
            fits = hit.kind in target.records
        else:
            fits = target.service == hit.service and _command(hit, mode) in target.commands
        if fits:
            yield spec


def _at_a_service(hit: _Hit, message: type[Message], mode: Mode) -> Iterator[dict[str, Any]]:
    """By the step that the service carries out, or by that of which it learns."""
    if (command := _command(hit, mode)) is not None:
        yield {"step": command.STEP}
    yield {"step": message.STEP}
    yield {"step": message.STEP, "service": hit.service, **_instead(hit.service, message.STEP)}


def _on_the_wire(message: type[Message], mode: Mode) -> Iterator[dict[str, Any]]:
    """As what a service tells of a step, as what asks it for one, or as what another learns of one."""
    yield {"step": message.STEP, "record": Which.ANSWER}
    yield {"step": message.STEP}
    for wiring in mode.services:
        if (reaction := wiring.reaction_to.get(message.__name__)) is not None:
            yield {"step": reaction.command.STEP}
            yield {"step": message.STEP, "service": wiring.name, **_instead(wiring.name, message.STEP)}


def _instead(service: str | None, step: Step) -> dict[str, Participant]:
    """Whom to hit in a mode without an orchestrator: who learns of the same step, other than its owner."""
    if service != "orchestrator":
        return {}
    for name in _PARTICIPANTS:
        if name != OWNERS[step] and step is not Step.PLACE:
            spec = FaultSpec(fault=Fault.CRASH, step=step, service=name)
            if aim(0, spec, MODES["choreographed"]).commands:
                return {"instead": name}
    return {"instead": OWNERS[step]}


def _command(hit: _Hit, mode: Mode) -> type[Message] | None:
    reaction = mode.service(str(hit.service)).reaction_to.get(hit.kind)
    return reaction.command if reaction is not None else None


def _nth(hit: _Hit, target: Target, history: History) -> int:
    """Which of its order's records of the step it is, by what they are; repetitions don't count."""
    seen: dict[str, None] = {}
    for action in history.actions:
        if action.verb is not Verb.TAKES or (hit.service is not None and action.actor != hit.service):
            continue
        for subject in action.subjects:
            found = _SUBJECT.fullmatch(subject)
            if found is None or int(found["order"]) != hit.order:
                continue
            if found["kind"] == hit.kind:
                return len(seen) + 1
            reaction = MODES[history.mode].service(action.actor).reaction_to.get(found["kind"])
            counts = (
                found["kind"] in target.records
                if hit.service is None
                else reaction is not None and reaction.command in target.commands
            )
            if counts:
                seen.setdefault(found["kind"])
    # It was never taken, for it was lost: then nothing tells what came before it.
    return 1


# The file.


class _Dumper(yaml.SafeDumper):
    """Plain YAML, with exact numbers and without anchors."""

    def ignore_aliases(self, _: object) -> bool:
        """Write what is there twice twice."""
        return True


def _exact(dumper: yaml.SafeDumper, number: Decimal) -> yaml.ScalarNode:
    text = format(number, "f")
    return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)


_Dumper.add_representer(Decimal, _exact)


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever is in a model
    """The same with plain strings, lists and mappings; a bare status is short for what has no more in it."""
    match value:
        case Enum():
            return value.value
        case Mapping():
            plain = {key: _plain(one) for key, one in value.items()}
            return plain["status"] if plain.keys() == {"status"} else plain
        case list() | tuple():
            return [_plain(one) for one in value]
        case _:
            return value
