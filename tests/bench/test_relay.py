"""The raw relay moves what the services would: as many records, of the same sizes, over the same topics."""

from __future__ import annotations

from pathlib import Path

import pytest

import choreographed
import orchestrated
from common.domain.order import OrderStatus
from common.wiring import Mode
from compare.bench.counting import size_of_headers
from compare.bench.load import draw
from compare.bench.parts import Ground
from compare.bench.relay import RelaySubject, relay_of
from compare.bench.spec import Conditions, Hops
from compare.bench.subjects import hops_of
from compare.bench.templates import Script, Template, hops, script
from tests.bench.soundness import LOAD
from tests.pump import Pump

MODES = (orchestrated.MODE, choreographed.MODE)
PAID, DECLINED = 0, 3


def moved(found: Script, mode: Mode, *, declined: bool) -> list[Template]:
    """What the relay sends for one order, in turn."""
    sent = [found.first[declined]]
    for template in sent:
        key = dict(template.headers)["ce_id"]
        for wiring in mode.services:
            if template.topic in wiring.subscriptions and key in found.then[wiring.name]:
                sent.append(found.then[wiring.name][key])  # noqa: PERF401 - it grows until nobody answers
    return sent


@pytest.mark.parametrize("number", [PAID, DECLINED])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_it_sends_what_the_services_send(mode: Mode, number: int, tmp_path: Path) -> None:
    """Record for record: topic, type and size."""
    found = moved(script(mode, LOAD, ""), mode, declined=LOAD.is_declined(number))
    pump = Pump(mode, tmp_path, LOAD.stock)
    pump.request([LOAD.order(number)])
    pump.run()
    pump.close()
    real = [
        (
            record.topic,
            dict(record.headers)["ce_type"],
            len(record.key or b"") + len(record.value or b"") + size_of_headers([record.headers]),
        )
        for log in pump.broker.logs.values()
        for record in log
    ]
    assert sorted((one.topic, dict(one.headers)["ce_type"], one.size) for one in found) == sorted(real)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_an_order_ends_with_its_last_record(mode: Mode) -> None:
    """Neither before, nor never."""
    found = script(mode, LOAD, "")
    for declined, status in ((False, OrderStatus.COMPLETED), (True, OrderStatus.FAILED)):
        ends = [template.end for template in moved(found, mode, declined=declined)]
        assert ends == [None] * (len(ends) - 1) + [status]


@pytest.mark.parametrize(("share", "kinds"), [(0.0, {False}), (1.0, {True}), (0.2, {False, True})])
def test_it_knows_the_paths_that_are_taken(share: float, kinds: set[bool]) -> None:
    """With a share of none or all, there is one path only."""
    assert script(choreographed.MODE, draw(share, 1), "").first.keys() == kinds


def test_hops_are_those_of_the_longest_causal_path() -> None:
    """As a trace of the same saga has them."""
    assert hops(orchestrated.MODE) == Hops(completed=7, declined=9)
    assert hops(choreographed.MODE) == Hops(completed=4, declined=5)


def test_a_relay_goes_as_far_as_its_mode() -> None:
    """How far a peer goes isn't known."""
    assert hops_of(relay_of("orchestrated")) == hops_of("orchestrated") == hops(orchestrated.MODE)
    assert hops_of("faststream") is None


async def test_its_judge_misses_what_was_not_carried_to_its_end(tmp_path: Path) -> None:
    """Records that get lost, and those that come twice, are told."""
    relay = RelaySubject(choreographed.MODE, _ground(tmp_path))
    first, second = (LOAD.order(number).order_id for number in (PAID, DECLINED))
    relay.open = {first, second}
    relay.tell([(first, OrderStatus.COMPLETED), (first, OrderStatus.COMPLETED)])
    found = await relay.judge({one: LOAD.expected(LOAD.number(one)) for one in (first, second)})
    assert set(found) == {
        "0 orders were carried to FAILED, not 1",
        "1 times, the last record of an order came again",
    }


def _ground(folder: Path) -> Ground:
    conditions = Conditions(
        bootstrap_servers="127.0.0.1:1",
        partitions=1,
        fetch_max_wait_ms=2,
        max_poll_records=500,
        sole_instance=True,
        durability="NORMAL",
        database_url=None,
        processes=False,
        instances=1,
        broker_pid=None,
    )
    return Ground(conditions=conditions, run="test", folder=folder, load=LOAD)
