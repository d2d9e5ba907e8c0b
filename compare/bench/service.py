"""One part in a process of its own: `python -m compare.bench.service`, started by `compare.bench.remote`.

It talks in lines of JSON: the first on stdin has its instructions, each further one asks what it has spent.
It says `ready`, which orders have `ended`, an `answer`, or that it has `died`. The end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from asyncio import StreamReader
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from common.domain.order import OrderStatus
from common.errors import LabError
from common.garbage import collect_seldom
from compare.bench.parts import Part, ServicePart
from compare.bench.relay import RelayPart
from compare.bench.remote import Instructions
from compare.host import Mouth
from compare.lab import MODES

_LOOK_EVERY_S: Final = 0.5
_DIED: Final = 1


class _Service:
    def __init__(self, instructions: Instructions, mouth: Mouth) -> None:
        self._mouth = mouth
        wiring = MODES[instructions.mode].service(instructions.service)
        self._part: Part
        if instructions.kind == "relay":
            self._part = RelayPart(MODES[instructions.mode], wiring, instructions.ground, self._tell)
        else:
            self._part = ServicePart(wiring, instructions.ground, self._tell, own_thread=True)

    async def run(self, lines: StreamReader) -> int:
        """Work until stdin ends, or until it can't go on; the exit code."""
        try:
            await self._part.start()
            self._mouth.say("ready")
            obeying = asyncio.create_task(self._obey(lines))
            while not obeying.done():
                await asyncio.wait({obeying}, timeout=_LOOK_EVERY_S)
                self._part.check()
            obeying.result()
        except LabError as error:
            self._mouth.say("died", error=str(error))
            return _DIED
        finally:
            await self._part.stop()
        return 0

    async def _obey(self, lines: StreamReader) -> None:
        async for line in lines:
            command = json.loads(line)
            self._mouth.say("answer", id=command["id"], **asdict(await self._part.spent()))

    def _tell(self, ends: Sequence[tuple[str, OrderStatus]]) -> None:
        self._mouth.say("ended", orders=ends)


async def _serve() -> int:
    mouth = Mouth()
    lines = StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    line = await lines.readline()
    if not line:
        return 0
    logging.basicConfig(level=logging.CRITICAL)
    return await _Service(Instructions.model_validate_json(line), mouth).run(lines)


def main() -> int:
    """Be the part that the first line on stdin tells of; returns the exit code."""
    # As a live service does.
    collect_seldom()
    return asyncio.run(_serve())


if __name__ == "__main__":
    sys.exit(main())
