"""Run other programs to their end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba.core import termination
from estiba.core.errors import EstibaError, NotFound
from estiba.core.stores.disk import explained

TERM_GRACE_SECONDS = 5.0
"""The time between SIGTERM and SIGKILL."""

SHOWN_LINES = 20
"""Lines of output that explain a failure."""


@dataclass(frozen=True)
class Finished:
    """A program that has ended. `code` is the exit code; a negative one is the number of a signal."""

    code: int
    output: str
    errors: str

    @property
    def said(self) -> str:
        """The last lines of its standard error, or of its output where that is empty."""
        return "\n".join((self.errors.strip() or self.output.strip()).splitlines()[-SHOWN_LINES:])


def run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run a program to its end, with empty standard input, in its own session, which ends with this call.

    Args:
        environment: is added to this process's own. timeout: in seconds.
        on_line: called with each line of its standard output and error, which are then one stream.

    Raises:
        NotFound: there is no such program. EstibaError: it took longer than `timeout`.
    """
    with ExitStack() as ending:
        try:
            with termination.deferred():
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT if on_line else subprocess.PIPE,
                    cwd=folder,
                    env={**os.environ, **(environment or {})},
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
                ending.enter_context(child)
                ending.callback(_stop, child)
        except FileNotFoundError:
            raise NotFound(
                f"The program {command[0]} is not installed.", hint="Install it, or put it on PATH."
            ) from None
        except OSError as error:
            raise EstibaError(f"Cannot start {command[0]}: {error.strerror}.") from error
        try:
            return _lines(child, on_line, timeout) if on_line else _whole(child, timeout)
        except subprocess.TimeoutExpired:
            raise EstibaError(f"{' '.join(command[:3])} did not end within {timeout:g} seconds.") from None


def _whole(child: subprocess.Popen[str], timeout: float | None) -> Finished:
    output, errors = child.communicate(timeout=timeout)
    return Finished(child.returncode, output, errors)


def _lines(child: subprocess.Popen[str], on_line: Callable[[str], None], timeout: float | None) -> Finished:
    """Pass on lines as they come. Reading has no timeout, so a timer ends the program, and with it the lines."""
    assert child.stdout is not None
    late = threading.Event()

    def end() -> None:
        late.set()
        _stop(child)
        with suppress(ProcessLookupError):  # processes that it left behind would keep the pipe open
            os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(timeout or 0, end)
    lines = []
    if timeout is not None:
        timer.start()
    try:
        for line in child.stdout:
            lines.append(line)
            on_line(line.rstrip("\n"))
        code = child.wait()
    finally:
        timer.cancel()
    if late.is_set():
        raise subprocess.TimeoutExpired(child.args, timeout or 0)
    return Finished(code, "".join(lines), "")


def converse(
    command: Sequence[str],
    message: bytes,
    *,
    on_line: Callable[[bytes], None],
    folder: Path,
    environment: Mapping[str, str],
    errors: Path,
) -> int:
    """Run a child process by the protocol of `estiba.core.child`: write `message` to it, and read its reports.

    It runs in its own session: when an exception, such as Ctrl-C, leaves this call, the program and all
    processes that it started are stopped.

    Args:
        on_line: called with each report. errors: a file for its standard error, which is overwritten.

    Returns:
        The exit code; negative is the number of the signal that ended it.
    """
    with ExitStack() as ending:
        with explained("run a program in", folder), errors.open("wb") as output, termination.deferred():
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=folder,
                env={**os.environ, **environment},
                start_new_session=True,
            )
            ending.callback(_stop, child)
        assert child.stdin is not None
        assert child.stdout is not None
        with child.stdin as ask, child.stdout as answers:
            with suppress(BrokenPipeError):  # it ended before it read: its exit code and output explain why
                ask.write(message + b"\n")
                ask.flush()
            for line in answers:
                on_line(line)
            return child.wait()


def _stop(child: subprocess.Popen[Any]) -> None:
    """End the processes that are left of the program's session."""
    if child.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(TERM_GRACE_SECONDS)
            return
