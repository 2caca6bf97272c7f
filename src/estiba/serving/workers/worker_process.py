"""A worker process as the supervisor manages it: start, channel, clients, heartbeat, end."""

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
from estiba.serving.workers.messages import BUSY, HEARTBEAT_BYTES, MAX_CONNECTIONS, WorkerSpec

TROUBLES = ("died", "stopped", "hung", "slow start")
"""Reasons to replace a worker, as in the metrics."""

SILENCE_SECONDS = 0.3
"""Time without a heartbeat after which a worker's process state is examined."""

INACTIVITY_SECONDS = 0.5
"""Further time for which a silent worker may neither compute nor wait for a processor or a disk."""

NO_CLIENTS_SECONDS = 1.0
"""Time without a heartbeat after which a worker that is only slow gets no new clients."""

MAX_SILENCE_SECONDS = 10.0
"""Longest time without a heartbeat for a worker that computes or waits for a processor or a disk."""


HEAP = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_TRIM_THRESHOLD_": "1048576",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""Variables with which glibc and Arrow give the memory of large requests back; else a worker keeps twice its own."""


class Watchdog:
    """Distinguishes a slow worker from one that has to be replaced."""

    def __init__(self) -> None:
        self._moved: tuple[float, float] | None = None  # while silent: CPU seconds, and when they last grew

    def trouble(self, pid: int, silence: float) -> str:
        """Return "stopped" or "hung", or empty if there is no trouble. To be called often.

        Args:
            silence: seconds since its last heartbeat.
        """
        if silence < SILENCE_SECONDS:
            self._moved = None
            return ""
        state, seconds = _process_state(pid)
        if state in "Tt":
            return "stopped"
        now = time.monotonic()
        if self._moved is None or state in "RD" or seconds > self._moved[0]:
            self._moved = (seconds, now)
        return "hung" if silence >= MAX_SILENCE_SECONDS or now >= self._moved[1] + INACTIVITY_SECONDS else ""


class Process:
    """One worker process. Starts when created, or at `start_at` on the monotonic clock.

    Attributes:
        generation: of the configuration that it serves, or will serve once it is ready.
        failure: why it could not start, as the worker itself reported.
        clients: sockets by slot.
    """

    def __init__(
        self, spec: WorkerSpec, on_message: Callable[[Process, messages.AnyMessage], None], start_at: float = 0.0
    ) -> None:
        self.spec = spec
        self.index = spec.index
        self.generation = spec.generation
        self.ready = False
        self.draining = False
        self.failure: EstibaError | None = None
        self.clients: dict[int, socket.socket] = {}
        self._free = list(range(MAX_CONNECTIONS))
        self._on_message = on_message
        self._start_at = start_at
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._memory: mmap.mmap | None = None
        self._drained_at = 0.0
        self._unsent: deque[messages.AnyMessage] = deque()
        self._killed = False
        self._watchdog = Watchdog()
        if start_at <= time.monotonic():
            self._start()

    def _start(self) -> None:
        """Start the child; where the system cannot now, try again in a second."""
        try:
            self._launch()
        except OSError:
            self.kill()
            self._child = None
            self._killed = False
            self._start_at = time.monotonic() + 1.0

    def _launch(self) -> None:
        state = Path(self.spec.state)
        state.write_bytes(bytes(HEARTBEAT_BYTES + MAX_CONNECTIONS))
        with state.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), HEARTBEAT_BYTES + MAX_CONNECTIONS)
        state.touch()
        self._channel, theirs = messages.pair()
        spec = msgspec.structs.replace(self.spec, channel=theirs.fileno())
        threads = {name: str(self.spec.threads) for name in cpus.NATIVE_THREADS}
        self._child = subprocess.Popen(
            [sys.executable, "-m", self.spec.module],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
            env={**HEAP, **os.environ, **threads, "ORT_DISABLE_TELEMETRY": "1"},
            process_group=0,  # Ctrl-C reaches the terminal's whole group, and would end a worker that is starting
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
        """True if it can be given clients now."""
        return self.ready and not self.draining and self.exit_code() is None and self._silence() < NO_CLIENTS_SECONDS

    def give(self, client: socket.socket, *, spare: bool = False) -> bool:
        """Pass a client to the worker and keep a copy of its socket; False where it cannot take one now.

        Args:
            spare: it connected while the server was full and gets a 503.
        """
        if not self._free or self._channel is None or self._memory is None:
            return False
        slot = self._free.pop()
        self._memory[HEARTBEAT_BYTES + slot] = 0
        try:
            messages.send(self._channel, messages.Take(slot, spare), client)
        except OSError:
            self._free.append(slot)
            return False
        self.clients[slot] = client
        return True

    def release(self, slot: int) -> socket.socket | None:
        """Forget a client that the worker has released, and return its socket."""
        client = self.clients.pop(slot, None)
        if client is not None:
            self._free.append(slot)
        return client

    def busy(self, slot: int) -> bool:
        """Return True if the worker is handling a request of that client."""
        return self._memory is not None and self._memory[HEARTBEAT_BYTES + slot] == BUSY

    # Messages and the end

    def tell(self, message: messages.AnyMessage) -> None:
        """Queue a message and send it as soon as the channel has room. A dead worker is noticed by `trouble`."""
        self._unsent.append(message)
        self.flush()

    def flush(self) -> None:
        """Send messages that the channel had no room for."""
        while self._unsent and self._channel is not None:
            try:
                messages.send(self._channel, self._unsent[0])
            except OSError:  # full: the next tick tries again
                return
            self._unsent.popleft()

    def drain(self, *, hand_over: bool) -> None:
        """Let it finish its requests and end. It gets no further clients."""
        self.draining = True
        self._drained_at = time.monotonic()
        self.tell(messages.Drain(hand_over))

    def overdue(self, seconds: float) -> bool:
        """Return True if it should have ended by now."""
        return self.draining and time.monotonic() > self._drained_at + seconds

    def exit_code(self) -> int | None:
        """The exit code; None while it runs."""
        return None if self._child is None else self._child.poll()

    @property
    def ended(self) -> bool:
        """True if the process is gone."""
        return self._killed or self.exit_code() is not None

    def ending(self) -> str:
        """A description of how it ended, for the log."""
        code = self.exit_code()
        if code is None:
            return "no heartbeat"
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    def trouble(self) -> str:
        """The reason to replace it, one of TROUBLES; empty if there is none. Starts it at `start_at`."""
        now = time.monotonic()
        if self._child is None:
            if now >= self._start_at:
                self._start()
            return ""
        if self.ended:
            return "died"
        if not self.ready:
            return "slow start" if now > self._start_at + self.spec.options.start_timeout else ""
        return self._watchdog.trouble(self._child.pid, self._silence())

    def _silence(self) -> float:
        """Seconds since the last heartbeat."""
        assert self._memory is not None
        (beat,) = struct.unpack("=d", self._memory[:HEARTBEAT_BYTES])
        return time.monotonic() - float(beat)

    def kill(self) -> None:
        """End it at once, if it has not ended by itself."""
        self._killed = True
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._read()  # its last messages: clients that it closed or handed over
            if self._channel is not None:
                self._channel.close()
                self._channel = None
        Path(self.spec.state).unlink(missing_ok=True)


def _process_state(pid: int) -> tuple[str, float]:
    """The state letter of a process and its CPU seconds.

    R runs or waits for a processor, D waits for a disk, T is stopped.
    """
    try:
        stat = process_stat(pid)
    except OSError:  # no /proc on this system: only the heartbeat counts
        return "S", 0.0
    return stat.state, stat.cpu_ticks / os.sysconf("SC_CLK_TCK")
