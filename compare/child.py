"""A service's process as the lab sees it: started, told, listened to, and started again when it was killed.

Each leads a process group of its own, so that a terminal's Ctrl-C reaches the lab alone. It stays in the
lab's session: then, should the lab die, the kernel ends even a process that stands still (POSIX: SIGHUP and
SIGCONT to a group that is orphaned and stopped); one that moves finds that its stdin has ended.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from asyncio import Future
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from common.errors import LabError
from compare.lines import LONGEST_LINE

HOST: Final = (sys.executable, *(("-P",) if sys.flags.safe_path else ()), "-m", "compare.host")

_STOP_LIMIT_S: Final = 3.0
_NUDGE_EVERY_S: Final = 0.05


class _GoneError(Exception):
    """The process ended before it could answer."""


class Child:
    """The process of one service, and the next one when a fault has killed it.

    `instructions` are asked for whenever one is started, and `heard` is called with what it says of faults.
    """

    def __init__(
        self,
        wiring: str,
        command: Sequence[str],
        instructions: Callable[[], str],
        heard: Callable[[Child, Mapping[str, Any]], None],
    ) -> None:
        self.pids: list[int] = []
        """Of all processes so far, the last of which may live."""
        self._wiring = wiring
        self._command = command
        self._instructions = instructions
        self._heard = heard
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._ready = False
        self._moves = asyncio.Event()
        self._stopping = False
        self._last_words: str | None = None
        self._failure: str | None = None
        self._away_s: float | None = None
        self._when_back: list[Callable[[], None]] = []
        self._numbers = itertools.count(1)
        self._open: dict[int, Future[Mapping[str, Any]]] = {}

    def __str__(self) -> str:
        return self._wiring

    @property
    def service(self) -> str:
        """The service's name."""
        return self._wiring.rpartition("/")[2]

    @property
    def is_ready(self) -> bool:
        """Whether it has its partitions."""
        return self._ready

    @property
    def is_away(self) -> bool:
        """Whether it was killed, and isn't back yet."""
        return self._away_s is not None

    def check(self) -> None:
        """Raise a LabError if it has died that no fault has killed."""
        if self._failure is not None:
            raise LabError(f"{self} has died: {self._failure}")

    def start(self) -> None:
        """Start it in the background."""
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self) -> None:
        """Wait until it has its partitions; a LabError if it has died."""
        while not self._ready:
            self.check()
            await self._changed.wait()

    async def ask(self, what: str, **details: object) -> Mapping[str, Any]:
        """Have a command answered, by this process or, if it dies before that, by the next.

        Raises:
            LabError: it has died that no fault has killed.
        """
        while True:
            await self.ready()
            number = next(self._numbers)
            answer: Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
            self._open[number] = answer
            self.tell(what, id=number, **details)
            try:
                return await answer
            except _GoneError:
                continue
            finally:
                self._open.pop(number, None)

    def tell(self, what: str, **details: object) -> None:
        """Give it a command; one that has died won't hear it."""
        self._write(json.dumps({"do": what, **details}))

    def dies(self, away_s: float, when_back: Callable[[], None] = lambda: None) -> None:
        """Note that it is about to be dead, and for how long."""
        self._away_s = max(away_s, self._away_s or 0.0)
        self._when_back.append(when_back)

    def kill(self, away_s: float) -> bool:
        """Kill it, wherever it is; whether there was something to be killed."""
        if self._process is None or self._process.returncode is not None:
            return False
        self.dies(away_s)
        self.send(signal.SIGKILL)
        return True

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal; one that has died won't get it."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stand_still(self, seconds: float) -> None:
        """Let it stand still, who has stopped itself, and then have it go on."""
        await asyncio.sleep(seconds)
        await self.go_on()

    async def go_on(self) -> None:
        """Have a process go on that has said that it stops itself.

        It may not have done so yet: so it is told again until it says that it moves.
        """
        process = self._process
        while self._process is process and not self._moves.is_set():
            self.send(signal.SIGCONT)
            with suppress(TimeoutError):
                async with asyncio.timeout(_NUDGE_EVERY_S):
                    await self._moves.wait()

    async def stop(self) -> None:
        """End it: politely, and after a while by force."""
        self._stopping = True
        if self._keeper is None:
            return
        if self._process is not None and self._process.stdin is not None:
            self.send(signal.SIGCONT)
            self._process.stdin.close()
            await asyncio.wait({self._keeper}, timeout=_STOP_LIMIT_S)
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            code = await self._run_once()
            if self._stopping:
                return
            if self._away_s is None:
                self._failure = self._last_words or f"its process has ended with exit code {code}"
                self._note()
                return
            await asyncio.sleep(self._away_s)

    async def _run_once(self) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE, process_group=0
        )
        self._process = process
        self.pids.append(process.pid)
        self._write(self._instructions())
        try:
            async for line in cast("asyncio.StreamReader", process.stdout):
                # A process that is killed may have been in the middle of a line.
                if line.endswith(b"\n"):
                    self._listen(json.loads(line))
            return await process.wait()
        finally:
            self._process = None
            self._gone()
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _write(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line.encode() + b"\n")

    def _listen(self, said: Mapping[str, Any]) -> None:
        match said:
            case {"say": "ready"}:
                self._back()
            case {"say": "moves"}:
                self._moves.set()
            case {"say": "died", "error": str(error)}:
                self._last_words = error
            case {"say": "answer", "id": int(number)}:
                if number in self._open:
                    self._open[number].set_result(said)
            case _:
                self._moves.clear()
                self._heard(self, said)

    def _back(self) -> None:
        self._ready = True
        self._away_s = None
        for told in self._when_back:
            told()
        self._when_back.clear()
        self._note()

    def _gone(self) -> None:
        self._ready = False
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(_GoneError)
        self._note()

    def _note(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
