"""Write the access log, one line for each request, without feature values and without delaying a response.

Up to a limit of lines a second are written by a thread, many at once. A pipe that is not read fills up and blocks every
writer. So lines of requests take only a part of it; they wait in a bounded queue, beyond which they are dropped and
counted.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import itertools
import os
import random
import re
import stat
import struct
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from estiba.core.log import Log
from estiba.serving.exchange import Exchange
from estiba.serving.telemetry.metrics import Slot
from estiba.serving.telemetry.sink import Sink

DELAY_SECONDS = 0.1
"""Time from a line to its writing."""

MAX_WAITING_LINES = 4096
"""Lines that may wait for room in a pipe."""

ATOMIC_BYTES = 4096
"""Bytes that a pipe takes whole, without those of another process in between (POSIX, PIPE_BUF on Linux)."""

_PROBES = frozenset({b"/metrics", b"/livez", b"/readyz", b"/healthz", b"/ping"})
_HEALTH_CHECKS = (_PROBES - {b"/metrics"}) | {
    b"/health", b"/health/live", b"/health/ready", b"/health/startup", b"/v2/health/live", b"/v2/health/ready"
}  # fmt: skip
_NAME = re.compile(r"(/models/)[^/:]+")
_VERSION = re.compile(r"(/versions/)[^/:]+")


class AccessLog:
    """Writes lines of requests. Lives on one event loop."""

    def __init__(
        self, log: Log, share: float, limit: int, skipped: Slot, client: Callable[[Exchange], str] | None = None
    ) -> None:
        """Write nothing yet.

        Args:
            share: of the requests with a status below 500, how many get a line, 0 to 1.
            limit: lines a second, and as many again of statuses from 500 up.
            skipped: counts lines beyond the limit, or that the log's reader did not take in time.
            client: gives the address of the client, where lines shall have it.
        """
        self._client = client
        self._log = log
        self._share = share
        self._limit = limit
        self._skipped = skipped
        self._left = [limit, limit]
        self._over = 0
        self._sink = Sink[str](
            "access-log", self._drain, max_items=max(limit, MAX_WAITING_LINES), delay=DELAY_SECONDS, dropped=skipped
        )
        self._refill_at = 0.0
        self._ticking = False

    def wants(self, status: int) -> bool:
        """Return True if a request of that status gets a line; to be called once for each."""
        failed = status >= 500
        if not failed and self._share < 1.0 and random.random() >= self._share:
            return False
        if self._left[failed] > 0:
            self._left[failed] -= 1
            return True
        self._over += 1
        return False

    def add(self, exchange: Exchange, status: int, seconds: float, **fields: Any) -> None:
        """Write one line. Fields that are empty or 0 are left out; `route` defaults to that of a prediction path."""
        request, trace = exchange.request, exchange.trace
        line = {
            "method": request.method.decode("latin-1"),
            "route": template(request.path.decode("latin-1")),
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "request_id": exchange.id,
            "trace_id": exchange.trace_id,
            "span_id": trace.span_id if trace is not None else "",
        }
        if self._client is not None:
            line["client"] = self._client(exchange)
        self.write(status, {**line, **fields})

    def write(self, status: int, fields: dict[str, Any]) -> None:
        """Write one line of these fields, except those that are empty or 0."""
        fields = {name: value for name, value in fields.items() if value}
        self._sink.offer(self._log.line("warning" if status >= 500 else "info", "request", fields))
        if not self._ticking:
            self._ticking = True
            self._refill_at = time.monotonic() + 1
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self._tick)

    def close(self) -> None:
        """Write the lines that are left, as far as there is room, within a second."""
        self._sink.close()

    def _tick(self) -> None:
        """Renew the limits a second after the first line; then the next line starts the timer again."""
        if time.monotonic() >= self._refill_at:
            self._left = [self._limit, self._limit]
            self._skipped.add(self._over)
            self._over = 0
            self._ticking = False
        else:
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self._tick)

    def _drain(self, lines: deque[str], closing: threading.Event) -> None:
        """Write lines while there is room, as many together as a pipe keeps together."""
        while lines:
            count, size = 0, 0
            for line in itertools.islice(lines, MAX_WAITING_LINES):
                if count and size + len(line) > ATOMIC_BYTES:
                    break
                count, size = count + 1, size + len(line)
            if not self._write("".join(itertools.islice(lines, count))):
                return
            for _ in range(count):
                lines.popleft()

    def _write(self, part: str) -> bool:
        """Write lines unless that could block; False where there is no room now."""
        data = part.encode()
        try:
            target = self._log.descriptor()
            if not _has_room(target, len(data)):
                return False
            os.write(target, data)
        except io.UnsupportedOperation:  # a stream in memory
            self._log.write(part)
        except (OSError, ValueError):  # a log that is gone must not end the server
            return True
        return True


def _has_room(target: int, size: int) -> bool:
    """Return True if a pipe stays mostly free after so many bytes, so that other log lines never wait for it."""
    if not stat.S_ISFIFO(os.fstat(target).st_mode):
        return True
    (waiting,) = struct.unpack("=i", fcntl.ioctl(target, termios.FIONREAD, bytes(4)))
    capacity = fcntl.fcntl(target, fcntl.F_GETPIPE_SZ) if sys.platform == "linux" else 16 * 1024
    return int(waiting) + size <= max(size, capacity // 4)


def is_probe(path: bytes) -> bool:
    """Return True for health checks and metrics, which are requested regularly and logged only when they fail."""
    return path in _PROBES or path.startswith((b"/health", b"/v2/health/")) or path.endswith((b"/ready", b"/live"))


def is_health_check(path: bytes) -> bool:
    """Return True for the health checks of the server, which need no permission: orchestrators have no key."""
    return path in _HEALTH_CHECKS


def template(path: str) -> str:
    """The route of a prediction path: names of models and versions become placeholders."""
    return _VERSION.sub(r"\1{version}", _NAME.sub(r"\1{name}", path, count=1), count=1)
