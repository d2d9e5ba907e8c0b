"""`python -m compare soak`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import sys
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.table import Table

from common.command_line import Parser
from common.settings import load_settings
from compare.checks import Verdict
from compare.console import PlainConsole
from compare.files import check_writable, write_document
from compare.lab import EMBEDDED, MODES, Told, open_broker
from compare.signs import Pen
from compare.soak import Soak, SoakDocument, SoakRound

_ORDERS: Final = 5_000
_SECONDS: Final = 900
_LEAST: Final = 10
_SHOWN_EVERY: Final = 250
_MOST: Final = 1_000_000

_ROWS: Final[tuple[tuple[str, str], ...]] = (
    ("completed", "completed"),
    ("failed", "failed"),
    ("compensation failed", "compensation_failed"),
    ("pending", "pending"),
    ("services killed (SIGKILL) at any moment", "kill"),
    ("  and at a boundary", "crash"),
    ("services stopped for a while (SIGSTOP)", "stop"),
    ("times that the broker was away", "outage"),
    ("processes started again", "restart"),
    ("records", "records"),
    ("  compensating", "compensations"),
    ("  told again", "asked_again"),
    ("duplicates removed", "duplicates_removed"),
    ("retries", "retries"),
    ("deadlines passed", "overdue"),
    ("  for the last time", "timed_out"),
    ("dead letters", "dead_letters"),
    ("messages that came too late", "late"),
    ("messages ignored", "unexpected"),
)


def add_soak(commands: argparse._SubParsersAction[Parser], code_of: Callable[[Verdict], int]) -> None:
    """Add the command."""
    soak = commands.add_parser(
        "soak",
        help="put thousands of orders through services that are killed, stopped and cut off all the time",
        description="Orders of all kinds, so many under way at a time, through services that are a process "
        "each. They are killed, stopped and cut off from the broker (the embedded one) at any moment, and "
        "started again. In the end no order may be lost, charged twice, or left half done.",
        epilog="The seed determines the orders, and what is done to the services at which of them, but not "
        "how all that interleaves: two runs with one seed are not the same.",
    )
    soak.add_argument("--mode", choices=["both", *MODES], default="both", help="in one mode only")
    soak.add_argument(
        "--orders", metavar="N", type=_orders, default=_ORDERS,
        help=f"to place in each mode, in rounds (default: {_ORDERS})",
    )  # fmt: skip
    soak.add_argument(
        "--seconds", metavar="S", type=_seconds, default=_SECONDS,
        help=f"begin no further round after so many; the first is always run (default: {_SECONDS})",
    )  # fmt: skip
    soak.add_argument("--seed", metavar="X", help="any text (default: drawn, and printed)")
    soak.add_argument(
        "--json", metavar="FILE",
        help="write the counts and findings of each round to FILE, or to standard output for -",
    )  # fmt: skip
    soak.set_defaults(do=lambda arguments: code_of(run(arguments)))


def run(arguments: argparse.Namespace) -> Verdict:
    """Soak, print what came of it, and return the verdict."""
    settings = load_settings()
    check_writable("--json", arguments.json)
    # What is given up is so by intent here.
    logging.getLogger().setLevel(logging.CRITICAL)
    console = PlainConsole(stderr=arguments.json == "-")
    modes = list(MODES) if arguments.mode == "both" else [arguments.mode]
    seed = arguments.seed or secrets.token_hex(4)
    console.print(
        f"Seed {seed}; {arguments.orders:,} orders in each mode, for {arguments.seconds:g} s or so."
    )

    async def run_it() -> SoakDocument:
        async with open_broker(EMBEDDED, settings) as broker:
            soak = Soak(broker, settings, modes, seed, told=_progress(console))
            return await soak.run(arguments.orders, arguments.seconds, lambda one: _round(console, one))

    document = asyncio.run(run_it())
    write_document("--json", arguments.json, document)
    _report(console, document, modes)
    return document.verdict


def _orders(text: str) -> int:
    if not text.isdecimal() or not _LEAST <= int(text) <= _MOST:
        message = f"{text!r} is no number from {_LEAST} to {_MOST}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _seconds(text: str) -> float:
    if not text.isdecimal() or not int(text):
        message = f"{text!r} is no number of seconds"
        raise argparse.ArgumentTypeError(message)
    return float(text)


def _progress(console: Console) -> Told:
    """Says now and then how far a round is, for it may take minutes."""
    shown: dict[tuple[str, str], int] = {}

    def told(scenario: str, mode: str, ended: int, total: int) -> None:
        before = shown.get((scenario, mode), 0)
        if ended >= before + _SHOWN_EVERY:
            shown[scenario, mode] = ended
            number = scenario.rpartition("-")[2]
            console.print(f"round {number}, {mode}: {ended:,} of {total:,} orders have ended")
            sys.stdout.flush()

    return told


def _round(console: Console, one: SoakRound) -> None:
    counts = one.counts
    console.print(
        f"round {one.round}, {one.mode}: {one.orders:,} orders in {one.wall_s:.0f} s, "
        f"{counts['kill'] + counts['crash']} kills, {counts['stop']} stops, {counts['outage']} outages: ",
        end="",
    )
    console.print(Pen(console).badge(one.verdict))
    for finding in one.findings:
        console.print(f"  {finding.check}: {'; '.join(finding.faults)}", soft_wrap=True)
        for line in finding.history:
            console.print(f"    {line.at_ms} {line.where} {line.what}", soft_wrap=True)
    sys.stdout.flush()


def _report(console: Console, document: SoakDocument, modes: list[str]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for mode in modes:
        table.add_column(mode, justify="right")
    totals = {mode: document.counts(mode) for mode in modes}
    placed = [sum(one.orders for one in document.rounds if one.mode == mode) for mode in modes]
    table.add_row("orders", *(f"{orders:,}" for orders in placed))
    for label, name in _ROWS:
        table.add_row(label, *(f"{totals[mode][name]:,}" for mode in modes))
        if name == "failed":
            _add_reasons(table, document, modes)
    console.print(table)
    console.print(
        f"All in all, with the seed {document.seed}: ", Pen(console).badge(document.verdict), sep=""
    )


def _add_reasons(table: Table, document: SoakDocument, modes: list[str]) -> None:
    by_mode = [document.reasons(mode) for mode in modes]
    for reason in sorted(set().union(*by_mode)):
        table.add_row(f"  for {reason}", *(f"{reasons[reason]:,}" for reasons in by_mode))
