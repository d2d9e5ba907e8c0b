"""What a function says that it returns: the tables are checked, and drawn, by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from common.errors import WiringError
from common.messages import Message


def returned_messages(function: Callable[..., Any]) -> tuple[type[Message], ...]:
    """The message types in a function's return annotation, a union giving several.

    Raises:
        WiringError: the annotation is missing, or names something that is no message.
    """
    annotation = get_type_hints(function).get("return")
    types = get_args(annotation) or (annotation,)
    if not all(isinstance(one, type) and issubclass(one, Message) for one in types):
        message = f"{function.__qualname__} must be annotated with the message it returns, not {annotation}."
        raise WiringError(message)
    return types
