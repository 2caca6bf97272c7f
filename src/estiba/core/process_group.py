"""Groups: programs that run beside this one, each with all that it starts, and are ended together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from estiba.core import guard
from estiba.core.errors import EstibaError, NotFound

LONGEST = 65_536
"""Bytes of a line after which it is broken."""

TICK = 0.05
"""Seconds between looks at what is left of a group."""

PATIENCE = 200
"""Looks at what was killed, and pieces of output that were still in a pipe, after which nothing more is expected."""

OnLine = Callable[[str], None]


class Guard:
    """Ends the groups that it was told of when this process dies, by whatever signal."""

    def __init__(self) -> None:
        """Starts the guarding process."""
        self.mark = secrets.token_hex(8)
        command = [sys.executable, "-I", "-S", guard.__file__, f"{self.mark}/"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd="/")

    def begin(self, session: int) -> None:
        self._tell(f"+{session}\n")

    def over(self, session: int) -> None:
        self._tell(f"-{session}\n")

    def _tell(self, text: str) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # somebody killed it: everything else works without it
            self._child.stdin.write(text.encode())
            self._child.stdin.flush()

    def close(self) -> None:
        """Ends the guarding process, and with it all that is still left."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        self._child.wait()


class ProcessGroup:
    """A program in a session of its own, with all that it starts."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        on_line: OnLine,
        on_message: OnLine | None = None,
    ) -> None:
        """Starts it; to be called in a running event loop.

        Args:
            command: the program, as a path, and its arguments.
            environment: all of it, made by `marked`.
            on_line: is told each line of its output and standard error.
            on_message: is told the lines of its standard output instead; then `tell` writes to its standard input.

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
        """Processes that are there still after all of it was killed, because the system holds them."""
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
        """The processes that belong to it; empty where the system cannot tell."""
        return guard.members({self.pid}, self._mark) if Path("/proc/self/stat").exists() else set()

    async def wait(self) -> int:
        """The exit code of the program, once it has ended and its output was handed over. Its children may run on."""
        while self.code is None:
            await _ended(self.pid)
        await asyncio.sleep(0)
        for lines in self._lines:
            lines.drain()
        return self._child.returncode

    def tell(self, message: bytes) -> None:
        """Writes a line to its standard input."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # it is gone, and `wait` says so
            self._child.stdin.write(message + b"\n")
            self._child.stdin.flush()

    async def stop(self, number: int = signal.SIGTERM, grace: float = 5.0) -> bool:
        """Ends the program and all that it started: first the program is asked, then what is left, then all are killed.

        Args:
            number: the signal that asks. grace: seconds until they are killed.

        Returns:
            Whether all ended within that time.
        """
        until = self._loop.time() + grace
        if self.code is None:
            self._child.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), max(0.0, until - self._loop.time()))
        if self.code is not None and self._send(number):
            while self._send(0) and self._loop.time() < until:
                await asyncio.sleep(TICK)
        polite = self.code is not None and not self._send(0)
        await self.kill()
        return polite

    async def kill(self) -> None:
        """Kills what is left, and forgets it; after some seconds also what cannot be killed: see `left`."""
        for _ in range(PATIENCE):  # not for ever: nobody can kill what waits for a broken disk
            if not self._send(signal.SIGKILL) and self.code is not None:
                break
            await asyncio.sleep(TICK)
        else:
            self.left = frozenset(self.members() | ({self.pid} if self.code is None else set()))
        if self.code is not None:
            await self.wait()
        for lines in self._lines:
            lines.close()
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()

    def _send(self, number: int) -> bool:
        """Sends a signal to the whole group; whether there was anybody."""
        return guard.send({self.pid}, self._mark, number)


def marked(environment: Mapping[str, str], mark: str, name: str) -> dict[str, str]:
    """An environment that tells who started a process, and as what."""
    return {**environment, guard.VARIABLE: f"{mark}/{name}/"}


def _explained(error: OSError, program: str, folder: Path) -> EstibaError:
    if not folder.is_dir():
        return NotFound(f"There is no folder {folder} to start {program} in.", hint="Check the path.")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"The program {program} is not here.", hint="Install it, or put it on PATH.")
    if isinstance(error, PermissionError):
        return EstibaError(f"{program} may not be run: {error.strerror}.", hint=f"Try: chmod +x {program}")
    return EstibaError(f"Cannot start {program}: {error.strerror or error}.")


async def _ended(pid: int) -> None:
    """Returns when a child has ended; where the system cannot tell, after a moment."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):
        await asyncio.sleep(TICK)
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


class _Lines:
    """What comes out of a pipe, as lines of text. What a progress bar overwrites counts as a line."""

    def __init__(self, descriptor: int, on_line: OnLine) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._rest = b""
        self._open = True
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> bool:
        """Takes a piece; whether there may be more."""
        try:
            piece = os.read(self._descriptor, LONGEST) if self._open else b""
        except BlockingIOError:
            return False
        if not piece:
            self.close()
            return False
        *lines, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > LONGEST:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._on_line(line.decode(errors="replace"))
        return True

    def drain(self) -> None:
        """Takes all that is there now."""
        for _ in range(PATIENCE):
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
        """Hands over a last line that no line feed ended."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self._on_line(rest.decode(errors="replace"))
