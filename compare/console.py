"""The console of the commands: what it is given, it prints as it is."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console


class PlainConsole(Console):
    """Shows text as it is, even if it looks like markup, and leaves a broken pipe to the command line."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> NoReturn:
        """Raise what rich would end the process for, with an exit code that is a verdict here."""
        raise BrokenPipeError
