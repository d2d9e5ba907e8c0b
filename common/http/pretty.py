"""JSON that a person can read in a terminal."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse


class PrettyJSONResponse(JSONResponse):
    """Indented, and with a line break at its end: these answers are read by people with curl, too."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - whatever JSON can hold
        """The bytes of the body."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2).encode() + b"\n"
