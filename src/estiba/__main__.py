"""`python -m estiba` and the command `estiba`."""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Runs the command line and ends the process with its exit code.

    SIGTERM and SIGHUP end it as Ctrl-C does: what was begun is taken back, child processes and folders included. Set
    before anything else is imported, because as process 1 of a container it would not be ended by them at all.
    """
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup asks to be left alone
                signal.signal(number, _end)
        from estiba.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # so early, or so late, that nobody else has caught it
        code = INTERRUPTED
    sys.exit(code)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
