"""Column types that mean the same on every database."""

from __future__ import annotations

from typing import Final

from sqlalchemy import String

TEXT: Final = String().with_variant(String(collation="C"), "postgresql")
"""Text that is compared and sorted byte by byte, as SQLite does it, whatever the language of the server."""
