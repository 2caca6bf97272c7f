"""Open the socket on which a server listens."""

from __future__ import annotations

import contextlib
import errno
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from estiba.core import ports
from estiba.core.errors import EstibaError

BACKLOG_CONNECTIONS = 2048

UNIX_MODE = 0o660
"""Of a Unix socket: its user and group may connect."""


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


@contextlib.contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """A listening, non-blocking Unix socket, whose file is removed with the block.

    Raises:
        EstibaError: somebody listens there, the file is no socket, or it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        path.chmod(UNIX_MODE)  # before it listens, so that nobody connects by a wider mode
        identity = path.stat().st_ino
        listener.listen(BACKLOG_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise EstibaError(
            f"Cannot listen on {path}: {error.strerror or error}.",
            hint="Choose a path of at most 107 characters in a folder that this user may write to.",
        ) from error
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    try:
        with listener:
            yield listener
    finally:
        with contextlib.suppress(OSError):
            if path.stat().st_ino == identity:  # and not that of another server since
                path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a server that is gone; raises EstibaError where one listens."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise EstibaError(f"Cannot listen on {path}: the file is no socket.", hint="Choose another path.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except TimeoutError:  # its backlog is full
            pass
    hint = "Stop the program that listens there, or choose another path."
    raise EstibaError(f"Cannot listen on {path}: a server listens there.", hint=hint)
