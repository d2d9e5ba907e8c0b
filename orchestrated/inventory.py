"""The Inventory service, orchestrated: it does what the orchestrator commands, and answers."""

from __future__ import annotations

from typing import Final

from common.messages import ReleaseInventory, ReserveInventory
from common.services import INVENTORY
from common.wiring import Wiring, accept
from orchestrated.topics import topic_of

WIRING: Final = Wiring(
    mode="orchestrated",
    domain=INVENTORY,
    port=8021,
    topic_of=topic_of,
    reactions=(
        accept(ReserveInventory),
        accept(ReleaseInventory),
    ),
)
