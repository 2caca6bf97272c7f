"""Bounds on what a worker does and holds at a time, by the memory that it has."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from typing import NamedTuple

from estiba.core import cpus, memory
from estiba.serving.options import ServerOptions

MODELS_BYTES = 96 * 1024 * 1024
"""Memory that is left to models and libraries."""

BUFFERED_SHARE = 6
"""One part in so many of the memory is for bodies that arrive and answers that are not read."""

MEMORY_PER_BODY = 8
"""Memory that a large request takes while it is decoded and answered, as a multiple of the largest body."""


MEMORY_PER_DECODED = 5
"""Memory that a large request takes at most, as a multiple of its body after decompression."""


class MemoryShare(NamedTuple):
    """The bounds of one worker.

    Args:
        threads: large requests that are decoded and answered at a time.
        buffered: bytes of bodies and answers that it holds for its clients.
    """

    threads: int
    buffered: int


def memory_share(options: ServerOptions) -> MemoryShare:
    """The bounds of a worker before it loads its models: of the settings, and less where memory is scarce."""
    processors = cpus.available()
    free = memory.available()
    if free is None:
        return MemoryShare(processors, options.http.max_buffered)
    free //= options.workers or processors
    buffered = min(options.http.max_buffered, free // BUFFERED_SHARE)
    threads = (free - buffered - MODELS_BYTES) // (MEMORY_PER_BODY * options.http.max_body)
    return MemoryShare(max(1, min(processors, threads)), buffered)


class LargeRequests:
    """Memory for large requests, by what the system has left. Its functions are called in the threads of requests."""

    def __init__(self) -> None:
        self._trimmed_at = 0.0

    def fits(self, size: int) -> bool:
        """Return False where a request of that size could end the process for want of memory."""
        if _is_free(size * MEMORY_PER_DECODED):
            return True
        gc.collect()
        _trim()
        return _is_free(size * MEMORY_PER_DECODED)

    def give_back(self) -> None:
        """Give memory back after a large request, at most once a second: its pages would stay with the process."""
        now = time.monotonic()
        if now > self._trimmed_at + 1:
            self._trimmed_at = now
            _trim()


def _is_free(size: int) -> bool:
    free = memory.available()
    return free is None or free >= size


def _trim() -> None:
    """Return free pages in the middle of the heap to the system, where the C library is glibc."""
    with suppress(ImportError, OSError, AttributeError):
        import ctypes  # an image may leave it out

        ctypes.CDLL(None).malloc_trim(0)
