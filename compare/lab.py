"""One run of the lab: a broker, and every scenario in every mode on it, one after the other."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

from uuid_utils import uuid7

import choreographed
import orchestrated
from common.broker import delete_topics, ensure_topics
from common.embedded import embedded_broker
from common.errors import BrokerError
from common.runner import BrokerLink
from common.settings import Settings
from common.wiring import Mode
from compare.engine import MakeEngine, Outage
from compare.faults import OF_THE_BROKER, Fault
from compare.plan import Plan, plan
from compare.recording import Recording
from compare.replay import replay
from compare.result import ScenarioResult, scenario_result
from compare.scenario import Scenario
from compare.services import Services

log = logging.getLogger(__name__)

EMBEDDED: Final = "embedded"
MODES: Final = {mode.name: mode for mode in (orchestrated.MODE, choreographed.MODE)}

_REACH_LIMIT_S: Final = 10.0
_EMBEDDED_FETCH_MS: Final = 2
"""The embedded broker holds an empty fetch for the whole time, so this is what an idle hop waits at most."""

Told = Callable[[str, str, int, int], None]
"""Is told the scenario, the mode, and how many of how many orders have ended."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that replays can use, and how topics come and go on it."""

    name: str
    bootstrap_servers: str
    fetch_max_wait_ms: int
    sole_instance: bool
    make_topics: Callable[[Sequence[str], int], Awaitable[None]]
    drop_topics: Callable[[Sequence[str]], Awaitable[None]]
    outage: Outage | None = None
    """The broker, if the lab can take it away for a while."""


@asynccontextmanager
async def open_broker(address: str, settings: Settings) -> AsyncIterator[Broker]:
    """The embedded broker, or the one at `address`.

    Raises:
        BrokerError: the embedded broker can't be started; another one is first reached when topics are made.
    """
    if address != EMBEDDED:
        yield Broker(
            name=address,
            bootstrap_servers=address,
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            sole_instance=False,
            make_topics=partial(ensure_topics, address, timeout=_REACH_LIMIT_S),
            drop_topics=partial(delete_topics, address),
        )
        return
    async with embedded_broker() as broker:
        yield Broker(
            name=EMBEDDED,
            bootstrap_servers=broker.bootstrap,
            fetch_max_wait_ms=_EMBEDDED_FETCH_MS,
            sole_instance=True,
            make_topics=broker.create_topics,
            drop_topics=_keep,
            outage=broker,
        )


async def _keep(_: Sequence[str]) -> None:
    """The embedded broker can't drop topics; it forgets them when it ends, a moment later."""


class Lab:
    """Replays scenarios on one broker; every replay has topics and groups of its own there."""

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        modes: Iterable[str],
        told: Told,
        make_engine: MakeEngine = Services,
    ) -> None:
        self._make_engine = make_engine
        self._broker = broker
        self._settings = settings
        self._modes = [MODES[name] for name in modes]
        self._told = told
        self._run_id = f"saga-lab-{uuid7()}"
        self._replays = count(1)

    def why_not(self, scenario: Scenario) -> str | None:
        """Why a scenario can't be replayed on this broker, and what to do; None if it can."""
        faults = {spec.fault for spec in scenario.faults}
        if Fault.REBALANCE in faults and self._broker.sole_instance:
            return "the embedded broker has room for one instance of a service; name another with --broker"
        if not faults.isdisjoint(OF_THE_BROKER) and self._broker.outage is None:
            return "only the embedded broker can be taken away by the lab; leave out --broker"
        return None

    async def replay(self, scenario: Scenario) -> ScenarioResult:
        """Replay a scenario in each mode, with the same orders under the same ids, and judge it.

        Raises:
            BrokerError: the broker can't be used.
        """
        same = plan(scenario, self._settings.rules)
        return scenario_result(scenario, [await self._replay(same, mode) for mode in self._modes])

    async def _replay(self, same: Plan, mode: Mode) -> Recording:
        name = same.scenario.name
        link = BrokerLink(
            bootstrap_servers=self._broker.bootstrap_servers,
            partitions=self._settings.topic_partitions,
            fetch_max_wait_ms=self._broker.fetch_max_wait_ms,
            max_poll_records=self._settings.max_poll_records,
            sole_instance=self._broker.sole_instance,
            prefix=f"{self._run_id}.{next(self._replays)}.{mode.name}.",
        )
        topics = [link.prefix + topic for topic in mode.all_topics]
        await self._broker.make_topics(topics, link.partitions)
        try:
            told = partial(self._told, name, mode.name)
            return await replay(
                same, mode, link, told, self._broker.outage, self._make_engine, self._settings
            )
        finally:
            await self._drop(topics)

    async def _drop(self, topics: Sequence[str]) -> None:
        """Drop a replay's topics; what it found counts, even if they stay."""
        try:
            await self._broker.drop_topics(topics)
        except BrokerError as error:
            log.warning("These topics are left on the broker: %s (%s)", ", ".join(topics), error)
