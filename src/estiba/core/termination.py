"""Endings: signals that ask a command to end while nothing listens to them in an event loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Asked:
    """A handler that ends what runs as Ctrl-C does, so that what was begun is taken back, and remembers that.

    An exception that is raised at any moment may be lost: imports and libraries in C drop some.
    """

    def __init__(self) -> None:
        self.number = 0
        self.held = 0
        self._late = False

    def __call__(self, number: int, frame: object) -> None:
        self.number = number
        self._late = self.held > 0
        if not self._late:
            self._end()

    def release(self) -> None:
        self.held -= 1
        if self._late and not self.held:
            self._late = False
            self._end()

    def _end(self) -> None:
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.number)


_asked = _Asked()


def install_handlers() -> None:
    """From now on SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP SystemExit with 128 and their number.

    One that is ignored stays so: nohup asks for that. To be called from the main thread.
    """
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _asked)


def requested() -> bool:
    """Whether one of them came since `install_handlers`."""
    return _asked.number != 0


@contextmanager
def deferred() -> Iterator[None]:
    """Where something is begun that has to be ended too: a signal that comes meanwhile is raised after the block."""
    if threading.current_thread() is not threading.main_thread():  # signals never disturb another thread
        yield
        return
    _asked.held += 1
    try:
        yield
    finally:
        _asked.release()
