"""Open the socket on which a server listens."""

from __future__ import annotations

import errno
import socket

from estiba.core import ports
from estiba.core.errors import EstibaError

BACKLOG_CONNECTIONS = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening, non-blocking socket; raises EstibaError where the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", 0) == errno.EADDRINUSE and (holder := ports.listening_process(port)):
            reason = f"{reason}, by {holder}"
        raise EstibaError(
            f"Cannot listen on {host}:{port}: {reason}.",
            hint="Stop the program that listens there, or choose another port with --port.",
        ) from error
    listener.listen(BACKLOG_CONNECTIONS)
    listener.setblocking(False)
    return listener
