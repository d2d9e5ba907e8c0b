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
        try:
            found = ", ".join(f"{one} {version}" for one, version in peer.versions().items())
        except ConfigurationError as error:
            told = str(error)
        else:
            told = peer.unfit(with_server=with_server) or found
        print(f"{name:<16} {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
