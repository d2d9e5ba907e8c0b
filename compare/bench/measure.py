"""The process of one measurement: `python -m compare.bench.measure`, started by `compare.bench.campaign`.

The first line on stdin is the `Spec`. Its own lines, on stdout, say `progress`, what came of a `phase`, or
that it has `died`; the end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio import StreamReader
from collections.abc import Callable, Coroutine
from math import ceil
from time import monotonic, perf_counter
from typing import Any, Final

from aiokafka.errors import KafkaError
from sqlalchemy.exc import SQLAlchemyError

from common.errors import LabError
from common.garbage import collect_seldom
from compare.bench.drive import Drive, Tally
from compare.bench.load import Placed
from compare.bench.quantiles import quantiles
from compare.bench.spec import (
    CLOSED,
    INVALID,
    LEFT_OUT,
    UNKNOWN,
    VALID,
    Hops,
    Measured,
    Phase,
    Sample,
    Spec,
    Verdict,
)
from compare.bench.subject import Costs, Subject
from compare.bench.subjects import make_subject
from compare.bench.usage import Usage
from compare.host import Mouth
from compare.lines import LONGEST_LINE

_WARM_UP_CONCURRENCY: Final = 50
_WARM_UP_S: Final = 20.0
_TOLD_EVERY_S: Final = 0.2
_STOP_LIMIT_S: Final = 20.0
_NO_COSTS: Final = Costs(None, None, None)
_DIED: Final = 1


class Measurement:
    """One subject, from its start to its end; `say` is told what comes of each phase."""

    def __init__(
        self, spec: Spec, say: Callable[[Measured], None], progress: Callable[[str, int, int], None]
    ) -> None:
        self._spec = spec
        self._say = say
        self._progress = progress
        self._subject: Subject = make_subject(spec)
        self._drive = Drive(self._subject, spec.load)
        self._usage = Usage(spec.conditions.broker_pid)
        self._sustained: float | None = None

    async def run(self) -> None:
        """Start the subject, warm it up, go through the phases until one has no figure, and stop it.

        Raises:
            LabError: it can't start, or can't be judged.
        """
        try:
            await self._subject.start(self._drive.ended)
            await self._warm_up()
            for phase in self._spec.phases:
                measured = await self._phase(phase)
                self._say(measured)
                if measured.verdict in {INVALID, UNKNOWN}:
                    return
        finally:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await self._subject.stop()

    async def _warm_up(self) -> None:
        spec = self._spec
        if spec.warm_up:
            await self._drive.closed(_WARM_UP_CONCURRENCY, spec.warm_up, _WARM_UP_S, spec.settle_s)
        await self._rest()

    async def _phase(self, phase: Phase) -> Measured:
        if phase.below is not None and phase.rate is not None and self._sustained is not None:
            most = phase.below * self._sustained
            if phase.rate > most:
                why = f"above {most:.0f}/s, which is {phase.below:.0%} of what it sustained"
                return Measured.nothing(phase, LEFT_OUT, why)
        watched = _Watched(self._usage, self._spec.sample_every)

        def told(ended: int) -> None:
            watched.look(ended)
            self._progress(phase.name, ended, phase.orders)

        self._drive.told = told
        self._subject.mark()
        faults: tuple[str, ...] = ()
        verdict: Verdict = UNKNOWN
        costs = _NO_COSTS
        with watched:
            try:
                await self._place(phase)
                costs = await self._rest()
            except LabError as error:
                faults = (str(error),)
        if not faults:
            faults = await self._subject.judge(Placed(self._spec.load, self._drive.placed))
            verdict = INVALID if faults else VALID
        tally = self._drive.tally
        hops = _hops(self._spec.hops, tally)
        measured = _measured(phase, verdict, faults, tally, costs, watched, hops)
        if phase.name == CLOSED:
            self._sustained = measured.per_second
        return measured

    async def _place(self, phase: Phase) -> None:
        if phase.rate is not None:
            orders = min(phase.orders, ceil(phase.rate * phase.seconds))
            await self._drive.open(phase.rate, orders, self._spec.drain_s)
        else:
            # As long as it takes: so many per second are meant, and not so many that were lucky.
            await self._drive.closed(phase.concurrency or 1, phase.orders, phase.seconds, self._spec.settle_s)

    async def _rest(self) -> Costs:
        try:
            async with asyncio.timeout(self._spec.settle_s):
                await self._subject.settle()
        except TimeoutError:
            unended = self._drive.placed - self._drive.all_ended
            raise LabError(
                f"it did not come to rest within {self._spec.settle_s:g} s; {unended} orders had not ended"
            ) from None
        return await self._subject.costs()


class _Watched:
    """What is used of the machine within a block: processor time, memory, and samples of both on the way."""

    def __init__(self, usage: Usage, sample_every: int) -> None:
        self.cpu_s = 0.0
        self.broker_cpu_s: float | None = None
        self.samples: list[Sample] = []
        self.memory = 0
        self._usage = usage
        self._sample_every = sample_every
        self._next = sample_every

    def __enter__(self) -> None:
        self._usage.find()
        self._usage.peak = 0
        self._usage.memory()
        self._cpu_before, self._broker_before = self._usage.cpu_s(), self._usage.broker_cpu_s()
        self._began = perf_counter()
        self._watching = asyncio.create_task(self._usage.watch())

    def __exit__(self, *_: object) -> None:
        self._watching.cancel()
        self._usage.find()
        self.cpu_s = self._usage.cpu_s() - self._cpu_before
        broker, before = self._usage.broker_cpu_s(), self._broker_before
        self.broker_cpu_s = None if broker is None or before is None else broker - before
        self.memory = self._usage.peak

    def look(self, ended: int) -> None:
        """Take a sample if so many orders have ended since the last."""
        if not self._sample_every or ended < self._next:
            return
        self._next = ended + self._sample_every
        self.samples.append(
            Sample(
                ended=ended,
                seconds=perf_counter() - self._began,
                cpu_s=self._usage.cpu_s() - self._cpu_before,
                memory=self._usage.memory(),
            )
        )


def _measured(  # noqa: PLR0913, PLR0917 - all that a measurement consists of, in its own order
    phase: Phase,
    verdict: Verdict,
    faults: tuple[str, ...],
    tally: Tally,
    costs: Costs,
    watched: _Watched,
    hops: int | None,
) -> Measured:
    unended = tally.placed - tally.ended
    return Measured(
        phase=phase,
        verdict=verdict,
        faults=faults,
        placed=tally.placed,
        ended=tally.ended,
        declined=len(tally.failed),
        unended=unended,
        seconds=max(0.0, tally.last_end - tally.began),
        latency=quantiles([*tally.completed, *tally.failed], unended),
        compensated=quantiles(tally.failed, tally.declined_unended),
        lag_s=tally.lag_s,
        cpu_s=watched.cpu_s,
        broker_cpu_s=watched.broker_cpu_s,
        memory=watched.memory,
        records=costs.records,
        bytes=costs.bytes,
        commits=costs.commits,
        hops=hops,
        samples=tuple(watched.samples),
    )


def _hops(each: Hops | None, tally: Tally) -> int | None:
    """Of all orders that were placed: that each ends as it has to is judged, so it needn't be counted."""
    if each is None:
        return None
    declined = len(tally.failed) + tally.declined_unended
    return declined * each.declined + (tally.placed - declined) * each.completed


class _Teller:
    """Says lines, and progress no more often than a person can read it."""

    def __init__(self, mouth: Mouth) -> None:
        self._mouth = mouth
        self._next = 0.0

    def measured(self, measured: Measured) -> None:
        """Say what came of a phase."""
        self._mouth.say("phase", measured=measured.model_dump(mode="json"))

    def progress(self, phase: str, ended: int, orders: int) -> None:
        """Say how far a phase has come."""
        now = monotonic()
        if now >= self._next:
            self._next = now + _TOLD_EVERY_S
            self._mouth.say("progress", phase=phase, ended=ended, orders=orders)


async def _measure() -> int:
    mouth = Mouth()
    lines = StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    line = await lines.readline()
    if not line:
        return 0
    logging.basicConfig(level=logging.CRITICAL)
    teller = _Teller(mouth)
    try:
        spec = Spec.model_validate_json(line)
        measurement = Measurement(spec, teller.measured, teller.progress)
        # Whoever wanted to know may be gone.
        await _unless_ends(measurement.run(), lines)
    except TimeoutError:
        mouth.say("died", error=f"it did not stop within {_STOP_LIMIT_S:g} s")
        return _DIED
    except (LabError, KafkaError, SQLAlchemyError) as error:
        mouth.say("died", error=str(error))
        return _DIED
    return 0


async def _unless_ends(work: Coroutine[Any, Any, None], lines: StreamReader) -> None:
    working, ending = asyncio.create_task(work), asyncio.create_task(lines.read())
    try:
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.cancel()
        if not working.done():
            working.cancel()
    await asyncio.gather(working, return_exceptions=working.cancelling() > 0)


def main() -> int:
    """Measure what the first line on stdin says; returns the exit code."""
    # As a live service does.
    collect_seldom()
    return asyncio.run(_measure())


if __name__ == "__main__":
    sys.exit(main())
