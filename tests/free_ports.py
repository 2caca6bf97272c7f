"""Ports for servers that cannot be told to take any free one."""

from __future__ import annotations

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has.

    None of those that the system gives to outgoing connections: one could have it before the server starts. Nor of a
    lab cluster's services, from 30000 on.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
