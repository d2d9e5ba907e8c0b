"""Any faults together, in any order: once they are over, every order ends, and the books are right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from common.envelope import Outgoing
from common.errors import PermanentError, TransientError
from common.messages import CancelOrder, Message, OrderCompleted, OrderFailed, RetryCompensation
from common.probe import Probe
from common.recovery import Recovery
from common.wiring import Mode
from tests.pump import Pump, order_id, place_order
from tests.unit.records import MODES, check_books, end_of, on_topic

STOCK: Final = {"laptop": 7}
ORDERS: Final = range(1, 5)
RECOVERY: Final = Recovery(retry_tries=3, undo_tries=3, deadline_tries=2)
HOUR: Final = 3600.0


@dataclass
class Trouble(Probe):
    """Faults on the wire and in the deciders, drawn anew each time, until they are over."""

    random: Random
    often: float
    over: bool = False
    struck: list[str] = field(default_factory=list)

    def wire(self, record: Outgoing) -> Iterable[Outgoing]:
        """Loses, spoils or doubles some records."""
        if self._spares() or record.topic.endswith(".dlq"):
            return (record,)
        fates: dict[str, tuple[Outgoing, ...]] = {
            "lost": (),
            "spoiled": (replace(record, value=b"\xff"),),
            "doubled": (record, record),
        }
        fate = self.random.choice(list(fates))
        self.struck.append(fate)
        return fates[fate]

    def deciding(self, command: Message, because: object) -> None:
        """Has some commands fail, for now or for good."""
        if not self._spares():
            self.struck.append(type(command).__name__)
            raise self.random.choice([TransientError, TransientError, PermanentError])(f"{because}")

    def _spares(self) -> bool:
        return self.over or self.random.random() > self.often


def run_through(mode: Mode, folder: Path, seed: int, often: float) -> Pump:
    """Orders and cancels among faults, services that stay away, and crashes; then all is well again."""
    random = Random(seed)
    trouble = Trouble(random, often)
    pump = Pump(
        mode,
        folder / "0",
        STOCK,
        shuffle=random,
        recovery=RECOVERY,
        probe=lambda _: trouble,
        wire=trouble.wire,
    )
    prices = random.choices([100_00, 400_00], [3, 1], k=len(ORDERS))
    pump.request(place_order(number, price=price) for number, price in zip(ORDERS, prices, strict=True))
    for life in range(1, 4):
        pump.stopped = set(random.sample(list(pump.cores), random.choice([0, 0, 1])))
        pump.request(CancelOrder(order_id=order_id(n)) for n in ORDERS if random.random() < often)
        pump.run(random.choice([1, 30, 100]))
        after = pump.after_crash(folder / str(life))
        pump.close()
        pump = after
    trouble.over = True
    for _ in range(3):
        pump.run(2 * HOUR)
        stuck = [n for n in ORDERS if end_of(pump.state(), n)[0] == "COMPENSATION_FAILED"]
        pump.request(RetryCompensation(order_id=order_id(n)) for n in stuck)
    return pump


@MODES
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), often=st.sampled_from([0.02, 0.1, 0.3]))
def test_whatever_befalls_them_all_orders_end_well(mode: Mode, seed: int, often: float) -> None:
    """Each order is told to have ended once and in one way, and goods and money are where they belong."""
    with TemporaryDirectory() as folder:
        pump = run_through(mode, Path(folder), seed, often)
        check_books(pump, STOCK, ORDERS)
        assert {end_of(pump.state(), number)[0] for number in ORDERS} <= {"COMPLETED", "FAILED"}
        for number in ORDERS:
            told = {
                dict(record.headers)["ce_id"]
                for record in on_topic(pump, OrderCompleted, OrderFailed)
                if record.key == order_id(number).encode()
            }
            assert len(told) <= 1
        for core in pump.cores.values():
            assert core.backlog() == 0
            assert not core.expects(range(3))
        pump.close()


def test_the_faults_do_strike() -> None:
    """The trouble that is made is trouble: each kind of it comes about, and none once it is over."""
    trouble = Trouble(Random(1), 0.3)
    record = Outgoing("id", "topic", 0, b"key", b"value", ())
    sent = [list(trouble.wire(record)) for _ in range(100)]
    assert {len(records) for records in sent} == {0, 1, 2}
    assert set(trouble.struck) == {"lost", "spoiled", "doubled"}
    always = Trouble(Random(1), 1.0)
    for _ in range(20):
        with pytest.raises((TransientError, PermanentError), match="because"):
            always.deciding(place_order(), "because")
    always.over = True
    always.deciding(place_order(), "because")
    assert list(always.wire(record)) == [record]
