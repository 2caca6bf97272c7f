"""Accept connections, pass each to the least-loaded worker, and answer 503 when the server is full.

A full server answers at once, rather than leave clients in a queue that they cannot see: a load balancer can then try
another server. A few connections beyond the limit are still read, because a health check must not fail for being the
last to connect, and a client that gets its response before it has sent its request may never see it.
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
from estiba.serving.http.problem_details import FULL, error_response
from estiba.serving.http.request import header_lines, status_line
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers.worker_process import Process

SPARE_CONNECTIONS = 64
"""Connections beyond the limit that a worker still reads, to answer one health check or a 503 each."""

RESERVED_DESCRIPTORS = 192
"""Descriptors of a process that are not for clients: files, libraries, workers, and refused clients."""

ACCEPT_PAUSE_SECONDS = 0.2
"""Time without accepting where the system has no room for another connection."""

MAX_WAIT_SECONDS = 2.0
"""Time for which a new client waits while no worker is ready, before it gets a 503."""

LINGER_SECONDS = 0.5
"""Time for which the socket of a refused client stays open, as closing it at once could lose the response."""

MAX_LINGERING = 64
"""Refused clients that linger; the oldest of more are closed."""


class Acceptor:
    """Accepts clients and assigns them to workers."""

    def __init__(
        self,
        limit: int,
        workers: Callable[[], Sequence[Process]],
        log: Log,
        metrics: Metrics,
        *,
        encrypted: bool = False,
    ) -> None:
        """Accept nothing yet.

        Args:
            limit: clients at once.
            workers: gives all workers that hold clients, including those that drain.
            encrypted: clients speak TLS, so that only workers can answer them.
        """
        self._encrypted = encrypted
        self._limit = limit
        self._workers = workers
        self._log = log
        self._refused = metrics.slot("estiba_connections_refused_total")
        self._listeners: tuple[socket.socket, ...] = ()
        self._waiting: deque[tuple[socket.socket, float]] = deque()
        self._lingering: deque[tuple[socket.socket, float]] = deque()

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept."""
        self._listeners = tuple(listeners)
        for listener in self._listeners:
            self._resume(listener)

    async def close(self) -> None:
        """Stop accepting; drain the backlog; return when every pending client is assigned or refused."""
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            while self._accept(listener):
                pass
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        while self._waiting and any(worker.serving for worker in self._workers()):
            self.tick()
            await asyncio.sleep(0.01)

    def _accept(self, listener: socket.socket) -> bool:
        """Accept some clients; True if there may be more."""
        for _ in range(64):
            try:
                client, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:  # most likely too many open files; open connections are not affected
                self._log.warning("connections cannot be accepted for now", reason=str(error))
                self._pause(listener)
                return False
            self._admit(client)
        return True

    def _pause(self, listener: socket.socket) -> None:
        """Stop accepting for a moment: the listener stays readable, and would be tried in a busy loop."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _admit(self, client: socket.socket) -> None:
        held = len(self._waiting) + sum(len(worker.clients) for worker in self._workers())
        if held < self._limit:
            self.place(client, time.monotonic())
        elif held >= self._limit + SPARE_CONNECTIONS or not self._give(client, spare=True):
            self._refused.add()
            self.refuse(client, FULL)

    def place(self, client: socket.socket, since: float) -> None:
        """Pass a client to the worker with the fewest clients; keep it for a moment where none can take it."""
        if not self._give(client):
            self._waiting.append((client, since))

    def _give(self, client: socket.socket, *, spare: bool = False) -> bool:
        ready = sorted((w for w in self._workers() if w.serving), key=lambda w: len(w.clients))
        return any(worker.give(client, spare=spare) for worker in ready)

    def tick(self) -> None:
        """Assign or refuse waiting clients; close those that were refused a while ago. To be called often."""
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            client, since = self._waiting.popleft()
            if now > since + MAX_WAIT_SECONDS:
                self.refuse(client, "No worker is ready.")
            else:
                self.place(client, since)
        while self._lingering and now > self._lingering[0][1] + LINGER_SECONDS:
            _close(self._lingering.popleft()[0])

    def refuse(self, client: socket.socket, detail: str) -> None:
        """Send a 503 to a client, and close its connection after a moment; one that speaks TLS is only closed."""
        if self._encrypted:
            client.close()
            return
        headers, body = error_response(503, detail)
        head = status_line(503, "Service Unavailable") + header_lines(headers)
        with contextlib.suppress(OSError):
            client.setblocking(False)
            client.send(head + b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
            client.shutdown(socket.SHUT_WR)
        self._lingering.append((client, time.monotonic()))
        if len(self._lingering) > MAX_LINGERING:
            _close(self._lingering.popleft()[0])

    def refuse_all(self, detail: str) -> None:
        """Refuse all waiting clients, then close all connections."""
        while self._waiting:
            self.refuse(self._waiting.popleft()[0], detail)
        while self._lingering:
            _close(self._lingering.popleft()[0])


def connections(wanted: int | None) -> int:
    """The number of clients that a server may hold at once. Raises the soft limit of descriptors to the hard one.

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
    most = max(soft - RESERVED_DESCRIPTORS - SPARE_CONNECTIONS, soft // 4)
    if wanted is not None and wanted > most:
        needed = wanted + RESERVED_DESCRIPTORS + SPARE_CONNECTIONS
        raise EstibaError(
            f"server.max_connections is {wanted}, but this process may open {soft} files, enough for {most}.",
            hint=f"Raise the limit (ulimit -n {needed}, or LimitNOFILE= in systemd), or lower max_connections.",
        )
    return most if wanted is None else wanted


def _close(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Unread input would turn the close into a reset, and lose the response.
        for _ in range(64):
            if not client.recv(65536):
                break
    client.close()
