"""`python -m estiba` and the command `estiba`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and ends the process with its exit code.

    SIGTERM and SIGHUP end it as Ctrl-C does, and from the first moment on: process 1 of a container would not be ended
    by them at all.
    """
    try:
        from estiba.core import termination

        termination.install_handlers()
        from estiba.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # so early, or so late, that nobody else has caught it
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
