"""Endings: signals that ask a command to end while nothing listens to them in an event loop."""

from __future__ import annotations

import signal

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Asked:
    """A handler that ends what runs as Ctrl-C does, so that what was begun is taken back, and remembers that.

    An exception that is raised at any moment may be lost: imports and libraries in C drop some.
    """

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: object) -> None:
        self.number = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


def heed() -> None:
    """From now on SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP SystemExit with 128 and their number.

    One that is ignored stays so: nohup asks for that. To be called from the main thread.
    """
    asked = _Asked()
    for number in NUMBERS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, asked)


def asked() -> bool:
    """Whether one of them came since `heed`."""
    handlers = map(signal.getsignal, NUMBERS)
    return any(isinstance(handler, _Asked) and handler.number for handler in handlers)
