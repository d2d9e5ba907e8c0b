"""A part in a process of its own, as the measuring process sees it; that one is `compare.bench.service`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from common.domain.order import OrderStatus
from common.messages import PlaceOrder
from common.wiring import Wiring
from compare.bench.counting import Spent
from compare.bench.parts import Ground, TellEnds
from compare.child import Child
from compare.recording import Frozen

_SERVICE: Final = (sys.executable, *(("-P",) if sys.flags.safe_path else ()), "-m", "compare.bench.service")

Kind = Literal["mode", "relay"]


class Instructions(Frozen):
    """All that a process has to know to be a part."""

    kind: Kind
    mode: str
    service: str
    ground: Ground


class RemotePart:
    """One instance of one service, in a process of its own."""

    def __init__(self, kind: Kind, wiring: Wiring, ground: Ground, tell: TellEnds) -> None:
        instructions = Instructions(kind=kind, mode=wiring.mode, service=wiring.name, ground=ground)
        self._tell = tell
        self._child = Child(str(wiring), _SERVICE, instructions.model_dump_json, self._heard)

    async def start(self) -> None:
        """Be ready to work; a LabError if that can't be."""
        self._child.start()
        await self._child.ready()

    def check(self) -> None:
        """Return at once, or raise a LabError if it can't go on."""
        self._child.check()

    async def place(self, orders: Sequence[PlaceOrder]) -> None:
        """Orders are placed with the first Order service, which is never remote."""
        raise NotImplementedError

    async def spent(self) -> Spent:
        """What it has spent so far."""
        answer = await self._child.ask("spend")
        return Spent(records=answer["records"], bytes=answer["bytes"], commits=answer["commits"])

    async def stop(self) -> None:
        """End."""
        await self._child.stop()

    def _heard(self, _: Child, said: Mapping[str, Any]) -> None:
        if said["say"] == "ended":
            self._tell([(order_id, OrderStatus(status)) for order_id, status in said["orders"]])
