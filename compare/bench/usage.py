"""What a measurement uses of the machine: its process, and all that it has started, and they in turn."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from time import clock_gettime, monotonic
from typing import Final

import psutil

_LOOK_EVERY_S: Final = 0.2
_LOOK_FOR_NEW_EVERY_S: Final = 3.0
"""To find out who descends from whom, all processes of the machine have to be looked at."""

_SCHEDULED: Final = 2
"""Makes a Linux process's number, negated and shifted, that of its clock, as clock_getcpuclockid(3) does."""


class Usage:
    """Processor time and memory of this process and its descendants; `broker_pid` is another's."""

    def __init__(self, broker_pid: int | None = None) -> None:
        self.peak = 0
        """Bytes resident, in all processes together, at the most; as often as `watch` has looked."""
        self._self = psutil.Process()
        self._others: list[psutil.Process] = []
        self._looked = 0.0
        self._broker = psutil.Process(broker_pid) if broker_pid is not None else None

    def find(self) -> None:
        """Look anew which processes there are."""
        self._others = self._self.children(recursive=True)
        self._looked = monotonic()

    def cpu_s(self) -> float:
        """Processor seconds so far: user and system, of those that have ended, too."""
        total = 0.0
        for process in (self._self, *self._others):
            with suppress(psutil.NoSuchProcess):
                # Whoever has ended is in its parent's times.
                total += _cpu_s(process) + sum(process.cpu_times()[2:4])
        return total

    def broker_cpu_s(self) -> float | None:
        """Processor seconds of the broker so far; None if it isn't known."""
        if self._broker is None:
            return None
        try:
            return _cpu_s(self._broker)
        except psutil.NoSuchProcess:
            return None

    def memory(self) -> int:
        """Bytes resident at this moment."""
        if monotonic() - self._looked > _LOOK_FOR_NEW_EVERY_S:
            self.find()
        total = 0
        for process in (self._self, *self._others):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        self.peak = max(self.peak, total)
        return total

    async def watch(self) -> None:
        """Look at the memory now and then, until cancelled."""
        while True:
            self.memory()
            await asyncio.sleep(_LOOK_EVERY_S)


def _cpu_s(process: psutil.Process) -> float:
    """Processor seconds of a process, without those of its children; NoSuchProcess if there is none."""
    if sys.platform == "linux":
        # Its times under /proc are in ticks of 10 ms, which is what ten sagas take; its clock is in ns.
        with suppress(OSError):
            return clock_gettime(~process.pid << 3 | _SCHEDULED)
    return float(sum(process.cpu_times()[:2]))
