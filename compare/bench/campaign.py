"""The measurements of a benchmark, one after the other: all subjects take turns, several times over.

Each is a process of its own, over new databases and new topics, on the broker that was named, or on a fresh
embedded one. What goes wrong with one is its result, not an error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final, cast

import psutil
from uuid_utils import uuid7

from common.errors import BrokerError
from common.settings import Settings
from compare.bench.document import Run
from compare.bench.load import Load, draw
from compare.bench.spec import (
    LEFT_OUT,
    UNKNOWN,
    Conditions,
    Durability,
    Measured,
    Phase,
    Spec,
)
from compare.bench.subjects import hops_of, topics_of
from compare.lab import EMBEDDED, Broker, open_broker
from compare.lines import LONGEST_LINE

_MEASURE: Final = (sys.executable, *(("-P",) if sys.flags.safe_path else ()), "-m", "compare.bench.measure")
_EMBEDDED_PROGRAM: Final = "embedded_process.py"
_GRACE_S: Final = 60.0
"""For starting, warming up and stopping."""
_STOP_LIMIT_S: Final = 5.0

STARTING: Final = "starting"
"""In place of a phase, while a subject starts and warms up; that is told once for each measurement."""
Told = Callable[[str, int, str, int, int], None]
"""Is told the subject, the repeat, the phase, and how many of how many orders have ended."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    address: str
    """Of the broker, or `embedded`."""
    subjects: tuple[str, ...]
    phases: tuple[Phase, ...]
    repeats: int
    declined: float
    items: int
    warm_up: int
    partitions: int
    durability: Durability
    processes: bool
    instances: int
    drain_s: float = 10.0
    settle_s: float = 60.0
    sample_every: int = 0
    within_s: float | None = None
    """No repeat is begun that would probably end later than this; the first always is."""


async def measure(plan: Plan, settings: Settings, told: Told, keep: Callable[[Run], None]) -> None:
    """Measure all subjects in turn, repeat after repeat; `keep` gets what came of each phase.

    Raises:
        BrokerError: the broker can't be used.
    """
    began, longest = monotonic(), 0.0
    for repeat in range(1, plan.repeats + 1):
        # The same orders for all: whoever is luckier with their ids is so in another repeat.
        load = draw(plan.declined, plan.items)
        began_repeat = monotonic()
        if plan.within_s is not None and repeat > 1 and began_repeat - began + longest > plan.within_s:
            return
        for subject in plan.subjects:
            told(subject, repeat, STARTING, 0, plan.warm_up)
            for measured in await _measurement(plan, settings, subject, load, _about(told, subject, repeat)):
                keep(Run(subject=subject, repeat=repeat, measured=measured))
        longest = max(longest, monotonic() - began_repeat)


def _about(told: Told, subject: str, repeat: int) -> Callable[[str, int, int], None]:
    return lambda phase, ended, orders: told(subject, repeat, phase, ended, orders)


async def _measurement(
    plan: Plan, settings: Settings, subject: str, load: Load, told: Callable[[str, int, int], None]
) -> list[Measured]:
    run = f"bench_{uuid7().hex[-12:]}"
    async with open_broker(plan.address, settings) as broker:
        topics = [f"{run}.{topic}" for topic in topics_of(subject)]
        await broker.make_topics(topics, plan.partitions)
        try:
            # Of the kind that the operating system cleans up, should nobody else.
            with tempfile.TemporaryDirectory(prefix="saga-lab-bench-") as folder:
                spec = Spec(
                    subject=subject,
                    run=run,
                    folder=Path(folder),
                    load=load,
                    warm_up=plan.warm_up,
                    phases=plan.phases,
                    conditions=_conditions(plan, settings, broker),
                    drain_s=plan.drain_s,
                    settle_s=plan.settle_s,
                    sample_every=plan.sample_every,
                    hops=hops_of(subject),
                )
                return await _Child(spec, told).run()
        finally:
            with suppress(BrokerError):
                await broker.drop_topics(topics)


def _conditions(plan: Plan, settings: Settings, broker: Broker) -> Conditions:
    secret = settings.database_url
    return Conditions(
        bootstrap_servers=broker.bootstrap_servers,
        partitions=plan.partitions,
        fetch_max_wait_ms=broker.fetch_max_wait_ms,
        max_poll_records=settings.max_poll_records,
        sole_instance=broker.sole_instance,
        durability=plan.durability,
        database_url=None if secret is None else secret.get_secret_value(),
        processes=plan.processes,
        instances=plan.instances,
        broker_pid=_embedded_pid() if broker.name == EMBEDDED else None,
    )


def _embedded_pid() -> int | None:
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(argument.endswith(_EMBEDDED_PROGRAM) for argument in child.cmdline()):
                return int(child.pid)
    return None


class _Child:
    """The process of one measurement."""

    def __init__(self, spec: Spec, told: Callable[[str, int, int], None]) -> None:
        self._spec = spec
        self._told = told
        self._measured: list[Measured] = []
        self._last_words: str | None = None

    async def run(self) -> list[Measured]:
        """Run it, and return what came of each phase; one that it did not come to is left out."""
        # A group of its own: Ctrl-C reaches the command alone, which then closes the process's stdin.
        process = await asyncio.create_subprocess_exec(
            *_MEASURE, stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE, process_group=0
        )
        try:
            async with asyncio.timeout(self._limit_s()):
                await self._converse(process)
        except TimeoutError:
            self._last_words = f"it did not end within {self._limit_s():g} s"
        finally:
            await _end(process)
        return [*self._measured, *self._missing(process.returncode)]

    def _limit_s(self) -> float:
        spec = self._spec
        return _GRACE_S + sum(phase.seconds + spec.drain_s + spec.settle_s for phase in spec.phases)

    async def _converse(self, process: Process) -> None:
        stdin, stdout = (
            cast("asyncio.StreamWriter", process.stdin),
            cast("asyncio.StreamReader", process.stdout),
        )
        with suppress(ConnectionError):
            stdin.write(self._spec.model_dump_json().encode() + b"\n")
            await stdin.drain()
        async for line in stdout:
            self._listen(json.loads(line))
        await process.wait()

    def _listen(self, said: Mapping[str, Any]) -> None:
        match said:
            case {"say": "phase", "measured": measured}:
                self._measured.append(Measured.model_validate(measured))
            case {"say": "progress", "phase": str(phase), "ended": int(ended), "orders": int(orders)}:
                self._told(phase, ended, orders)
            case {"say": "died", "error": str(error)}:
                self._last_words = error

    def _missing(self, code: int | None) -> Sequence[Measured]:
        """What has no result: the phase in which it went wrong, and those after it."""
        missing = list(self._spec.phases[len(self._measured) :])
        if not missing:
            return ()
        if self._measured and self._measured[-1].verdict not in {"valid", LEFT_OUT}:
            return [Measured.nothing(phase, LEFT_OUT, "an earlier phase has failed") for phase in missing]
        why = self._last_words or f"its process has ended with exit code {code}"
        rest = [Measured.nothing(phase, LEFT_OUT, "an earlier phase has failed") for phase in missing[1:]]
        return [Measured.nothing(missing[0], UNKNOWN, why), *rest]


async def _end(process: Process) -> None:
    """End it: politely, and after a while by force."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_LIMIT_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
