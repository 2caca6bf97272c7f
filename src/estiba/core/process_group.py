"""Run programs beside this one, each in a process group that is ended as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from estiba.core import guard
from estiba.core.errors import EstibaError, NotFound

MAX_LINE_BYTES = 65_536
"""Longer lines of output are broken."""

POLL_SECONDS = 0.05
"""The interval of checks for processes that are left."""

MAX_POLLS = 200
"""The limit of checks after SIGKILL, and of pieces that are read from a pipe after the program has ended."""

OnLine = Callable[[str], None]


class Guard:
    """A child process that ends the registered groups when this process dies, by any signal."""

    def __init__(self) -> None:
        """Start the child process."""
        self.mark = secrets.token_hex(8)
        command = [sys.executable, "-I", "-S", guard.__file__, f"{self.mark}/"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd="/")

    def begin(self, group: ProcessGroup) -> None:
        self._tell(f"+{group.pid} {json.dumps(group.removal)}\n" if group.removal else f"+{group.pid}\n")

    def over(self, group: ProcessGroup) -> None:
        self._tell(f"-{group.pid}\n")

    def _tell(self, text: str) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # it was killed: everything else works without it
            self._child.stdin.write(text.encode())
            self._child.stdin.flush()

    def close(self) -> None:
        """End the child process, and with it all processes that are left."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        self._child.wait()


class ProcessGroup:
    """A program in its own session, with all processes that it starts."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        on_line: OnLine,
        on_message: OnLine | None = None,
        removal: Sequence[str] = (),
    ) -> None:
        """Start the program; a running event loop is needed.

        Args:
            command: the program, as a path, and its arguments.
            environment: all of it, made by `marked`.
            on_line: called with each line of its output and standard error.
            on_message: called with the lines of its standard output instead; then `tell` writes to its standard input.
            removal: a command that ends what runs for the program outside of its session, such as a container.

        Raises:
            NotFound: there is no such program or folder. EstibaError: it cannot be started.
        """
        talks = on_message is not None
        reading, writing = os.pipe()
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else writing,
                stderr=writing,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            os.close(reading)
            raise _explained(error, command[0], folder) from error
        finally:
            os.close(writing)
        self.pid = self._child.pid
        self.left: frozenset[int] = frozenset()
        """Processes that did not end after SIGKILL, because the system holds them."""
        self.removal = list(removal)
        self._environment = dict(environment)
        self._mark = environment[guard.VARIABLE]
        self._loop = asyncio.get_running_loop()
        self._lines = [_Lines(reading, on_line)]
        if on_message is not None:
            assert self._child.stdout is not None
            self._lines.append(_Lines(os.dup(self._child.stdout.fileno()), on_message))
            self._child.stdout.close()

    @property
    def code(self) -> int | None:
        """The exit code; negative is the number of the signal that ended it. None while it runs."""
        return self._child.poll()

    def members(self) -> set[int]:
        """Its processes; empty on a system without /proc."""
        return guard.members({self.pid}, self._mark) if Path("/proc/self/stat").exists() else set()

    async def wait(self) -> int:
        """Wait for the program and its output; return its exit code. Its children may go on running."""
        while self.code is None:
            await _ended(self.pid)
        await asyncio.sleep(0)
        for lines in self._lines:
            lines.drain()
        return self._child.returncode

    def tell(self, message: bytes) -> None:
        """Write a line to its standard input."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, and `wait` returns its exit code
            self._child.stdin.write(message + b"\n")
            self._child.stdin.flush()

    async def stop(self, number: int = signal.SIGTERM, grace: float = 5.0) -> bool:
        """Send a signal to the program, then to the processes that are left, then SIGKILL to all.

        Args:
            number: the first signal. grace: seconds until SIGKILL.

        Returns:
            True if all ended within that time.
        """
        deadline = self._loop.time() + grace
        if self.code is None:
            self._child.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), max(0.0, deadline - self._loop.time()))
        if self.code is not None and self._send(number):
            while self._send(0) and self._loop.time() < deadline:
                await asyncio.sleep(POLL_SECONDS)
        graceful = self.code is not None and not self._send(0)
        await self.kill()
        return graceful

    async def kill(self) -> None:
        """Send SIGKILL to all its processes, and wait for some seconds until they have ended; see `left`."""
        for _ in range(MAX_POLLS):  # not for ever: a process that waits for a broken disk cannot be killed
            if not self._send(signal.SIGKILL) and self.code is not None:
                break
            await asyncio.sleep(POLL_SECONDS)
        else:
            self.left = frozenset(self.members() | ({self.pid} if self.code is None else set()))
        await self._remove()
        if self.code is not None:
            await self.wait()
        for lines in self._lines:
            lines.close()
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()

    async def _remove(self) -> None:
        """Run the removal, once."""
        command, self.removal = self.removal, []
        if not command:
            return
        quiet = subprocess.DEVNULL
        with contextlib.suppress(OSError):  # the program is gone: nothing can be removed
            child = subprocess.Popen(
                command, stdin=quiet, stdout=quiet, stderr=quiet, env=self._environment, start_new_session=True
            )
            for _ in range(MAX_POLLS):
                if child.poll() is not None:
                    break
                await asyncio.sleep(POLL_SECONDS)

    def _send(self, number: int) -> bool:
        """Send a signal to the whole group; True if it has a process."""
        return guard.send({self.pid}, self._mark, number)


def marked(environment: Mapping[str, str], mark: str, name: str) -> dict[str, str]:
    """An environment with a variable that says which guard a process belongs to, and as which service."""
    return {**environment, guard.VARIABLE: f"{mark}/{name}/"}


def _explained(error: OSError, program: str, folder: Path) -> EstibaError:
    if not folder.is_dir():
        return NotFound(f"There is no folder {folder} to start {program} in.", hint="Check the path.")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"The program {program} is not installed.", hint="Install it, or put it on PATH.")
    if isinstance(error, PermissionError):
        return EstibaError(f"{program} cannot be run: {error.strerror}.", hint=f"Try: chmod +x {program}")
    return EstibaError(f"Cannot start {program}: {error.strerror or error}.")


async def _ended(pid: int) -> None:
    """Wait until a child has ended; without pidfd, for a moment."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):
        await asyncio.sleep(POLL_SECONDS)
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


class _Lines:
    """The lines of text that come from a pipe. Each state of a progress bar counts as a line."""

    def __init__(self, descriptor: int, on_line: OnLine) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._rest = b""
        self._open = True
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> bool:
        """Read a piece; True if there may be more."""
        try:
            piece = os.read(self._descriptor, MAX_LINE_BYTES) if self._open else b""
        except BlockingIOError:
            return False
        if not piece:
            self.close()
            return False
        *lines, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._on_line(line.decode(errors="replace"))
        return True

    def drain(self) -> None:
        """Read all that is in the pipe now."""
        for _ in range(MAX_POLLS):
            if not self._read():
                break
        self._end()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._end()
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)

    def _end(self) -> None:
        """Pass on a last line without a line feed."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self._on_line(rest.decode(errors="replace"))
