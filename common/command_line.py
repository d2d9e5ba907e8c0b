"""What the project's command lines have in common."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Final, NoReturn

EX_USAGE: Final = 64
"""Of BSD's sysexits: the command can't be used as given."""
INTERRUPTED: Final = 130
"""As shells have it for what SIGINT has ended."""


class Parser(ArgumentParser):
    """argparse, with the exit code that shells and supervisors know for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end the process."""
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")
