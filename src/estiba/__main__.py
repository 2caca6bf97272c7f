"""`python -m estiba` and the command `estiba`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    try:
        from estiba.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # so early that nobody else has caught it
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
