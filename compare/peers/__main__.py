"""`python -m compare.peers`: which peers can be measured on this machine, and what the others lack."""

from __future__ import annotations

from common.settings import load_settings
from compare.peers import PEERS


def main() -> None:
    """Print a line for each peer."""
    with_server = load_settings().database_server is not None
    for name, peer in PEERS.items():
        why_not = peer.missing() or peer.unfit(with_server=with_server)
        found = "" if why_not else ", ".join(f"{one} {version}" for one, version in peer.versions().items())
        print(f"{name:<16} {why_not or found}")


if __name__ == "__main__":
    main()
