"""Two topics: what the orchestrator asks for, and what it is told."""

from __future__ import annotations

from typing import Final

from common.messages import Command, Message

COMMANDS: Final = "saga.commands"
EVENTS: Final = "saga.events"


def topic_of(message: type[Message]) -> str:
    """The topic that a message is told on."""
    return COMMANDS if issubclass(message, Command) else EVENTS
