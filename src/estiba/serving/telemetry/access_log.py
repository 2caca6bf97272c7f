"""Access log: a line for each request, never with a feature's value, and never at the cost of an answer.

Up to so many a second are made, and written a moment later, many at once. A pipe that nobody reads fills up and blocks
whoever writes to it: so lines of requests take only a part of it, and wait, or are left out. What is left out is
counted.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import random
import re
import stat
import struct
import sys
import termios
import time
from collections import deque
from typing import Any

from estiba.core.log import Log
from estiba.serving.exchange import Exchange
from estiba.serving.telemetry.metrics import Slot

PERIOD = 0.1
"""Seconds from a line to its writing."""

MAX_PARTS = 64
"""Writes that may wait for room."""

ATOMIC = 4096
"""Bytes that a pipe takes whole, without those of another process in between (POSIX, PIPE_BUF on Linux)."""

_PROBES = frozenset({b"/metrics", b"/livez", b"/readyz", b"/healthz", b"/ping"})
_NAME = re.compile(r"(/models/)[^/:]+")
_VERSION = re.compile(r"(/versions/)[^/:]+")


class AccessLog:
    """Lines of requests. Lives on one event loop."""

    def __init__(self, log: Log, share: float, limit: int, skipped: Slot) -> None:
        """Starts nothing yet.

        Args:
            share: of the requests with a status below 500, how many get a line, 0 to 1.
            limit: lines a second, and as many again of statuses from 500 up.
            skipped: counts lines beyond the limit, or that nobody took in time.
        """
        self._log = log
        self._share = share
        self._limit = limit
        self._skipped = skipped
        self._left = [limit, limit]
        self._over = 0
        self._lines: list[str] = []
        self._parts: deque[str] = deque()
        self._refill_at = 0.0
        self._ticking = False

    def wants(self, status: int) -> bool:
        """Whether a request of that status gets a line; to be asked once for each."""
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
        self.write(status, {**line, **fields})

    def write(self, status: int, fields: dict[str, Any]) -> None:
        fields = {name: value for name, value in fields.items() if value}
        self._lines.append(self._log.line("warning" if status >= 500 else "info", "request", fields))
        if not self._ticking:
            self._ticking = True
            self._refill_at = time.monotonic() + 1
            asyncio.get_running_loop().call_later(PERIOD, self._tick)

    def close(self) -> None:
        """Writes what is left and finds room."""
        self._flush()

    def _tick(self) -> None:
        """Until a second after the first line, and as long as lines wait; then the next line starts it again."""
        self._flush()
        if time.monotonic() >= self._refill_at:
            self._refill_at += 1
            self._left = [self._limit, self._limit]
            self._skipped.add(self._over)
            self._over = 0
            self._ticking = bool(self._parts)
        if self._ticking:
            asyncio.get_running_loop().call_later(PERIOD, self._tick)

    def _flush(self) -> None:
        self._parts.extend(_together(self._lines))
        self._lines = []
        while self._parts and self._write(self._parts[0]):
            self._parts.popleft()
        while len(self._parts) > MAX_PARTS:
            self._skipped.add(self._parts.pop().count("\n"))

    def _write(self, part: str) -> bool:
        """Writes lines unless that could block; False where there is no room now."""
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
    """Whether a pipe, even after so many bytes, is mostly free: what matters more shall not have to wait for it."""
    if not stat.S_ISFIFO(os.fstat(target).st_mode):
        return True
    (waiting,) = struct.unpack("=i", fcntl.ioctl(target, termios.FIONREAD, bytes(4)))
    capacity = fcntl.fcntl(target, fcntl.F_GETPIPE_SZ) if sys.platform == "linux" else 16 * 1024
    return int(waiting) + size <= max(size, capacity // 4)


def _together(lines: list[str]) -> list[str]:
    """Whole lines, as many together as a pipe keeps together."""
    parts: list[str] = []
    for line in lines:
        if not parts or len(parts[-1]) + len(line) > ATOMIC:
            parts.append("")
        parts[-1] += line
    return parts


def is_probe(path: bytes) -> bool:
    """Whether machines ask it again and again, and want no line when all is well."""
    return path in _PROBES or path.startswith((b"/health", b"/v2/health/")) or path.endswith((b"/ready", b"/live"))


def template(path: str) -> str:
    """The route of a prediction's path: what names a model or a version becomes its place."""
    return _VERSION.sub(r"\1{version}", _NAME.sub(r"\1{name}", path, count=1), count=1)
