"""The figures of the modes side by side; what has to do with faults only where there is some of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from compare.metrics import Durations
from compare.result import ModeResult

Show = Callable[[ModeResult], str]


def figures(modes: Sequence[ModeResult]) -> Iterator[tuple[str, ...]]:
    """A label, and what to show for each mode."""
    for label, show in _ALWAYS:
        yield label, *map(show, modes)
    faults = any(mode.recording.strikes for mode in modes)
    for label, show in _WITH_FAULTS if faults else _IF_ANY:
        cells = [show(mode) for mode in modes]
        if any(cell != _NOTHING for cell in cells):
            yield label, *cells


def remarks(modes: Sequence[ModeResult]) -> Iterator[str]:
    """What has to be said about a mode's faults."""
    for mode in modes:
        for text in mode.recording.not_applicable:
            yield f"{mode.mode}: {text}"


_NOTHING: Final = "-"


def _count(count: int) -> str:
    return f"{count:,}" if count else _NOTHING


def _duration(durations: Durations | None) -> str:
    if durations is None:
        return "-"
    if durations.orders == 1:
        return f"{durations.median_ms:.1f} ms"
    return f"{durations.median_ms:.1f} ms, at most {durations.longest_ms:.1f}"


def _outcome(mode: ModeResult) -> str:
    metrics = mode.metrics
    counts = {
        "completed": metrics.completed,
        "failed": metrics.failed,
        "compensation failed": metrics.compensation_failed,
        "pending": metrics.pending,
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _struck(mode: ModeResult) -> str:
    struck = (f"{times} {kind.replace('_', ' ')}" for kind, times in mode.metrics.struck.items())
    return ", ".join(struck) or _NOTHING


def _recovered(mode: ModeResult) -> str:
    took = mode.metrics.to_recover_ms
    return _NOTHING if took is None else f"{took:.1f} ms"


def _deadlines(mode: ModeResult) -> str:
    passed = mode.metrics.overdue + mode.metrics.timed_out
    return f"{passed} ({mode.metrics.timed_out} for the last time)" if passed else _NOTHING


_ALWAYS: Final[tuple[tuple[str, Show], ...]] = (
    ("outcome", _outcome),
    ("records", lambda mode: str(mode.metrics.records)),
    ("  commands", lambda mode: str(mode.metrics.commands)),
    ("  events", lambda mode: str(mode.metrics.events)),
    ("  compensating", lambda mode: str(mode.metrics.compensations)),
    (
        "  delivered again",
        lambda mode: f"{mode.metrics.repeated} ({mode.metrics.duplicates_removed} dropped)",
    ),
    ("topics", lambda mode: str(mode.metrics.topics)),
    ("hops to the end", lambda mode: str(mode.metrics.hops)),
    ("bytes", lambda mode: f"{mode.metrics.size:,}"),
    ("time to the end (median)", lambda mode: _duration(mode.metrics.to_end)),
    ("time to compensated", lambda mode: _duration(mode.metrics.to_compensated)),
)
_IF_ANY: Final[tuple[tuple[str, Show], ...]] = (
    ("retries", lambda mode: _count(mode.metrics.retries)),
    ("deadlines passed", _deadlines),
    ("  asked again", lambda mode: _count(mode.metrics.asked_again)),
    ("dead letters", lambda mode: _count(mode.metrics.dead_letters)),
    ("late messages", lambda mode: _count(mode.metrics.late)),
    ("unexpected messages", lambda mode: _count(mode.metrics.unexpected)),
)
_WITH_FAULTS: Final[tuple[tuple[str, Show], ...]] = (
    ("faults that struck", _struck),
    ("time to recover", _recovered),
    ("duplicates removed", lambda mode: _count(mode.metrics.duplicates_removed)),
    *_IF_ANY,
)
