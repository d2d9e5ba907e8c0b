"""`python -m compare simulate`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Final

from rich.console import Console
from rich.table import Table

from common.command_line import Parser
from common.errors import ConfigurationError
from common.settings import load_settings
from compare.checks import Verdict, verdict_of
from compare.console import PlainConsole
from compare.files import check_writable, write_document, writing
from compare.lab import MODES
from compare.metrics import measure
from compare.progress import progress_bar
from compare.report import Report
from compare.result import ModeResult, ScenarioResult
from compare.scenario import Scenario
from compare.scenario_files import SUFFIXES, find_scenario
from compare.signs import Pen
from compare.simulation.actions import Action, parse_action
from compare.simulation.campaign import Draw, Failure, Tally, history_of, simulate, world_of
from compare.simulation.document import SimulationDocument, simulation_document
from compare.simulation.drive import History, Schedule, drive, simulated_plan
from compare.simulation.export import as_scenario, write_scenario
from compare.simulation.options import add_without, add_workers, number, told_without
from compare.simulation.pools import quiet_logs
from compare.simulation.protections import Protection
from compare.simulation.shrink import shrink

_RUNS: Final = 1_000
_MOST_RUNS: Final = 10_000_000
_MOST_SEED: Final = 2**31


def add_simulate(commands: argparse._SubParsersAction[Parser], code_of: Callable[[Verdict], int]) -> None:
    """Add the command."""
    simulate_ = commands.add_parser(
        "simulate",
        help="draw thousands of histories from a seed, and shrink the first that goes wrong",
        description="The services' own core, deciders and tables, over a simulated broker and clock. Orders, "
        "stock, the order of events, crashes at every boundary, duplicates, losses, rebalances and deadlines "
        "are drawn from the seed, and nothing else: the same seed gives the same histories everywhere. One "
        "that goes wrong is shrunk, shown, and written as a scenario file.",
        epilog="exit codes: 0 all valid, 1 one goes wrong, 64 usage, 130 interrupted.",
    )
    simulate_.add_argument(
        "--seed", metavar="S", type=number(0, _MOST_SEED),
        help=f"a number up to {_MOST_SEED} (default: drawn, and printed)",
    )  # fmt: skip
    simulate_.add_argument(
        "--runs", metavar="N", type=number(1, _MOST_RUNS),
        help=f"histories in each mode (default: {_RUNS:,})",
    )  # fmt: skip
    simulate_.add_argument(
        "--only", metavar="RUN", type=number(0, _MOST_RUNS),
        help="show this one of them, counted from 0, side by side in both modes",
    )  # fmt: skip
    simulate_.add_argument(
        "--scenario", metavar="SCENARIO",
        help="the orders, the stock and the faults of a built-in scenario or a scenario file, in place of "
        "drawn orders; mishaps are drawn beside them. If it has a schedule, that is followed, once",
    )  # fmt: skip
    simulate_.add_argument("--mode", choices=["both", *MODES], default="both", help="in one mode only")
    add_without(simulate_, "take a protection away, to see what it prevents")
    add_workers(simulate_)
    simulate_.add_argument(
        "--out", metavar="FILE",
        help="where to write a history that goes wrong, as a scenario (default: simulated-S-RUN.yaml here)",
    )  # fmt: skip
    simulate_.add_argument(
        "--json",
        metavar="FILE",
        help="write the counts and what went wrong to FILE, or to standard output for -",
    )
    simulate_.set_defaults(do=lambda arguments: code_of(run(arguments)), meant="simulated")


def run(arguments: argparse.Namespace) -> Verdict:
    """Simulate, print what came of it, and return the verdict."""
    quiet_logs()
    check_writable("--json", arguments.json)
    _check_out(arguments.out, arguments.json)
    draw = Draw(
        seed=secrets.randbelow(_MOST_SEED) if arguments.seed is None else arguments.seed,
        modes=tuple(MODES) if arguments.mode == "both" else (arguments.mode,),
        scenario=find_scenario(arguments.scenario) if arguments.scenario else None,
        without=tuple(protection for protection in Protection if protection in arguments.without),
        rules=load_settings().rules,
    )
    console = PlainConsole(stderr=arguments.json == "-")
    if draw.scenario is not None and draw.scenario.schedule is not None:
        _check_unused(
            arguments, "the scenario's schedule is one history", "seed", "only", "runs", "out", "json"
        )
        return _follow(console, draw, draw.scenario, [*map(parse_action, draw.scenario.schedule)])
    if arguments.only is not None:
        _check_unused(arguments, "--only shows one history", "runs", "out", "json")
        console.print(f"Run {arguments.only} of seed {draw.seed}.")
        return _show(console, [history_of(draw, arguments.only, mode) for mode in draw.modes])
    runs = arguments.runs or _RUNS
    console.print(_heading(draw, runs, arguments.workers))
    begun = monotonic()
    with progress_bar() as progress:
        task = progress.add_task("histories", total=runs * len(draw.modes))
        tally = simulate(draw, runs, arguments.workers, lambda done: progress.update(task, completed=done))
    document = simulation_document(draw, tally, monotonic() - begun, arguments.workers)
    write_document("--json", arguments.json, document)
    _report(console, document, tally)
    if tally.failures:
        _explain(console, draw, tally.failures[0], arguments.out)
    return document.verdict


def _check_out(out: str | None, json: str | None) -> None:
    """Say before a run that nobody will find, or be able to use, what is written.

    Raises:
        ConfigurationError: so it is.
    """
    check_writable("--out", out)
    if out is not None and not out.endswith(SUFFIXES):
        message = f"--out {out}: the name of a scenario file ends in {' or '.join(SUFFIXES)}."
        raise ConfigurationError(message)
    if out is not None and json is not None and Path(out).resolve() == Path(json).resolve():
        message = f"--out and --json are both {out}; give each a file of its own."
        raise ConfigurationError(message)


def _check_unused(arguments: argparse.Namespace, why: str, *options: str) -> None:
    for option in options:
        if getattr(arguments, option) is not None:
            message = f"--{option} has no use here, for {why}; leave it out."
            raise ConfigurationError(message)


def _heading(draw: Draw, runs: int, workers: int) -> str:
    what = f"{_what_of(draw.scenario)} of {draw.scenario.name}" if draw.scenario else "drawn orders"
    where = "in each mode" if len(draw.modes) > 1 else draw.modes[0]
    each = f"{runs:,} {_plural('history', runs)} {where}"
    what += told_without(draw.without)
    return f"Seed {draw.seed}: {each}, {what}, {workers} {_plural('worker', workers)}."


def _plural(noun: str, number: int) -> str:
    """The noun for so many."""
    if number == 1:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def _what_of(scenario: Scenario) -> str:
    return "orders and faults" if scenario.faults else "orders"


def _report(console: Console, document: SimulationDocument, tally: Tally) -> None:
    modes = document.modes
    table = Table("orders", *modes, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for status, reason in sorted({(status, reason) for _, status, reason in tally.ends}):
        counts = (tally.ends[mode, status, reason] for mode in modes)
        table.add_row(f"{status} ({reason})" if reason else status, *(f"{count:,}" for count in counts))
    console.print(table)
    mishaps = ", ".join(f"{count:,} x {kind}" for kind, count in sorted(document.mishaps.items()))
    console.print(f"What went wrong on the way: {mishaps or 'nothing'}.")
    if tally.failures:
        console.print("It has stopped at the first that goes wrong, once those begun with it were over.")
    console.print(
        f"{document.histories:,} histories of {document.actions:,} actions, {document.end_states:,} distinct "
        f"ends, {document.seconds:.1f} s: {document.histories_per_minute:,.0f} histories a minute."
    )
    console.print(f"Digest of every step of each: {document.digest}")
    console.print("Verdict: ", Pen(console).badge(document.verdict), sep="")


def _explain(console: Console, draw: Draw, failure: Failure, out: str | None) -> None:
    """Show the smallest history that goes wrong in the same way, and write it down."""
    found = history_of(draw, failure.run, failure.mode)
    orders = len(found.recording.orders)
    console.print(
        f"Run {failure.run} of seed {draw.seed} goes wrong, {failure.mode}: {', '.join(failure.anomalies)}. "
        f"It has {len(found.actions)} actions and {orders} {_plural('order', orders)}; looking for less."
    )
    with progress_bar() as progress:
        task = progress.add_task("smaller histories tried", total=None)
        smallest, schedule = shrink(
            world_of(failure.mode, draw.without), found, lambda tries: progress.update(task, completed=tries)
        )
    _show(console, _scheduled(draw, smallest.scenario, schedule), failure.mode)
    tell_schedule(console, smallest, schedule)
    file = Path(out or f"simulated-{draw.seed}-{failure.run}.yaml")
    harm = ", ".join(sorted(smallest.anomalies))
    description = f"{harm}: {failure.mode}{told_without(draw.without)}. Seed {draw.seed}, run {failure.run}."
    should, *others = _should_be(draw, smallest, schedule)
    scenario = as_scenario(replace(should, actions=schedule), file.stem, description, others)
    replaced = " in place of what was there" if file.exists() else ""
    writing(str(file), lambda: write_scenario(scenario, file))
    console.print(f"Written to {file}{replaced}; to see it once more:")
    console.print(shlex.join(_again(file, draw)), soft_wrap=True)


def _again(file: Path, draw: Draw) -> list[str]:
    """The command that follows the schedule in a file."""
    command = ["python", "-m", "compare", "simulate", "--scenario", str(file)]
    return command + [part for protection in draw.without for part in ("--without", str(protection))]


def _should_be(draw: Draw, smallest: History, schedule: Sequence[Action]) -> list[History]:
    """How the orders should have ended, its own mode first: with all protections, or else in peace.

    What only depends on who is first is left to its turn, as a replay on a real broker leaves it.
    """
    mishaps = [action for action in schedule if action.kind is not None and not action.beside]
    whole = replace(draw, without=())
    histories = _scheduled(whole, smallest.scenario, mishaps)
    if any(history.anomalies for history in histories):
        histories = _scheduled(whole, smallest.scenario, ())
    return sorted(histories, key=lambda history: history.mode != smallest.mode)


def tell_schedule(console: Console, history: History, schedule: Sequence[Action]) -> None:
    """Say what makes a history what it is, and what is wrong with it."""
    console.print(f"The smallest such history, {history.mode}; all else happens in its turn:")
    for fault in history.scenario.faults:
        console.print(f"  ({fault.fault} of the scenario's own, wherever it strikes)")
    for action in schedule or ("(nothing out of the ordinary)",):
        console.print(f"  {action}")
    for text in history.faults:
        console.print(f"  so {text}", soft_wrap=True)


def _scheduled(draw: Draw, scenario: Scenario, schedule: Sequence[Action]) -> list[History]:
    """What comes of a schedule, in each mode."""
    return _driven(draw, scenario, {mode: Schedule(schedule) for mode in draw.modes})


def _driven(draw: Draw, scenario: Scenario, policies: Mapping[str, Schedule]) -> list[History]:
    """What comes of a policy for each mode."""
    plan = simulated_plan(scenario, draw.rules)
    return [drive(world_of(mode, draw.without), plan, policy) for mode, policy in policies.items()]


def _follow(console: Console, draw: Draw, scenario: Scenario, schedule: Sequence[Action]) -> Verdict:
    """Show what comes of a schedule, and which of it could not come about."""
    policies = {mode: Schedule(schedule) for mode in draw.modes}
    verdict = _show(console, _driven(draw, scenario, policies))
    for mode, policy in policies.items():
        if policy.left_out:
            console.print(f"In the schedule, but could not come about, {mode}:")
        for action in policy.left_out:
            console.print(f"  {action}")
    return verdict


def _show(console: Console, histories: Sequence[History], only: str | None = None) -> Verdict:
    """Show histories side by side, and what happened in each, or in one mode `only`."""
    results = tuple(_result(history) for history in histories)
    verdict = verdict_of(result.verdict for result in results)
    scenario = histories[0].scenario.document()
    Report(console).every_order(ScenarioResult(scenario=scenario, verdict=verdict, modes=results))
    for history in histories:
        if only in {None, history.mode}:
            console.print(f"What happened, {history.mode}:")
            for action in history.actions:
                console.print(f"  {action}")
            for text in history.faults if only is None else ():
                console.print(f"  so {text}", soft_wrap=True)
    return verdict


def _result(history: History) -> ModeResult:
    return ModeResult(
        mode=history.mode,
        verdict=Verdict.INVALID if history.anomalies else Verdict.VALID,
        metrics=measure(history.recording),
        findings=history.findings,
        recording=history.recording,
    )
