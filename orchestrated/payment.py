"""The Payment service, orchestrated: it does what the orchestrator commands, and answers."""

from __future__ import annotations

from typing import Final

from common.messages import CancelPayment, ProcessPayment, RefundPayment
from common.services import PAYMENT
from common.wiring import Wiring, accept
from orchestrated.topics import topic_of

WIRING: Final = Wiring(
    mode="orchestrated",
    domain=PAYMENT,
    port=8031,
    topic_of=topic_of,
    reactions=(
        accept(ProcessPayment),
        accept(RefundPayment),
        accept(CancelPayment),
    ),
)
