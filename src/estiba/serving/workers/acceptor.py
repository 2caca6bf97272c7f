"""Door: accepts every client, finds it a worker, and sends away politely whom nobody can serve.

A full server says so at once, rather than leave clients in a queue that they cannot see: a load balancer then asks
another. A few connections beyond the limit are still read, because a health check must not fail for being the last to
come, and a client that is told before it has sent its request may never see the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.serving.http.problem_details import CONTENT_TYPE, FULL, problem
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers.worker_process import Process

SPARE = 64
"""Connections beyond the limit that a worker still reads, to answer one health check or a 503 each."""

RESERVED = 192
"""Descriptors of a process that are not for clients: files, libraries, workers, and clients that are leaving."""

PAUSE = 0.2
"""Seconds without accepting where the system has no room for another connection."""

HOLD = 2.0
"""Seconds for which a new client waits while no worker is ready, before it gets a 503."""

LINGER = 0.5
"""Seconds for which the socket of a refused client stays open, as closing at once could cost it the answer."""

MOST_LEAVING = 64
"""Refused clients that linger; the oldest of more are closed."""


class Door:
    """Every client on its way to a worker. `workers` gives those that hold clients, also while they leave."""

    def __init__(self, limit: int, workers: Callable[[], Sequence[Process]], log: Log, metrics: Metrics) -> None:
        """Accepts nobody yet.

        Args:
            limit: clients at once.
        """
        self._limit = limit
        self._workers = workers
        self._log = log
        self._refused = metrics.slot("estiba_connections_refused_total")
        self._listeners: tuple[socket.socket, ...] = ()
        self._waiting: deque[tuple[socket.socket, float]] = deque()
        self._leaving: deque[tuple[socket.socket, float]] = deque()

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Accepts from now on."""
        self._listeners = tuple(listeners)
        for listener in self._listeners:
            self._resume(listener)

    async def close(self) -> None:
        """Takes who stands at the door, accepts nobody any more, and ends once all have a worker or an answer."""
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            while self._accept(listener):
                pass
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        while self._waiting and any(worker.serving for worker in self._workers()):
            self.look()
            await asyncio.sleep(0.01)

    def _accept(self, listener: socket.socket) -> bool:
        """Takes some clients; whether there may be more."""
        for _ in range(64):
            try:
                client, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:  # too many open files, most likely: those that are open go on
                self._log.warning("connections cannot be accepted for now", reason=str(error))
                self._pause(listener)
                return False
            self._admit(client)
        return True

    def _pause(self, listener: socket.socket) -> None:
        """Leaves the door alone for a moment: it stays readable, and would be tried without end."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(PAUSE, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _admit(self, client: socket.socket) -> None:
        held = len(self._waiting) + sum(len(worker.clients) for worker in self._workers())
        if held < self._limit:
            self.place(client, time.monotonic())
        elif held >= self._limit + SPARE or not self._give(client, spare=True):
            self._refused.add()
            self.refuse(client, FULL)

    def place(self, client: socket.socket, since: float) -> None:
        """Gives a client to the worker with the fewest; keeps it for a moment where none can take it."""
        if not self._give(client):
            self._waiting.append((client, since))

    def _give(self, client: socket.socket, *, spare: bool = False) -> bool:
        ready = sorted((w for w in self._workers() if w.serving), key=lambda w: len(w.clients))
        return any(worker.give(client, spare=spare) for worker in ready)

    def look(self) -> None:
        """Places who waits, or tells them that nobody comes; closes who was refused a while ago. To be called often."""
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            client, since = self._waiting.popleft()
            if now > since + HOLD:
                self.refuse(client, "No worker is ready.")
            else:
                self.place(client, since)
        while self._leaving and now > self._leaving[0][1] + LINGER:
            _close(self._leaving.popleft()[0])

    def refuse(self, client: socket.socket, detail: str) -> None:
        """Tells a client that nobody will answer its request."""
        body = problem(503, detail)
        head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: %b\r\nretry-after: 1\r\n" % CONTENT_TYPE
        with contextlib.suppress(OSError):
            client.setblocking(False)
            client.send(head + b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
            client.shutdown(socket.SHUT_WR)
        self._leaving.append((client, time.monotonic()))
        if len(self._leaving) > MOST_LEAVING:
            _close(self._leaving.popleft()[0])

    def refuse_all(self, detail: str) -> None:
        """The same for whoever still waits; then closes all."""
        while self._waiting:
            self.refuse(self._waiting.popleft()[0], detail)
        while self._leaving:
            _close(self._leaving.popleft()[0])


def connections(wanted: int | None) -> int:
    """How many clients a server may hold at once. Raises the limit of descriptors as far as it goes.

    Args:
        wanted: as the project file says; None means as many as possible.

    Raises:
        EstibaError: more than this process may open, as every client is a descriptor here and another in a worker.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    most = max(soft - RESERVED - SPARE, soft // 4)
    if wanted is not None and wanted > most:
        raise EstibaError(
            f"server.max_connections is {wanted}, and this process may open {soft} files, enough for {most}.",
            hint=f"Allow more (ulimit -n {wanted + RESERVED + SPARE}, LimitNOFILE= of systemd), or ask for fewer.",
        )
    return most if wanted is None else wanted


def _close(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # What the client had sent and nobody read would turn the close into a reset, and lose its answer.
        for _ in range(64):
            if not client.recv(65536):
                break
    client.close()
