"""`python -m compare sweep`: its arguments, and how its parts are shared out among processes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import Final, NamedTuple

from common.command_line import Parser
from compare.checks import Verdict
from compare.console import PlainConsole
from compare.files import check_writable, write_document
from compare.lab import MODES
from compare.progress import progress_bar
from compare.simulation.options import add_without, add_workers, number
from compare.simulation.pools import CONTEXT, pool, quiet_logs
from compare.simulation.protections import Protection
from compare.simulation.sagas import SAGAS
from compare.simulation.sweep import MOST_STATES, MOST_STEPS, Bounds, Swept, sweep
from compare.simulation.sweep_report import print_sweep, sweep_document, verdict_of_sweep

_MOST: Final = 100_000_000
_MOST_CRASHES: Final = 4
_MOST_EARLY: Final = 4
_LOOKED_EVERY_S: Final = 0.2

Told = Callable[[str, int], object]
"""Is now and then told how many states a part has had so far."""


class Part(NamedTuple):
    """What one process sweeps at a time."""

    mode: str
    saga: str
    bounds: Bounds
    protections: frozenset[Protection]

    def __str__(self) -> str:
        return f"{self.saga}, {self.mode}"


def add_sweep(commands: argparse._SubParsersAction[Parser], code_of: Callable[[Verdict], int]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sweep",
        help="go through all histories of some small sagas: every order of events, crashes at every boundary",
        description="All of it, not a sample: each saga in each order in which its records can come, with a "
        "crash at every boundary of every record, request and deadline that a service handles. "
        "Every end is judged.",
        epilog="exit codes: 0 valid (all converged), 1 invalid (not all did), 2 unknown (not exhausted), "
        "64 usage, 130 interrupted.",
    )
    parser.add_argument(
        "--saga", metavar="SAGA", action="append", choices=list(SAGAS),
        help=f"sweep this one only; repeatable: {', '.join(SAGAS)}",
    )  # fmt: skip
    parser.add_argument("--mode", choices=["both", *MODES], default="both", help="in one mode only")
    parser.add_argument(
        "--crashes", metavar="N", type=number(0, _MOST_CRASHES), default=1,
        help="in one history; 2 for every pair (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", metavar="N", type=number(0, 1), default=0,
        help="records that are delivered once more in one history (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--early", metavar="N", type=number(0, _MOST_EARLY), default=0,
        help="how often time may pass in one history though there is something else to do, beside what the "
        "saga has of that (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--most-states", metavar="N", type=number(1, _MOST), default=MOST_STATES,
        help=f"look at no more for a saga in a mode (default: {MOST_STATES:,})",
    )  # fmt: skip
    parser.add_argument(
        "--most-steps", metavar="N", type=number(1, MOST_STEPS), default=MOST_STEPS,
        help=f"follow a history no further (default: {MOST_STEPS})",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", metavar="S", type=number(1, _MOST),
        help="give up a saga in a mode after so many (default: never)",
    )  # fmt: skip
    add_without(parser, "take a protection away, to see what it prevents")
    add_workers(parser)
    parser.add_argument(
        "--json", metavar="FILE", help="write all that was found to FILE, or to standard output for -"
    )
    parser.set_defaults(do=lambda arguments: code_of(run(arguments)), meant="swept")


def run(arguments: argparse.Namespace) -> Verdict:
    """Sweep, print what came of it, and return the verdict."""
    quiet_logs()
    check_writable("--json", arguments.json)
    bounds = Bounds(
        crashes=arguments.crashes,
        repeats=arguments.repeats,
        early=arguments.early,
        most_steps=arguments.most_steps,
        most_states=arguments.most_states,
        most_seconds=arguments.seconds,
    )
    protections = frozenset(arguments.without)
    modes = list(MODES) if arguments.mode == "both" else [arguments.mode]
    sagas = [name for name in SAGAS if not arguments.saga or name in arguments.saga]
    parts = [Part(mode, saga, bounds, protections) for saga in sagas for mode in modes]
    with progress_bar() as progress:
        tasks = {str(part): progress.add_task(str(part), total=None) for part in parts}
        swept = sweep_parts(
            parts, arguments.workers, lambda part, states: progress.update(tasks[part], completed=states)
        )
    document = sweep_document(bounds, protections, swept)
    write_document("--json", arguments.json, document)
    print_sweep(PlainConsole(stderr=arguments.json == "-"), document, swept)
    return verdict_of_sweep(swept)


def sweep_parts(parts: Sequence[Part], workers: int, told: Told = lambda _, __: None) -> list[Swept]:
    """Sweep each, in so many processes, and return what came of them in the same order."""
    if workers == 1 or len(parts) == 1:
        return [_sweep(part, partial(told, str(part))) for part in parts]
    queue: SimpleQueue[tuple[str, int]] = CONTEXT.SimpleQueue()
    with pool(min(workers, len(parts)), _begin, (queue,)) as executor:
        futures = [executor.submit(_work, part) for part in parts]
        for part, states in _progress(futures, queue):
            told(part, states)
        return [future.result() for future in futures]


def _progress(
    futures: Sequence[Future[Swept]], queue: SimpleQueue[tuple[str, int]]
) -> Iterator[tuple[str, int]]:
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=_LOOKED_EVERY_S, return_when=FIRST_COMPLETED)
        while not queue.empty():
            yield queue.get()


_queues: list[SimpleQueue[tuple[str, int]]] = []
"""In a worker: the one by which it tells how far it is."""


def _begin(queue: SimpleQueue[tuple[str, int]]) -> None:
    quiet_logs()
    _queues.append(queue)


def _work(part: Part) -> Swept:
    return _sweep(part, lambda states: _queues[0].put((str(part), states)))


def _sweep(part: Part, told: Callable[[int], object]) -> Swept:
    swept = sweep(MODES[part.mode], SAGAS[part.saga], part.bounds, part.protections, told)
    told(swept.states)
    return swept
