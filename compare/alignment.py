"""Laying two traces side by side, so that what one mode does and the other doesn't is a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from common.messages import Step
from compare.recording import TraceRecord


@dataclass(frozen=True, slots=True)
class Pair:
    """A row: the same thing in both modes, or something that only one of them does."""

    left: TraceRecord | None
    right: TraceRecord | None

    @property
    def step(self) -> Step:
        """The domain step that the row belongs to."""
        record = self.left or self.right
        if record is None:
            message = "a pair has at least one record"
            raise ValueError(message)
        return record.step


def align(left: Sequence[TraceRecord], right: Sequence[TraceRecord]) -> list[Pair]:
    """Pair the records of one order in two modes, keeping the order of each."""
    matcher = SequenceMatcher(None, [_key(one) for one in left], [_key(one) for one in right], autojunk=False)
    pairs: list[Pair] = []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind == "equal":
            pairs += map(Pair, left[i1:i2], right[j1:j2])
        else:
            pairs += [Pair(one, None) for one in left[i1:i2]]
            pairs += [Pair(None, one) for one in right[j1:j2]]
    return pairs


def _key(record: TraceRecord) -> tuple[Step, str, bool]:
    """What makes two records the same thing: they say the same, or they are what the order begins with."""
    return record.step, "" if record.step is Step.PLACE else record.type, record.duplicate
