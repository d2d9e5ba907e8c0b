"""The figures: what is told of each subject and phase over all repeats.

They are also given as multiples, of the raw relay's and of the other mode's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf
from typing import Final

from compare.bench.confidence import estimate
from compare.bench.document import Figure, Interval, Ratio, Run
from compare.bench.spec import IDLE, LEFT_OUT, NOT_ENDED, VALID, Measured, Quantile, Quantiles
from compare.bench.subjects import limit_of
from compare.lab import MODES

Value = Callable[[Measured], float | None]
"""Of one measurement; infinite for what was not over, None for what isn't there."""
Repeats = Mapping[int, Measured]
"""What came of one subject in one phase, by repeat."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something to be told of a phase."""

    name: str
    unit: str
    value: Value
    only: Callable[[Measured], bool] = lambda _: True
    """Of which phases it is told."""
    compared: bool = True
    """Whether it says something to have it as a multiple of another subject's."""


def figures(runs: Sequence[Run]) -> tuple[Figure, ...]:
    """All figures; none of a subject and phase of which one run has failed, for the rest would flatter."""
    sound = _sound(runs)
    return tuple(
        figure
        for (subject, phase), measured in sound.items()
        for figure in _figures(subject, phase, measured, sound.get((limit_of(subject) or "", phase), {}))
    )


def ratios(runs: Sequence[Run]) -> tuple[Ratio, ...]:
    """What the one mode's figures are of the other's, as far as both have them."""
    sound = _sound(runs)
    base, subject = MODES
    return tuple(
        Ratio(subject=subject, base=base, phase=phase, metric=metric.name, value=found)
        for one, phase in sound
        if one == subject
        for metric in METRICS
        if (found := _multiple(metric, sound[one, phase], sound.get((base, phase), {}))) is not None
    )


def _sound(runs: Sequence[Run]) -> dict[tuple[str, str], Repeats]:
    """By subject and phase; those of which all repeats are valid."""
    by_place: dict[tuple[str, str], dict[int, Measured]] = defaultdict(dict)
    for run in runs:
        by_place[run.subject, run.measured.phase.name][run.repeat] = run.measured
    return {
        place: repeats
        for place, repeats in by_place.items()
        if all(one.verdict == VALID for one in repeats.values())
    }


def faults(runs: Sequence[Run]) -> Iterator[tuple[str, str, str]]:
    """Subject, phase, and why there are no figures of it."""
    for run in runs:
        if run.measured.verdict not in {VALID, LEFT_OUT}:
            why = "; ".join(run.measured.faults)
            yield run.subject, run.measured.phase.name, f"repeat {run.repeat}: {why}"


def _figures(subject: str, phase: str, measured: Repeats, limit: Repeats) -> Iterator[Figure]:
    for metric in METRICS:
        if (values := _values(metric, measured)) is None:
            continue
        yield Figure(
            subject=subject,
            phase=phase,
            metric=metric.name,
            unit=metric.unit,
            value=_interval(list(values.values())),
            share_of_limit=_multiple(metric, measured, limit),
        )


def _values(metric: Metric, measured: Repeats) -> dict[int, float] | None:
    """By repeat; None if one has none."""
    values = {
        repeat: value
        for repeat, one in measured.items()
        if metric.only(one) and (value := metric.value(one)) is not None
    }
    return values if values and len(values) == len(measured) else None


def _multiple(metric: Metric, measured: Repeats, base: Repeats) -> Interval | None:
    """What the one is of the other, repeat by repeat: whatever the machine did meanwhile, it did to both.

    None where in some repeat one of them has no value, or was not over, or there is nothing to divide by.
    """
    values, bases = _values(metric, measured), _values(metric, base)
    if not metric.compared or values is None or bases is None or values.keys() != bases.keys():
        return None
    if not all(bases.values()) or any(map(isinf, (*values.values(), *bases.values()))):
        return None
    return _interval([value / bases[repeat] for repeat, value in values.items()])


def _interval(values: Sequence[float]) -> Interval:
    found = estimate(values)
    return Interval(
        repeats=len(values),
        median=_told(found.median),
        low=None if found.low is None else _told(found.low),
        high=None if found.high is None else _told(found.high),
        confidence=found.confidence,
    )


def _told(value: float) -> Quantile:
    return NOT_ENDED if isinf(value) else value


def _per_saga(total: Callable[[Measured], float | None]) -> Value:
    def value(one: Measured) -> float | None:
        spent = total(one)
        return None if spent is None or not one.placed else spent / one.placed

    return value


def _quantile(of: Callable[[Measured], Quantiles | None], name: str) -> Value:
    def value(one: Measured) -> float | None:
        found = of(one)
        quantile: Quantile = None if found is None else getattr(found, name)
        return inf if quantile == NOT_ENDED else quantile

    return value


def _is_open(one: Measured) -> bool:
    return one.phase.rate is not None


def _is_closed(one: Measured) -> bool:
    """Whatever its concurrency: what it sustains is asked, be it of one order at a time."""
    return not _is_paced(one)


def _is_paced(one: Measured) -> bool:
    return _is_open(one) or one.phase.name == IDLE


def _ended_per_second(one: Measured) -> float:
    """None at all is a figure here."""
    return one.per_second or 0.0


def _unended_share(one: Measured) -> float:
    return one.unended / max(1, one.placed)


METRICS: Final = (
    Metric("throughput", "sagas/s", lambda one: one.per_second, _is_closed),
    Metric("cpu", "s/saga", _per_saga(lambda one: one.cpu_s)),
    Metric("broker cpu", "s/saga", _per_saga(lambda one: one.broker_cpu_s), _is_closed),
    Metric("records", "1/saga", _per_saga(lambda one: one.records), _is_closed),
    Metric("hops", "1/saga", _per_saga(lambda one: one.hops), _is_closed),
    Metric("bytes", "1/saga", _per_saga(lambda one: one.bytes), _is_closed),
    Metric("commits", "1/saga", _per_saga(lambda one: one.commits), _is_closed),
    Metric("memory", "bytes", lambda one: one.memory, _is_closed),
    *(
        Metric(f"latency {name}", "s", _quantile(lambda one: one.latency, name), _is_paced)
        for name in ("p50", "p90", "p99", "p999")
    ),
    *(
        Metric(f"compensated {name}", "s", _quantile(lambda one: one.compensated, name), _is_open)
        for name in ("p50", "p99")
    ),
    Metric("ended", "sagas/s", _ended_per_second, _is_open, compared=False),
    Metric("not ended", "share", _unended_share, _is_open, compared=False),
)
"""All that is told, in the order in which it is."""
