"""What a check is given, and what it gives back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from compare.checks.databases import account_of_databases
from compare.checks.records import account_of_records
from compare.checks.standing import Account
from compare.recording import Recording, TraceRecord
from compare.scenario import Scenario


@dataclass(frozen=True)
class Case:
    """A scenario, and what came of it in one mode."""

    scenario: Scenario
    recording: Recording

    @cached_property
    def by_order(self) -> Mapping[str, Sequence[TraceRecord]]:
        """The records of each order that has some, in the order of the story."""
        found: dict[str, list[TraceRecord]] = defaultdict(list)
        for record in self.recording.trace:
            found[record.order_id].append(record)
        return found

    @cached_property
    def databases(self) -> Account:
        """What the databases say."""
        return account_of_databases(self.scenario, self.recording)

    @cached_property
    def records(self) -> Account:
        """What the records say."""
        return account_of_records(self.scenario, self.recording)

    @property
    def accounts(self) -> tuple[Account, Account]:
        """Both, for what either must show by itself."""
        return self.databases, self.records


class Fault(NamedTuple):
    """What is wrong, and the ids of the orders that it is about.

    What is about none of them brings its own evidence: what, and where it is.
    """

    text: str
    orders: tuple[str, ...] = ()
    evidence: tuple[tuple[str, str], ...] = ()


Finder = Callable[[Case], Iterator[Fault]]


@dataclass(frozen=True)
class Check:
    """A rule, and how its breaches are found."""

    name: str
    lasting: Finder | None = None
    """Finds what no time could mend."""
    pending: Finder | None = None
    """Finds what might yet come right, and is wrong only when all is over."""
    whole_path: bool = False
    """Whether a breach is that something is missing: then all that led there is its history."""
