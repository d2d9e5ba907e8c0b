"""Options that the commands of the simulation have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Final

from compare.simulation.protections import MEANINGS, Protection

_MOST_WORKERS: Final = 256


def number(least: int, most: int) -> Callable[[str], int]:
    """What reads a whole number within these bounds, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            message = f"{text!r} is no number from {least} to {most}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return read


def add_without(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option that takes protections away; `what` says what for."""
    known = "; ".join(f"{protection} ({MEANINGS[protection]})" for protection in Protection)
    parser.add_argument(
        "--without", metavar="PROTECTION", action="append", default=[], type=_protection,
        help=f"{what}; repeatable: {known}",
    )  # fmt: skip


def told_without(protections: Sequence[str]) -> str:
    """What a heading says of the protections that are taken away; nothing if none is."""
    return f", without {' and '.join(protections)}" if protections else ""


def _protection(text: str) -> Protection:
    try:
        return Protection(text)
    except ValueError as error:
        message = f"{text!r} is no protection; there are {', '.join(Protection)}"
        raise argparse.ArgumentTypeError(message) from error


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how many processes to work in."""
    parser.add_argument(
        "--workers", metavar="N", type=number(1, _MOST_WORKERS), default=os.cpu_count() or 1,
        help="processes to work in; it changes nothing but the time (default: one for each processor)",
    )  # fmt: skip
