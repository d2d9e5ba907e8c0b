"""How far a benchmark is: a bar at a terminal, and elsewhere a line for each measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from compare.bench.campaign import STARTING, Plan, Told
from compare.console import PlainConsole
from compare.progress import progress_bar


@contextmanager
def telling() -> Iterator[Callable[[Plan], Told]]:
    """What is to be told of the measurements of a plan, on standard error."""
    with progress_bar() as bar:
        task = bar.add_task(STARTING)

        def on_the_bar(subject: str, repeat: int, phase: str, ended: int, orders: int) -> None:
            bar.update(task, description=f"{repeat}: {subject}, {phase}", completed=ended, total=orders)

        yield in_lines if bar.disable else lambda _: on_the_bar


def in_lines(plan: Plan) -> Told:
    """One line when a measurement begins: seldom enough for a log."""
    console = PlainConsole(stderr=True)
    phases = ", ".join(phase.name for phase in plan.phases)

    def told(subject: str, repeat: int, phase: str, *_: int) -> None:
        if phase == STARTING:
            console.print(f"repeat {repeat} of {plan.repeats}: {subject} ({phases})", soft_wrap=True)

    return told
