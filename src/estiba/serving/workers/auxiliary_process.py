"""Keep an auxiliary process alive beside the workers: start it, restart it with backoff when it ends, stop it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import msgspec

from estiba.core.log import Log

BACKOFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Delay before a restart, by how often the process ended within a minute."""


class AuxiliarySpec(msgspec.Struct, frozen=True):
    """A process to keep alive.

    Args:
        module: run as `python -m MODULE`, with an AuxiliaryInput as one line of JSON on standard input. It has to end
            at SIGTERM, and when its standard input is closed, which means that the supervisor is gone.
        settings: which only the module can read.
    """

    name: str
    module: str
    settings: msgspec.Raw = msgspec.Raw(b"null")


class AuxiliaryInput(msgspec.Struct, frozen=True):
    """The startup parameters of an auxiliary process.

    Args:
        folder: shared by the processes of this server.
    """

    folder: str
    settings: msgspec.Raw


class AuxiliaryProcess:
    """One auxiliary process. `tick` starts and restarts it."""

    def __init__(self, spec: AuxiliarySpec, folder: Path, log: Log) -> None:
        """Start nothing yet."""
        self._spec = spec
        self._input = AuxiliaryInput(str(folder), spec.settings)
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self._ends: deque[float] = deque()

    def tick(self) -> None:
        """Start the process if its time has come; schedule a restart if it has ended. To be called often."""
        now = time.monotonic()
        if self._child is None:
            if now >= self._start_at:
                self._start(now)
        elif self._child.poll() is not None:
            code = self._child.returncode
            self._log.error("auxiliary process ended", process=self._spec.name, exit_code=code)
            self._close()
            self._schedule(now)

    def _start(self, now: float) -> None:
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", self._spec.module],
                stdin=subprocess.PIPE,
                process_group=0,  # signals to the terminal's whole group are for the supervisor to handle
            )
        except OSError as error:
            self._log.error("auxiliary process cannot start", process=self._spec.name, reason=str(error))
            self._schedule(now)
            return
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already
            self._child.stdin.write(msgspec.json.encode(self._input) + b"\n")
            self._child.stdin.flush()

    def _schedule(self, now: float) -> None:
        self._ends.append(now)
        while self._ends[0] < now - 60:
            self._ends.popleft()
        self._start_at = now + BACKOFF_SECONDS[min(len(self._ends), len(BACKOFF_SECONDS)) - 1]

    def stop(self) -> None:
        """Ask the process to end. It is not restarted unless `tick` is called again."""
        if self._child is not None:
            self._child.terminate()

    def kill(self, patience_seconds: float = 0.0) -> None:
        """Wait for the process to end, and kill it after that time."""
        if self._child is None:
            return
        try:
            self._child.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._close()

    def _close(self) -> None:
        child, self._child = self._child, None
        if child is not None and child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
