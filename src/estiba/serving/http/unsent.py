"""The bytes of a response that a client has not acknowledged yet."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Response bytes that the client has not acknowledged, in this process and in the kernel; closing could lose them.

    RFC 9112, section 9.6: a server closes when it is reasonably certain that the client has received the last response.
    """
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is None:
        return waiting
    with contextlib.suppress(OSError, ValueError):  # closed already, or not supported by this system
        waiting += struct.unpack("=i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return waiting
