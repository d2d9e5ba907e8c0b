"""A topic per service: each tells its own facts there, and whoever wants to know listens; no commands."""

from __future__ import annotations

from typing import Final

from common.errors import WiringError
from common.messages import InventoryEvent, Message, OrderEvent, PaymentEvent

TOPICS: Final[dict[type[Message], str]] = {
    OrderEvent: "orders.events",
    InventoryEvent: "inventory.events",
    PaymentEvent: "payments.events",
}


def topic_of(message: type[Message]) -> str:
    """The topic that a message is told on.

    Raises:
        WiringError: it is a command or a saga's event, which nobody sends here.
    """
    for family, topic in TOPICS.items():
        if issubclass(message, family):
            return topic
    error = f"{message.__name__} has no topic in the choreographed mode: only services' own events do."
    raise WiringError(error)
