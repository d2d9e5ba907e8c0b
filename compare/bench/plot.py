"""The figures as a picture: throughput, latency by load, and what a saga costs. It needs the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from common.errors import ConfigurationError
from compare.bench.document import BenchDocument, Figure, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS: Final = (".png", ".svg", ".pdf")
_QUANTILES: Final = {"latency p50": "-", "latency p99": "--"}
_INCHES: Final = (16.0, 5.5)


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
    # Without `pyplot`, which would look for a screen.
    from matplotlib.figure import Figure as Picture  # noqa: PLC0415 - an extra

    picture = Picture(figsize=_INCHES, layout="constrained")
    throughput, latency, cost = picture.subplots(1, 3)
    _bars(throughput, document, "throughput", 1.0)
    throughput.set_title("closed loop: sagas/s")
    _curves(latency, document)
    latency.set_title("latency by load (- p50, -- p99)")
    _bars(cost, document, "cpu", 1e6)
    cost.set_title("CPU microseconds per saga")
    picture.savefig(target)


def _bars(axes: Axes, document: BenchDocument, metric: str, scale: float) -> None:
    """One bar for each subject and closed loop, with its interval."""
    crowded = {one.phase for one in document.figures if one.metric == "throughput"}
    found = [one for one in document.figures if one.metric == metric and one.phase in crowded]
    phases = {one.phase for one in found}
    labels = [one.subject if len(phases) == 1 else f"{one.subject}, {one.phase}" for one in found]
    heights = [scale * (_number(one.value.median) or 0.0) for one in found]
    axes.barh(labels, heights, xerr=_errors(found, scale), capsize=3)
    axes.invert_yaxis()


def _errors(found: Sequence[Figure], scale: float) -> list[list[float]]:
    below, above = [], []
    for one in found:
        low, middle, high = _interval(one.value)
        below.append(scale * (middle - low))
        above.append(scale * (high - middle))
    return [below, above]


def _curves(axes: Axes, document: BenchDocument) -> None:
    """Latency over the rate of orders, of each subject; where orders did not end, the curve ends."""
    rates = {run.measured.phase.name: run.measured.phase.rate for run in document.runs}
    for number, subject in enumerate(dict.fromkeys(run.subject for run in document.runs)):
        for metric, style in _QUANTILES.items():
            points = [
                (rate, 1e3 * value)
                for one in document.figures
                if (one.subject, one.metric) == (subject, metric)
                and (rate := rates[one.phase]) is not None
                and (value := _number(one.value.median)) is not None
            ]
            if points:
                label = subject if style == "-" else None
                axes.plot(
                    *zip(*sorted(points), strict=True), style, marker="o", color=f"C{number}", label=label
                )
    axes.set_xlabel("orders/s")
    axes.set_ylabel("ms")
    axes.set_yscale("log")
    if axes.lines:
        axes.legend()


def _interval(value: Interval) -> tuple[float, float, float]:
    middle = _number(value.median) or 0.0
    low, high = _number(value.low), _number(value.high)
    return (middle if low is None else low), middle, (middle if high is None else high)


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None
