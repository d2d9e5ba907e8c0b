"""The picture: one colour for each subject, a marker for each quantile, and what it was measured on."""

from __future__ import annotations

from typing import Final

import pytest
from matplotlib.colors import to_rgba
from matplotlib.container import BarContainer

from compare.bench.document import Run
from compare.bench.plot import draw
from compare.bench.relay import relay_of
from compare.bench.spec import INVALID
from tests.bench.measured import PACED, document, run

SUBJECTS: Final = ("orchestrated", relay_of("orchestrated"), "choreographed", relay_of("choreographed"))
DOCUMENT: Final = document(
    *(run(subject) for subject in SUBJECTS), *(run(subject, phase=PACED) for subject in SUBJECTS)
)


def test_a_subject_has_one_colour_in_all_panels() -> None:
    """Whoever has found it in one finds it in the others."""
    throughput, latency, cost = draw(DOCUMENT).axes
    bars = []
    for axes in (throughput, cost):
        (container,) = (one for one in axes.containers if isinstance(one, BarContainer))
        bars.append([bar.get_facecolor() for bar in container])
    lines = [to_rgba(line.get_color()) for line in latency.lines if str(line.get_label()).endswith("p50")]
    assert bars[0] == bars[1] == lines
    assert len(set(lines)) == len(SUBJECTS)


def test_a_single_rate_is_told_by_markers() -> None:
    """A line has no length there, and so no kind."""
    latency = draw(DOCUMENT).axes[1]
    markers = {str(line.get_label()).split(", ")[-1]: line.get_marker() for line in latency.lines}
    assert markers == {"p50": "o", "p99": "^", "saturated": "x"}
    assert list(latency.get_xticks()) == [100]


def test_where_all_keep_up_nothing_is_saturated() -> None:
    """The rate is a tenth of what the closed loop does."""
    latency = draw(document(run(seconds=0.1), run(phase=PACED))).axes[1]
    assert [line.get_label() for line in latency.lines] == ["orchestrated, p50", "orchestrated, p99"]


def test_titles_say_the_load_and_the_figure() -> None:
    """In the same words for all loops."""
    assert [axes.get_title() for axes in draw(DOCUMENT).axes] == [
        "closed loop, 10 under way:\nsagas/s",
        "open loop, by orders/s:\nlatency, ms",
        "closed loop, 10 under way:\nCPU us/saga",
    ]


@pytest.mark.parametrize("more", [(), (run(phase=PACED, verdict=INVALID),)], ids=["none", "an invalid one"])
def test_without_latencies_there_is_no_panel_for_them(more: tuple[Run, ...]) -> None:
    """It would be empty."""
    titles = [axes.get_title() for axes in draw(document(run(), *more)).axes]
    assert titles == ["closed loop, 10 under way:\nsagas/s", "closed loop, 10 under way:\nCPU us/saga"]


def test_machine_and_time_are_in_it() -> None:
    """A picture is passed on without what was printed."""
    title = draw(DOCUMENT).get_suptitle()
    assert "a processor" in title
    assert "2026-01-02T03:04:05Z" in title
