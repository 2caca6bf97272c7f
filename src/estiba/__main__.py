"""`python -m estiba` and the command `estiba`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end the process with its exit code.

    SIGTERM and SIGHUP end it as Ctrl-C does from the beginning: by default, they do not end process 1 of a container.
    """
    try:
        from estiba.core import termination

        termination.install_handlers()
        from estiba.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before or after the command line handles it
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
