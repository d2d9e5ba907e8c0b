"""`python -m compare.peers`: which peers can be measured on this machine, and what the others lack."""

from __future__ import annotations

from compare.peers import PEERS


def main() -> None:
    """Print a line for each peer."""
    for name, peer in PEERS.items():
        missing = peer.missing()
        found = (
            ", ".join(f"{one} {version}" for one, version in peer.versions().items()) if not missing else ""
        )
        print(f"{name:<16} {missing or found}")


if __name__ == "__main__":
    main()
