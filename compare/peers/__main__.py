"""`python -m compare.peers`: which peers can be measured on this machine, and what the others lack."""

from __future__ import annotations

import sys

from common.command_line import EX_USAGE
from common.errors import ConfigurationError
from common.settings import load_settings
from compare.peers import PEERS


def main() -> int:
    """Print a line for each peer; returns the exit code."""
    try:
        with_server = load_settings().database_server is not None
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EX_USAGE
    for name, peer in PEERS.items():
        why_not = peer.missing() or peer.unfit(with_server=with_server)
        found = "" if why_not else ", ".join(f"{one} {version}" for one, version in peer.versions().items())
        print(f"{name:<16} {why_not or found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
