"""TCP ports for HTTP, bound before anything else, so that a port that is taken is told at once."""

from __future__ import annotations

import errno
import socket
from typing import Final

from common.errors import ConfigurationError

_BACKLOG: Final = 128


def bind(host: str, port: int, mend: str) -> socket.socket:
    """A socket that listens, whose connections nobody accepts yet.

    Raises:
        ConfigurationError: the port is taken, or the address isn't this machine's; `mend` says what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"HTTP_HOST {host} can't be used: {error.strerror}") from error
    try:
        # Connections of an earlier run that are still being closed don't count.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        # At once, for two sockets may be bound to a port as long as neither listens. Early clients wait.
        found.listen(_BACKLOG)
    except OSError as error:
        found.close()
        if error.errno != errno.EADDRINUSE:
            raise ConfigurationError(f"port {port} on {host} can't be bound: {error.strerror}") from error
        raise ConfigurationError(f"port {port} on {host} is taken by another process; {mend}") from error
    return found
