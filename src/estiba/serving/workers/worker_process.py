"""A worker process as its supervisor sees it: alive or not, ready or not, and which clients it has."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from estiba.core import cpus
from estiba.core.errors import EstibaError
from estiba.core.guard import process_stat
from estiba.serving.workers import messages
from estiba.serving.workers.messages import BUSY, HEARTBEAT, SLOTS, WorkerSpec

TROUBLES = ("died", "stopped", "hung", "slow start")
"""Why a worker may have to be replaced."""

SILENT = 0.3
"""Seconds without a heartbeat after which a worker is looked at."""

STILL = 0.5
"""Seconds more for which a silent worker may neither compute nor wait for a processor or a disk."""

ABSENT = 1.0
"""Seconds without a heartbeat after which a worker that is only slow gets no new clients."""

SLOW = 10.0
"""Seconds without a heartbeat that are forgiven where it computes or waits for a processor or a disk."""


class Watch:
    """Tells a worker that only is slow from one that has to be replaced."""

    def __init__(self) -> None:
        self._moved: tuple[float, float] | None = None  # while it is silent: processor seconds, and when they last grew

    def trouble(self, pid: int, silence: float) -> str:
        """Whether it is "stopped" or "hung"; empty where all is well. To be asked often.

        Args:
            silence: seconds since its last heartbeat.
        """
        if silence < SILENT:
            self._moved = None
            return ""
        state, seconds = _process_state(pid)
        if state in "Tt":
            return "stopped"
        now = time.monotonic()
        if self._moved is None or state in "RD" or seconds > self._moved[0]:
            self._moved = (seconds, now)
        return "hung" if silence >= SLOW or now >= self._moved[1] + STILL else ""


class Process:
    """One worker. Starts when made, or at `start_at` on the monotonic clock."""

    def __init__(
        self, spec: WorkerSpec, on_message: Callable[[Process, messages.AnyMessage], None], start_at: float = 0.0
    ) -> None:
        self.spec = spec
        self.index = spec.index
        self.models = spec.models
        """What it serves, or will once it is ready."""
        self.ready = False
        self.draining = False
        self.failure: EstibaError | None = None
        self.clients: dict[int, socket.socket] = {}
        self._free = list(range(SLOTS))
        self._on_message = on_message
        self._start_at = start_at
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._memory: mmap.mmap | None = None
        self._drained_at = 0.0
        self._unsent: deque[messages.AnyMessage] = deque()
        self._killed = False
        self._watch = Watch()
        if start_at <= time.monotonic():
            self._start()

    def _start(self) -> None:
        """Starts the child. Where the system has no room for it now, it is tried again in a second."""
        try:
            self._launch()
        except OSError:
            self.kill()
            self._child = None
            self._killed = False
            self._start_at = time.monotonic() + 1.0

    def _launch(self) -> None:
        state = Path(self.spec.state)
        state.write_bytes(bytes(HEARTBEAT + SLOTS))
        with state.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), HEARTBEAT + SLOTS)
        state.touch()
        self._channel, theirs = messages.pair()
        spec = msgspec.structs.replace(self.spec, channel=theirs.fileno())
        threads = {name: str(self.spec.threads) for name in cpus.NATIVE_THREADS}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "estiba.serving.workers.worker"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
            env={**os.environ, **threads, "ORT_DISABLE_TELEMETRY": "1"},
            process_group=0,  # Ctrl-C reaches the terminal's whole group, and a worker that starts knows no better
        )
        theirs.close()
        assert self._child.stdin is not None
        self._child.stdin.write(msgspec.json.encode(spec))
        self._child.stdin.close()
        self._start_at = time.monotonic()
        asyncio.get_running_loop().add_reader(self._channel, self._read)

    def _read(self) -> None:
        while self._channel is not None:
            try:
                message, _ = messages.receive(self._channel)
            except BlockingIOError:
                return
            if message is None:
                asyncio.get_running_loop().remove_reader(self._channel)
                return
            if isinstance(message, messages.Ready):
                self.ready = True
            elif isinstance(message, messages.Failed):
                self.failure = EstibaError(message.message, hint=message.hint)
                self.failure.exit_code = message.exit_code
            self._on_message(self, message)

    # Clients

    @property
    def serving(self) -> bool:
        """Whether it may be given clients now."""
        return self.ready and not self.draining and self.exit_code() is None and self._silence() < ABSENT

    def give(self, client: socket.socket, *, spare: bool = False) -> bool:
        """Hands a client to the worker, keeping a copy of its socket; False where it cannot take one now.

        Args:
            spare: it came when the server was full, and shall be told so.
        """
        if not self._free or self._channel is None or self._memory is None:
            return False
        slot = self._free.pop()
        self._memory[HEARTBEAT + slot] = 0
        try:
            messages.send(self._channel, messages.Take(slot, spare), client)
        except OSError:
            self._free.append(slot)
            return False
        self.clients[slot] = client
        return True

    def release(self, slot: int) -> socket.socket | None:
        """Forgets a client that the worker let go, and returns its socket."""
        client = self.clients.pop(slot, None)
        if client is not None:
            self._free.append(slot)
        return client

    def busy(self, slot: int) -> bool:
        """Whether the worker is within a request of that client."""
        return self._memory is not None and self._memory[HEARTBEAT + slot] == BUSY

    # Life

    def tell(self, message: messages.AnyMessage) -> None:
        """Sends a message, in order and as soon as the worker has room; one that is gone is noticed elsewhere."""
        self._unsent.append(message)
        self.flush()

    def flush(self) -> None:
        """Sends what the worker had no room for."""
        while self._unsent and self._channel is not None:
            try:
                messages.send(self._channel, self._unsent[0])
            except OSError:  # full: the next look at this worker tries again
                return
            self._unsent.popleft()

    def drain(self, *, hand_over: bool) -> None:
        """Tells it to end. It gets no clients any more."""
        self.draining = True
        self._drained_at = time.monotonic()
        self.tell(messages.Drain(hand_over))

    def overdue(self, seconds: float) -> bool:
        """Whether it should have ended by now."""
        return self.draining and time.monotonic() > self._drained_at + seconds

    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.poll()

    @property
    def ended(self) -> bool:
        return self._killed or self.exit_code() is not None

    def ending(self) -> str:
        """How it ended, in words."""
        code = self.exit_code()
        if code is None:
            return "no heartbeat"
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    def trouble(self) -> str:
        """Why it must be replaced, one of TROUBLES; empty where all is well.

        Starts it where its time has come.
        """
        now = time.monotonic()
        if self._child is None:
            if now >= self._start_at:
                self._start()
            return ""
        if self.ended:
            return "died"
        if not self.ready:
            return "slow start" if now > self._start_at + self.spec.options.start_timeout else ""
        return self._watch.trouble(self._child.pid, self._silence())

    def _silence(self) -> float:
        """Seconds since the last heartbeat."""
        assert self._memory is not None
        (beat,) = struct.unpack("=d", self._memory[:HEARTBEAT])
        return time.monotonic() - float(beat)

    def kill(self) -> None:
        """Ends it at once, if it has not ended by itself."""
        self._killed = True
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._read()  # its last words: clients that it closed or handed over
            if self._channel is not None:
                self._channel.close()
                self._channel = None
        Path(self.spec.state).unlink(missing_ok=True)


def _process_state(pid: int) -> tuple[str, float]:
    """The kernel's letter for a process and its processor seconds.

    R runs or waits for a processor, D waits for a disk, T is stopped.
    """
    try:
        stat = process_stat(pid)
    except OSError:  # no /proc on this system: judge by the heartbeat alone
        return "S", 0.0
    return stat.state, stat.cpu_ticks / os.sysconf("SC_CLK_TCK")
