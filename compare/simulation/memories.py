"""What a core knows beside its database, so that a simulated service can come back to a moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import copy
from typing import Any

from common.core import Core


def known_to(core: Core) -> list[tuple[str, object]]:
    """What a core knows beside its database, in so far as it matters for what comes next."""
    return [(name, sorted(value)) for name, value in vars(core).items() if isinstance(value, set)]


def memory_of(core: Core) -> dict[str, Any]:
    """What a core knows beside its database; all else in it never changes."""
    return {name: copy(value) for name, value in vars(core).items() if _changes(value)}


def remember(core: Core, memory: Mapping[str, Any]) -> None:
    """Have a core know again what it knew then, and nothing else."""
    for name, value in memory.items():
        if isinstance(value, Counter):  # it is shared with the parts that count
            counter = getattr(core, name)
            counter.clear()
            counter.update(value)
        else:
            setattr(core, name, copy(value))


def _changes(value: object) -> bool:
    return value is None or isinstance(value, Counter | set | list | str)
