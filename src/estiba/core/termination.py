"""Handle termination signals (SIGINT, SIGTERM, SIGHUP) outside an event loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Handler:
    """A signal handler that raises an exception, as Ctrl-C does, so that unfinished work is cleaned up.

    It also remembers the signal, because an exception that is raised at an arbitrary moment may be lost: imports and
    libraries in C drop some.
    """

    def __init__(self) -> None:
        self.number = 0
        self.deferrals = 0
        self._late = False

    def __call__(self, number: int, frame: object) -> None:
        self.number = number
        self._late = self.deferrals > 0
        if not self._late:
            self._end()

    def release(self) -> None:
        self.deferrals -= 1
        if self._late and not self.deferrals:
            self._late = False
            self._end()

    def _end(self) -> None:
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.number)


_handler = _Handler()


def install_handlers() -> None:
    """Raise KeyboardInterrupt for SIGINT from now on, and SystemExit with 128 and the number for SIGTERM and SIGHUP.

    A signal that is ignored stays so: nohup relies on that. Call it from the main thread.
    """
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _handler)


def requested() -> bool:
    """True if a termination signal came since `install_handlers`."""
    return _handler.number != 0


def ignore(loop: asyncio.AbstractEventLoop) -> None:
    """Ignore further termination signals in a process that is about to end; else one would decide its exit code.

    The loop and the interpreter reset handlers of their own as they end, but leave a signal alone that is ignored.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer signals to the end of the block, in which something starts that must be cleaned up."""
    if threading.current_thread() is not threading.main_thread():  # signals never disturb another thread
        yield
        return
    _handler.deferrals += 1
    try:
        yield
    finally:
        _handler.release()
