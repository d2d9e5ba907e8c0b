"""Soaking: thousands of orders through services that are killed, stopped and cut off at any moment.

Each service is a process of its own (`compare.processes`). Orders are placed in a closed loop, so many under
way at a time, in rounds, since a replay's topics have to fit into the embedded broker; both modes get the
same orders. When a round is over, it is judged like any replay.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from pydantic import Field

from common.messages import PlaceOrder
from common.settings import Settings
from compare.checks import Finding, Verdict, verdict_of
from compare.child import HOST
from compare.engine import Engine, Surroundings
from compare.lab import Broker, Lab, Told
from compare.processes import Processes
from compare.recording import Frozen, Recording
from compare.result import mode_result
from compare.soak_plan import IN_FLIGHT, Deed, Round, Violence, as_it_may_end, draw
from compare.wire import Ends

MOST_PER_ROUND: Final = 1_000
"""Orders; far fewer than a replay may have, for much is told again."""

_MEASURED: Final = (
    "completed",
    "failed",
    "compensation_failed",
    "pending",
    "records",
    "compensations",
    "retries",
    "duplicates_removed",
    "asked_again",
    "overdue",
    "timed_out",
    "dead_letters",
    "late",
    "unexpected",
)


class SoakRound(Frozen):
    """What came of a round in one mode."""

    mode: str
    round: int = Field(description="from 1")
    verdict: Verdict
    orders: int
    wall_s: float
    counts: dict[str, int] = Field(description="what happened, and what was done, how often")
    reasons: dict[str, int] = Field(description="why orders failed, and how many")
    findings: tuple[Finding, ...] = Field(description="those that are not valid")


class SoakDocument(Frozen):
    """All that a soak has to say."""

    seed: str = Field(description="determines the orders and what is done, but not how all that interleaves")
    orders: int = Field(description="that were to be placed in each mode")
    seconds: float = Field(description="after which no round was begun any more")
    verdict: Verdict
    rounds: tuple[SoakRound, ...]

    def counts(self, mode: str) -> Counter[str]:
        """What happened in all rounds of a mode."""
        return sum((Counter(one.counts) for one in self.rounds if one.mode == mode), Counter())

    def reasons(self, mode: str) -> Counter[str]:
        """Why orders of a mode failed, in all rounds."""
        return sum((Counter(one.reasons) for one in self.rounds if one.mode == mode), Counter())


class Harried(Processes):
    """Services in processes to which deeds are done while orders are placed, so many at a time."""

    def __init__(self, around: Surroundings, ends: Ends, deeds: Sequence[Deed], host: Sequence[str]) -> None:
        super().__init__(around, ends, host)
        self.done: Counter[str] = Counter()
        self._warm_up = around.plan.warm_up
        self._ends = ends
        self._deeds = deeds
        self._placed = 0
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._waiting: set[asyncio.Task[None]] = set()

    @property
    def restarts(self) -> int:
        """How often a process was started in place of a dead one."""
        return sum(len(child.pids) - 1 for child in self.children.values())

    async def place(self, command: PlaceOrder) -> None:
        """Place an order as soon as there is room for it; return once it is committed."""
        if command == self._warm_up:
            await super().place(command)
            return
        await self._room.acquire()
        await super().place(command)
        waiting = asyncio.create_task(self._make_room(command.order_id))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        self._placed += 1
        for deed in self._deeds:
            if deed.after == self._placed:
                self.begin(self._do(deed))

    async def stop(self) -> None:
        """Stop every service, and whatever is under way."""
        for waiting in self._waiting:
            waiting.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await super().stop()

    async def _make_room(self, order_id: str) -> None:
        await self._ends.until_ended(order_id)
        self._room.release()

    async def _do(self, deed: Deed) -> None:
        await asyncio.sleep(deed.delay_s)
        children = list(self.children.values())
        child = children[deed.whom % len(children)]
        match deed.what:
            case Violence.KILL:
                # One that is dead already can't be killed.
                self.done[deed.what] += child.kill(deed.seconds)
            case Violence.STOP:
                self.done[deed.what] += 1
                child.send(signal.SIGSTOP)
                await asyncio.sleep(deed.seconds)
                child.send(signal.SIGCONT)
            case Violence.OUTAGE:
                async with self.outage():
                    self.done[deed.what] += 1
                    await asyncio.sleep(deed.seconds)


class Soak:
    """Rounds on one broker."""

    def __init__(  # noqa: PLR0913 - two have defaults, and are named where they are given
        self,
        broker: Broker,
        settings: Settings,
        modes: Sequence[str],
        seed: str,
        *,
        told: Told = lambda *_: None,
        host: Sequence[str] = HOST,
    ) -> None:
        self._seed = seed
        self._modes = modes
        self._host = host
        self._deeds: Sequence[Deed] = ()
        self._engines: dict[str, Harried] = {}
        self._lab = Lab(broker, settings, modes, told, self._make_engine)

    async def run(self, orders: int, seconds: float, told: Callable[[SoakRound], None]) -> SoakDocument:
        """Place so many orders in each mode, but begin no round when the seconds are over.

        Raises:
            BrokerError: the broker can't be used.
        """
        end = monotonic() + seconds
        rounds: list[SoakRound] = []
        left, number = orders, 1
        while left and (not rounds or monotonic() < end):
            size = min(left, MOST_PER_ROUND)
            for one in await self._round(number, draw(self._seed, number, size)):
                told(one)
                rounds.append(one)
            left, number = left - size, number + 1
        return SoakDocument(
            seed=self._seed,
            orders=orders,
            seconds=seconds,
            verdict=verdict_of(one.verdict for one in rounds),
            rounds=tuple(rounds),
        )

    async def _round(self, number: int, drawn: Round) -> list[SoakRound]:
        self._deeds = drawn.deeds
        replayed = await self._lab.replay(drawn.scenario)
        return [self._soaked(number, drawn, mode.recording) for mode in replayed.modes]

    def _soaked(self, number: int, drawn: Round, recording: Recording) -> SoakRound:
        result = mode_result(as_it_may_end(drawn.scenario, recording), recording)
        engine = self._engines[recording.mode]
        metrics = result.metrics.model_dump()
        counts = {name: metrics[name] for name in _MEASURED}
        counts |= {str(what): engine.done[what] for what in Violence}
        counts |= {"crash": metrics["struck"].get("crash", 0), "restart": engine.restarts}
        return SoakRound(
            mode=recording.mode,
            round=number,
            verdict=result.verdict,
            orders=len(recording.orders),
            wall_s=recording.wall_s,
            counts=counts,
            reasons=dict(Counter(order.reason for order in recording.orders if order.reason)),
            findings=tuple(one for one in result.findings if one.verdict is not Verdict.VALID),
        )

    def _make_engine(self, around: Surroundings, ends: Ends) -> Engine:
        engine = Harried(around, ends, self._deeds, self._host)
        self._engines[around.mode.name] = engine
        return engine
