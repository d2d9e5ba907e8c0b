"""Consoles of any width and encoding, and what they have shown."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console


@dataclass
class Screen:
    """A console and what it has shown."""

    console: Console
    file: io.TextIOWrapper

    @property
    def text(self) -> str:
        self.file.flush()
        raw = self.file.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode(self.file.encoding)


@contextmanager
def screen(width: int = 120, encoding: str = "utf-8", *, terminal: bool = False) -> Iterator[Screen]:
    """A console that refuses what its encoding has no letters for; a terminal if so asked, else a pipe."""
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding) as file:
        yield Screen(Console(file=file, width=width, force_terminal=terminal), file)
