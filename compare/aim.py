"""From a fault as the scenario names it to what it hits in one mode, found in that mode's wiring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.messages import Event, Message
from common.wiring import Mode, Reaction, Wiring
from compare.faults import OWNERS, FaultSpec, Which


@dataclass(frozen=True)
class Target:
    """What a fault hits in one mode."""

    index: int
    """Which of the scenario's faults it is."""
    spec: FaultSpec
    service: str
    commands: frozenset[type[Message]]
    """What the service's decider is handed at the step."""
    records: frozenset[str]
    """The types of the step's records, as the fault wants them: of the request, or of the answer."""


def aim(index: int, spec: FaultSpec, mode: Mode) -> Target:
    """What the fault hits in this mode."""
    owner = OWNERS[spec.step] if spec.step is not None else None
    name = (spec.service if has_service(mode, spec.service) else spec.instead) or owner
    wiring = mode.service(str(name))
    reactions = list(_reactions(wiring, spec, own=wiring.name == owner))
    if spec.record is Which.REQUEST:
        records = frozenset(reaction.message.__name__ for reaction in reactions)
    else:
        records = frozenset(
            told.__name__
            for told in wiring.tells
            if spec.step == told.STEP and (issubclass(told, Event) or spec.step == told.STEP == "place")
        )
    return Target(index, spec, wiring.name, frozenset(one.command for one in reactions), records)


def not_applicable(spec: FaultSpec, mode: Mode) -> str | None:
    """Why the fault has no counterpart in this mode, and what is hit instead; None if it has one."""
    if has_service(mode, spec.service):
        return None
    return f"there is no {spec.service} here: the {spec.fault} hits the {spec.instead} service instead"


def has_service(mode: Mode, name: str | None) -> bool:
    """Whether the mode has it, if one is named."""
    return name is None or name in {service.name for service in mode.services}


def _reactions(wiring: Wiring, spec: FaultSpec, *, own: bool) -> Iterator[Reaction]:
    """Those by which the service carries the step out, if it is its own; else by which it learns of it."""
    for reaction in wiring.reactions:
        about = reaction.command if own else reaction.message
        if spec.step == about.STEP:
            yield reaction
