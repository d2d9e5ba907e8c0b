"""The signs of the report, and the letters that stand in where an encoding has none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.text import Text

from compare.checks import Verdict
from compare.recording import Nature


@dataclass(frozen=True, slots=True)
class Sign:
    """How one kind of thing is told from the others."""

    sign: str
    letter: str
    style: str


SIGNS: Final = {
    Nature.COMMAND: Sign("▶", ">", "cyan"),
    Nature.EVENT: Sign("●", "*", "green"),
    Nature.COMPENSATION: Sign("↩", "<", "yellow"),
    Nature.FAILURE: Sign("✖", "x", "bold red"),
}
STRIKE: Final = Sign("⚡", "!", "bold magenta")
DEAD_LETTER: Final = Sign("☠", "#", "bold red")
REQUEST: Final = Sign("◆", "+", "bold blue")
VERDICTS: Final = {
    Verdict.VALID: Sign("✔", "OK", "bold green"),
    Verdict.INVALID: Sign("✖", "!!", "bold red"),
    Verdict.UNKNOWN: Sign("?", "??", "bold yellow"),
}


class Pen:
    """Writes signs as far as a console's encoding has them."""

    def __init__(self, console: Console) -> None:
        self.plain = not console.encoding.lower().startswith("utf")

    def sign(self, sign: Sign) -> str:
        """The sign, or its letter."""
        return sign.letter if self.plain else sign.sign

    def signed(self, sign: Sign, text: str) -> Text:
        """A text with its sign before it, in the sign's colour."""
        return Text(f"{self.sign(sign)} {text}", style=sign.style)

    def badge(self, verdict: Verdict) -> Text:
        """A verdict with its sign."""
        return self.signed(VERDICTS[verdict], verdict)

    @property
    def back(self) -> str:
        """Points to a cause."""
        return "<-" if self.plain else "←"

    @property
    def arrow(self) -> str:
        """Points to a new state."""
        return "=>" if self.plain else "⇒"
