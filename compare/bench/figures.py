"""The figures: what is told of each subject and phase over all repeats, and as a share of the raw relay's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf
from typing import Final

from compare.bench.confidence import estimate
from compare.bench.document import Figure, Interval, Run
from compare.bench.spec import LEFT_OUT, NOT_ENDED, VALID, Measured, Quantile, Quantiles
from compare.bench.subjects import limit_of

Value = Callable[[Measured], float | None]
"""Of one measurement; infinite for what was not over, None for what isn't there."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something to be told of a phase."""

    name: str
    unit: str
    value: Value
    only: Callable[[Measured], bool] = lambda _: True
    """Of which phases it is told."""


def figures(runs: Sequence[Run]) -> tuple[Figure, ...]:
    """All figures; none of a subject and phase of which one run has failed, for the rest would flatter."""
    by_place: dict[tuple[str, str], dict[int, Measured]] = defaultdict(dict)
    for run in runs:
        by_place[run.subject, run.measured.phase.name][run.repeat] = run.measured
    return tuple(
        figure
        for (subject, phase), measured in list(by_place.items())
        if all(one.verdict == VALID for one in measured.values())
        for figure in _figures(subject, phase, measured, _sound(by_place[limit_of(subject) or "", phase]))
    )


def _sound(measured: Mapping[int, Measured]) -> dict[int, Measured]:
    return {repeat: one for repeat, one in measured.items() if one.verdict == VALID}


def faults(runs: Sequence[Run]) -> Iterator[tuple[str, str, str]]:
    """Subject, phase, and why there are no figures of it."""
    for run in runs:
        if run.measured.verdict not in {VALID, LEFT_OUT}:
            why = "; ".join(run.measured.faults)
            yield run.subject, run.measured.phase.name, f"repeat {run.repeat}: {why}"


def _figures(
    subject: str, phase: str, measured: Mapping[int, Measured], limit: Mapping[int, Measured]
) -> Iterator[Figure]:
    first = next(iter(measured.values()))
    for metric in METRICS:
        if not metric.only(first):
            continue
        values = {
            repeat: value for repeat, one in measured.items() if (value := metric.value(one)) is not None
        }
        if len(values) != len(measured):
            continue
        shares = [
            share
            for repeat, value in values.items()
            if repeat in limit and (share := _share(value, metric.value(limit[repeat]))) is not None
        ]
        yield Figure(
            subject=subject,
            phase=phase,
            metric=metric.name,
            unit=metric.unit,
            value=_interval(list(values.values())),
            share_of_limit=_interval(shares) if len(shares) == len(values) else None,
        )


def _share(value: float, limit: float | None) -> float | None:
    """None where the one or the other was not over, or there is no limit."""
    return None if not limit or isinf(limit) or isinf(value) else value / limit


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


def _is_crowded(one: Measured) -> bool:
    return one.phase.concurrency is not None and one.phase.concurrency > 1


def _is_paced(one: Measured) -> bool:
    return not _is_crowded(one)


def _unended_share(one: Measured) -> float:
    return one.unended / max(1, one.placed)


METRICS: Final = (
    Metric("throughput", "sagas/s", lambda one: one.per_second, _is_crowded),
    Metric("cpu", "s/saga", _per_saga(lambda one: one.cpu_s)),
    Metric("broker cpu", "s/saga", _per_saga(lambda one: one.broker_cpu_s), _is_crowded),
    Metric("records", "1/saga", _per_saga(lambda one: one.records), _is_crowded),
    Metric("bytes", "1/saga", _per_saga(lambda one: one.bytes), _is_crowded),
    Metric("commits", "1/saga", _per_saga(lambda one: one.commits), _is_crowded),
    Metric("memory", "bytes", lambda one: one.memory, _is_crowded),
    *(
        Metric(f"latency {name}", "s", _quantile(lambda one: one.latency, name), _is_paced)
        for name in ("p50", "p90", "p99", "p999")
    ),
    *(
        Metric(f"compensated {name}", "s", _quantile(lambda one: one.compensated, name), _is_open)
        for name in ("p50", "p99")
    ),
    Metric("not ended", "share", _unended_share, _is_open),
)
"""All that is told, in the order in which it is."""
