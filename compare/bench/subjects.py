"""All subjects by name."""

from __future__ import annotations

from typing import Final

from common.domain.decision import Rules
from compare.bench.modes import ModeSubject
from compare.bench.parts import Ground
from compare.bench.relay import RelaySubject, relay_of
from compare.bench.spec import Hops, Spec
from compare.bench.subject import Subject
from compare.bench.templates import hops
from compare.lab import MODES
from compare.peers import PEERS, make_peer

RELAYS: Final = {relay_of(name): mode for name, mode in MODES.items()}
"""By name: whose records each raw relay moves."""


def limit_of(subject: str) -> str | None:
    """The raw relay that moves the records of a subject; None for what has none."""
    return relay_of(subject) if subject in MODES else None


def topics_of(subject: str) -> list[str]:
    """The topics that a subject needs, without prefix."""
    if subject in PEERS:
        return sorted(PEERS[subject].topics)
    return (MODES.get(subject) or RELAYS[subject]).all_topics


def hops_of(subject: str) -> Hops | None:
    """How far it is to the end of an order; None for a peer, of whose records nothing is known.

    Raises:
        SQLAlchemyError: SQLite can't be used.
    """
    mode = MODES.get(subject) or RELAYS.get(subject)
    return None if mode is None else hops(mode)


def make_subject(spec: Spec) -> Subject:
    """The subject that a measurement is about, not started.

    Raises:
        LabError: it is a peer whose framework isn't installed; the text says how to mend it.
    """
    ground = Ground(conditions=spec.conditions, run=spec.run, folder=spec.folder, load=spec.load)
    if spec.subject in MODES:
        return ModeSubject(MODES[spec.subject], ground)
    if spec.subject in RELAYS:
        return RelaySubject(RELAYS[spec.subject], ground)
    return _peer(spec)


def _peer(spec: Spec) -> Subject:
    # Only now: whoever measures a mode need not load what peers have in common.
    from compare.peers.peer import Terms  # noqa: PLC0415

    conditions = spec.conditions
    terms = Terms(
        folder=spec.folder,
        stock=spec.load.stock,
        rules=Rules(),
        synchronous=conditions.durability,
        server=conditions.server,
        run=spec.run,
        bootstrap=conditions.bootstrap_servers,
        fetch_max_wait_ms=conditions.fetch_max_wait_ms,
    )
    return make_peer(spec.subject, terms)
