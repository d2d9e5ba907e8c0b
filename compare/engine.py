"""What a replay asks of the engine that runs its services, in this process or in one process each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from aiokafka import TopicPartition

from common.core import Core
from common.domain.order import OrderStatus
from common.messages import CancelOrder, PlaceOrder, RetryCompensation
from common.runner import BrokerLink
from common.settings import Settings
from common.wiring import Mode
from compare.injection import Struck
from compare.instance import Premises
from compare.plan import Plan
from compare.wire import Ends


class Outage(Protocol):
    """A broker that can be taken away and brought back."""

    async def down(self) -> None:
        """Close every connection, and take no new ones; records are kept."""

    async def up(self) -> None:
        """Be there again."""

    async def set_round_trip(self, milliseconds: int) -> None:
        """Delay every answer by this long."""


@dataclass(frozen=True)
class Surroundings:
    """What a replay's services live in."""

    plan: Plan
    mode: Mode
    link: BrokerLink
    folder: Path
    """Where their databases are."""
    outage: Outage | None
    """None for a broker that the lab can't take away."""
    settings: Settings = field(default_factory=Settings)

    @property
    def premises(self) -> Premises:
        """What the services are built from."""
        return Premises(self.plan.scenario, self.plan.rules, self.link, self.folder, self.settings)


class Engine(Protocol):
    """Runs the services of a mode, and keeps them running though faults strike them."""

    @property
    def struck(self) -> Sequence[Struck]:
        """The faults that have struck."""

    @property
    def not_applicable(self) -> tuple[str, ...]:
        """The faults that have no counterpart in this mode, and what is hit instead."""

    @property
    def idle(self) -> bool:
        """Whether no fault is under way: nothing is dead, stopped, away or held that will be back."""

    def cores(self) -> Mapping[str, Core]:
        """By service: a core over its database."""

    def check(self) -> None:
        """Raise a LabError if a service has died that no fault has killed."""

    async def start(self) -> None:
        """Start every service, and wait until all are ready; BrokerError if that takes too long."""

    async def place(self, command: PlaceOrder) -> None:
        """Place an order; return once it is committed."""

    async def request(self, command: CancelOrder | RetryCompensation, at: OrderStatus) -> bool:
        """Ask for what an order can only take at a status; whether it was at that."""

    async def quiet(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether all that there is on the broker, up to these ends, is consumed, and nothing is to come."""

    async def progress(self, timeout_s: float) -> None:
        """Wait until something has been processed, for at most `timeout_s` seconds."""

    async def stop(self) -> None:
        """Stop every service, and whatever a fault has left under way."""


MakeEngine = Callable[[Surroundings, Ends], Engine]
"""Makes an engine, not started; it is told who knows which orders have ended."""
