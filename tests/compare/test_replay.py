"""Trouble with the broker during a replay is told as such, and is never a verdict on the saga."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from common.embedded import EmbeddedBroker
from common.errors import BrokerError
from common.runner import BrokerLink
from common.services import PAYMENT
from common.settings import Settings
from compare.checks import Verdict
from compare.engine import Surroundings
from compare.observer import Observer
from compare.plan import plan
from compare.replay import _Lab
from compare.replay import replay as replay_in
from compare.result import mode_result
from compare.services import Services
from tests.compare.recordings import CHOREOGRAPHED, PAID, scenario

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


def link_to(broker: EmbeddedBroker) -> BrokerLink:
    """How services reach the embedded broker."""
    return BrokerLink(broker.bootstrap, partitions=2, fetch_max_wait_ms=2)


async def test_an_observer_of_a_broker_that_is_not_there() -> None:
    """It says that it can't read, and leaves nothing open."""
    with pytest.raises(BrokerError, match="The observer can't read from the broker"):
        await Observer("127.0.0.1:1", ["orders.events"], 1).start()


async def test_an_observer_that_the_broker_has_nothing_for(embedded: EmbeddedBroker) -> None:
    """Records that the broker has dropped before they were read end the replay; none are skipped."""
    await embedded.create_topics(["orders.events"], 1)
    observer = Observer(embedded.bootstrap, ["orders.events"], 1)
    await observer.start()
    try:
        ends = await observer.end_offsets()
        assert observer.has_read(ends)
        (where,) = ends
        observer._consumer.seek(where, 1000)
        assert observer._task is not None
        await asyncio.wait({observer._task})
        with pytest.raises(BrokerError, match="The observer can't read from the broker"):
            observer.has_read(ends)
    finally:
        await observer.stop()


async def test_an_observer_that_never_started_can_be_stopped() -> None:
    """Cleaning up asks for nothing that must have been there."""
    await Observer("127.0.0.1:1", ["orders.events"], 1).stop()


async def test_a_broker_that_goes_away_makes_the_verdict_unknown(embedded: EmbeddedBroker) -> None:
    """The replay ends at its limit, says how far it came, and cleans up without the broker."""
    late = scenario({**PAID, "at": 2}, timeout=4)
    await embedded.create_topics(CHOREOGRAPHED.all_topics, 2)
    going: list[asyncio.Task[None]] = []

    def leave(_ended: int, _total: int) -> None:
        if not going:
            going.append(asyncio.create_task(embedded.down()))

    recording = await replay_in(plan(late, Settings().rules), CHOREOGRAPHED, link_to(embedded), leave)
    await asyncio.gather(*going)
    assert recording.unfinished is not None
    assert "after 4 s, 0 of 1 orders had ended" in recording.unfinished
    assert mode_result(late, recording).verdict is Verdict.UNKNOWN


class JammedTill:
    """A storage that can't be opened."""

    tables = PAYMENT.storage.tables

    def open(self) -> NoReturn:
        """Fail."""
        raise RuntimeError("the till is jammed")


async def test_a_service_that_dies_ends_the_replay(embedded: EmbeddedBroker) -> None:
    """Why it died is told at once, and not after the time limit that nothing could come of."""
    services = [
        replace(service, domain=replace(service.domain, storage=JammedTill()))
        if service.name == "payment"
        else service
        for service in CHOREOGRAPHED.services
    ]
    jammed = replace(CHOREOGRAPHED, services=tuple(services))
    await embedded.create_topics(jammed.all_topics, 2)
    endless = scenario(PAID, timeout=600)
    recording = await replay_in(plan(endless, Settings().rules), jammed, link_to(embedded))
    assert recording.unfinished == "choreographed/payment has died: the till is jammed"
    assert mode_result(endless, recording).verdict is Verdict.UNKNOWN


async def test_trouble_that_the_lab_knows_ends_the_replay(tmp_path: Path) -> None:
    """What a LabError says is why the recording is unfinished."""
    prepared = plan(scenario(PAID), Settings().rules)
    link = BrokerLink("127.0.0.1:1", partitions=1)
    observer = Observer(link.bootstrap_servers, [], 1)
    engine = Services(Surroundings(prepared, CHOREOGRAPHED, link, tmp_path, None), observer)

    async def fail() -> None:
        raise BrokerError("the broker is on fire")

    try:
        lab = _Lab(prepared, engine, observer, lambda _ended, _total: None)
        assert await lab.finish(fail) == "the broker is on fire"
    finally:
        await observer.stop()
        await engine.stop()


async def test_an_outage_that_the_scenario_wants_is_none_of_the_replays_trouble(
    embedded: EmbeddedBroker,
) -> None:
    """The services, the wire and the observer wait for the broker, and the verdict is on the saga."""
    outage = {"fault": "broker_outage", "step": "pay", "at": "committed", "seconds": 0.5}
    late = scenario(PAID, faults=[outage, {"fault": "delay", "step": "complete", "seconds": 0.2}])
    await embedded.create_topics(CHOREOGRAPHED.all_topics, 2)
    recording = await replay_in(
        plan(late, Settings().rules), CHOREOGRAPHED, link_to(embedded), outage=embedded
    )
    assert recording.unfinished is None
    assert mode_result(late, recording).verdict is Verdict.VALID
    assert [strike.kind for strike in recording.strikes] == ["broker_outage", "delay"]
    assert all(strike.over_ms is not None for strike in recording.strikes)


class Throttle:
    """The embedded broker, and what it was told about its speed."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.told: list[int] = []
        self._broker = broker
        self.down, self.up = broker.down, broker.up

    async def set_round_trip(self, milliseconds: int) -> None:
        """Delay every answer by this long."""
        self.told.append(milliseconds)
        await self._broker.set_round_trip(milliseconds)


async def test_a_broker_that_a_fault_has_slowed_down_is_as_before_afterwards(
    embedded: EmbeddedBroker,
) -> None:
    """The next replay on it has nothing to do with the fault of this one."""
    slow = scenario(PAID, faults=[{"fault": "slow_broker", "step": "pay", "seconds": 0.02}])
    await embedded.create_topics(CHOREOGRAPHED.all_topics, 2)
    throttle = Throttle(embedded)
    recording = await replay_in(
        plan(slow, Settings().rules), CHOREOGRAPHED, link_to(embedded), outage=throttle
    )
    assert mode_result(slow, recording).verdict is Verdict.VALID
    assert throttle.told == [20, 0]
