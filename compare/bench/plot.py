"""The figures as a picture: throughput, latency by load, and what a saga costs. It needs the extra `plot`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from common.errors import ConfigurationError
from compare.bench.document import BenchDocument, Figure, Interval
from compare.bench.report import about_machine
from compare.bench.saturation import pressure
from compare.bench.spec import IDLE, Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

_KINDS: Final = (".png", ".svg", ".pdf")
_QUANTILES: Final = {"latency p50": ("p50", "o", "-"), "latency p99": ("p99", "^", "--")}
"""By metric: its name, its marker, which a single rate is told by, and its line."""
_INCHES: Final = (16.0, 6.5)
_BELOW: Final = (0.5, -0.12)
"""Of a panel, in shares of its size."""


def check_plotting(target: str) -> None:
    """Say before the run, not after it, that it can't be drawn.

    Raises:
        ConfigurationError: the extra isn't installed, or the file's name ends in no kind of picture.
    """
    if Path(target).suffix not in _KINDS:
        message = f"--plot {target}: the name has to end with one of {', '.join(_KINDS)}."
        raise ConfigurationError(message)
    if find_spec("matplotlib") is None:
        raise ConfigurationError("--plot needs matplotlib: .venv/bin/pip install matplotlib.")


def plot(document: BenchDocument, target: Path) -> None:
    """Draw the figures of a document into a file."""
    draw(document).savefig(target)


def draw(document: BenchDocument) -> Picture:
    """The figures of a document as a picture; a subject has one colour in all of it."""
    # Without `pyplot`, which would look for a screen.
    from matplotlib.figure import Figure as Picture  # noqa: PLC0415 - an extra

    phases = {run.measured.phase.name: run.measured.phase for run in document.runs}
    subjects = dict.fromkeys(run.subject for run in document.runs)
    colours = {subject: f"C{number}" for number, subject in enumerate(subjects)}
    picture = Picture(figsize=_INCHES, layout="constrained")
    curves = {
        (subject, metric): points
        for subject in subjects
        for metric in _QUANTILES
        if (points := _points(document, phases, subject, metric))
    }
    throughput, *latency, cost = picture.subplots(1, 3 if curves else 2)
    _bars(throughput, document, "throughput", 1.0, colours)
    throughput.set_title(_closed(phases, "sagas/s"))
    for axes in latency:
        _curves(axes, curves, document, phases, colours)
        axes.set_title("open loop, by orders/s:\nlatency, ms")
    _bars(cost, document, "cpu", 1e6, colours)
    cost.set_title(_closed(phases, "CPU us/saga"))
    picture.suptitle(about_machine(document), fontsize="small")
    return picture


def _closed(phases: Mapping[str, Phase], what: str) -> str:
    under_way = {one.concurrency for one in phases.values() if one.rate is None and one.name != IDLE}
    return f"closed loop, {', '.join(f'{one:,}' for one in under_way if one)} under way:\n{what}"


def _bars(axes: Axes, document: BenchDocument, metric: str, scale: float, colours: Mapping[str, str]) -> None:
    """One bar for each subject and closed loop, with its interval."""
    closed = {one.phase for one in document.figures if one.metric == "throughput"}
    found = [one for one in document.figures if one.metric == metric and one.phase in closed]
    labels = [one.subject if len(closed) == 1 else f"{one.subject}, {one.phase}" for one in found]
    heights = [scale * (_number(one.value.median) or 0.0) for one in found]
    bars = [colours[one.subject] for one in found]
    axes.barh(labels, heights, xerr=_errors(found, scale), capsize=3, color=bars)
    axes.invert_yaxis()


def _errors(found: Sequence[Figure], scale: float) -> list[list[float]]:
    below, above = [], []
    for one in found:
        low, middle, high = _interval(one.value)
        below.append(scale * (middle - low))
        above.append(scale * (high - middle))
    return [below, above]


def _curves(
    axes: Axes,
    curves: Mapping[tuple[str, str], Sequence[tuple[float, float]]],
    document: BenchDocument,
    phases: Mapping[str, Phase],
    colours: Mapping[str, str],
) -> None:
    """Latency over the rate of orders, of each subject; where orders did not end, the curve ends."""
    for (subject, metric), points in curves.items():
        name, marker, line = _QUANTILES[metric]
        axes.plot(
            *zip(*points, strict=True),
            line,
            marker=marker,
            color=colours[subject],
            label=f"{subject}, {name}",
        )
    if queued := _queued(document, phases, colours):
        axes.plot(*zip(*queued, strict=True), "x", color="black", label="saturated")
    axes.set_xlabel("orders/s")
    axes.set_yscale("log")
    axes.set_xticks(sorted({phase.rate for phase in phases.values() if phase.rate is not None}))
    axes.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=_BELOW)


def _queued(
    document: BenchDocument, phases: Mapping[str, Phase], subjects: Iterable[str]
) -> list[tuple[float, float]]:
    """Those of the points that are of a queue, and no latency of a system that keeps up."""
    return [
        point
        for subject in subjects
        for phase in phases.values()
        if (under := pressure(document, phase, subject)) is not None and under.saturated
        for metric in _QUANTILES
        for point in _points(document, {phase.name: phase}, subject, metric)
    ]


def _points(
    document: BenchDocument, phases: Mapping[str, Phase], subject: str, metric: str
) -> list[tuple[float, float]]:
    """Rates, and milliseconds."""
    return sorted(
        (rate, 1e3 * value)
        for one in document.figures
        if (one.subject, one.metric) == (subject, metric)
        and (phase := phases.get(one.phase)) is not None
        and (rate := phase.rate) is not None
        and (value := _number(one.value.median)) is not None
    )


def _interval(value: Interval) -> tuple[float, float, float]:
    middle = _number(value.median) or 0.0
    low, high = _number(value.low), _number(value.high)
    return (middle if low is None else low), middle, (middle if high is None else high)


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None
