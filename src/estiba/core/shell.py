"""The one place that starts programs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from estiba.core.stores.disk import explained

GRACE = 5.0
"""Seconds that a program has to end after it was asked to, before it is killed."""


def converse(
    command: Sequence[str],
    message: bytes,
    *,
    on_line: Callable[[bytes], None],
    folder: Path,
    environment: Mapping[str, str],
    errors: Path,
) -> int:
    """Runs a program, writes `message` and a line feed to it, and hands over each line that it prints.

    Its standard input stays open until it ends, so that it can notice when this process dies. It runs in a session
    of its own: when this call is left by an exception, Ctrl-C included, the program and all it started are stopped.

    Args:
        errors: a file for its standard error; what was in it is replaced.

    Returns:
        The exit code; negative is the number of the signal that ended it.
    """
    with explained("run a program in", folder), errors.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=folder,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        with child.stdin as ask, child.stdout as answers:
            with suppress(BrokenPipeError):  # it died before it listened: its exit code and output tell why
                ask.write(message + b"\n")
                ask.flush()
            for line in answers:
                on_line(line)
            return child.wait()
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ends what is left of the program's session."""
    if child.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
            return
