"""The one place that starts programs."""

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

GRACE = 5.0
"""Seconds that a program has to end after it was asked to, before it is killed."""


@dataclass(frozen=True)
class Finished:
    """A program that ended. `code` is negative where a signal ended it: its number."""

    code: int
    output: str
    errors: str

    @property
    def said(self) -> str:
        """Its last words: the end of its standard error, or of its output where that is empty."""
        return "\n".join((self.errors.strip() or self.output.strip()).splitlines()[-20:])


def run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Runs a program to its end, with nothing to read, in a session of its own that does not outlive this call.

    Args:
        environment: is added to this process's own. timeout: seconds that it may take.
        on_line: is told each line of its standard error and output, which then come together, as they come.

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
            raise NotFound(f"The program {command[0]} is not here.", hint="Install it, or put it on PATH.") from None
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
    """Its lines as they come. Reading has no limit of its own, so a timer ends the program, and with it the lines."""
    assert child.stdout is not None
    late = threading.Event()

    def end() -> None:
        late.set()
        _stop(child)
        with suppress(ProcessLookupError):  # what it left behind would hold the pipe open
            os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(timeout or 0, end)
    said = []
    if timeout is not None:
        timer.start()
    try:
        for line in child.stdout:
            said.append(line)
            on_line(line.rstrip("\n"))
        code = child.wait()
    finally:
        timer.cancel()
    if late.is_set():
        raise subprocess.TimeoutExpired(child.args, timeout or 0)
    return Finished(code, "".join(said), "")


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
            with suppress(BrokenPipeError):  # it died before it listened: its exit code and output tell why
                ask.write(message + b"\n")
                ask.flush()
            for line in answers:
                on_line(line)
            return child.wait()


def _stop(child: subprocess.Popen[Any]) -> None:
    """Ends what is left of the program's session."""
    if child.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
            return
