"""Access log: a line for each request, never with a feature's value, and never at the cost of an answer.

Lines are made on the event loop, up to so many a second, and written by a thread: a log that nobody reads fills up and
blocks whoever writes to it. What is left out is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import re
import threading
import time
from queue import SimpleQueue
from typing import Any

from estiba.core.log import Log
from estiba.serving.metrics import Slot
from estiba.serving.request import Request
from estiba.serving.trace import trace_id

PERIOD = 0.1
"""Seconds from a line to its writing."""

MAX_PARTS = 64
"""Periods whose lines may wait for the writer."""

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
        self._refill_at = 0.0
        self._ticking = False
        self._writer: _Writer | None = None

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

    def add(self, request: Request, status: int, seconds: float, **fields: Any) -> None:
        """One line. Fields that are empty or 0 are left out, `route` may be left to this."""
        line = {
            "method": request.method.decode("latin-1"),
            "route": template(request.path.decode("latin-1")),
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "request_id": request.id,
            "trace_id": trace_id(request),
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
        """Writes what is left, unless nobody takes it for a second."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _tick(self) -> None:
        """Until a second after the first line: then whoever asks for the next starts it again."""
        self._flush()
        if time.monotonic() < self._refill_at:
            asyncio.get_running_loop().call_later(PERIOD, self._tick)
        else:
            self._ticking = False
            self._left = [self._limit, self._limit]
            self._skipped.add(self._over)
            self._over = 0

    def _flush(self) -> None:
        if not self._lines:
            return
        self._writer = self._writer or _Writer(self._log)
        if not self._writer.put(self._lines):
            self._skipped.add(len(self._lines))
        self._lines = []


class _Writer:
    """A thread that may block. It writes past the log's own buffer, whose lock it would hold meanwhile."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._parts: SimpleQueue[list[str] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def put(self, lines: list[str]) -> bool:
        if self._parts.qsize() >= MAX_PARTS:
            return False
        self._parts.put(lines)
        return True

    def close(self) -> None:
        self._parts.put(None)
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            target: int | None = self._log.descriptor()
        except (io.UnsupportedOperation, AttributeError):
            target = None
        while (lines := self._parts.get()) is not None:
            for part in _parts(lines):
                with contextlib.suppress(OSError):  # a log that is gone must not end the server
                    self._log.write(part) if target is None else _write(target, part.encode())


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


def _parts(lines: list[str]) -> list[str]:
    """Whole lines together, as far as they stay together."""
    parts = [""]
    for line in lines:
        if len(parts[-1]) + len(line) > ATOMIC:
            parts.append("")
        parts[-1] += line
    return parts


def is_probe(path: bytes) -> bool:
    """Whether machines ask it again and again, and want no line when all is well."""
    return path in _PROBES or path.startswith((b"/health", b"/v2/health/")) or path.endswith((b"/ready", b"/live"))


def template(path: str) -> str:
    """The route of a prediction's path: what names a model or a version becomes its place."""
    return _VERSION.sub(r"\1{version}", _NAME.sub(r"\1{name}", path, count=1), count=1)
