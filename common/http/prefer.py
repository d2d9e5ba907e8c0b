"""The `Prefer` header (RFC 7240), of which one preference is known here: `wait`, in seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MAX_WAIT_S: Final = 30

_WAIT: Final = re.compile(
    r'\s*wait\s*=\s*(?P<quote>"?)(?P<seconds>\d{1,9})(?P=quote)\s*(;.*)?', re.IGNORECASE
)


def preferred_wait_s(lines: Sequence[str]) -> int | None:
    """The seconds that the client would wait, at most 30; None if it doesn't say, or not in RFC 7240's form.

    The list of preferences may go on over several header lines.

    Preferences that are unknown or malformed are to be ignored (section 2), and of several the first counts.
    """
    for preference in ",".join(lines).split(","):
        if found := _WAIT.fullmatch(preference):
            return min(int(found["seconds"]), MAX_WAIT_S)
    return None
