"""Cached answers in the memory of a worker, bounded by bytes: those that were not used for longest leave first."""

from __future__ import annotations

import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from sys import getsizeof
from typing import NamedTuple

from estiba.serving.telemetry.metrics import Metrics

ENTRY_BYTES = 128
"""Memory of an entry beside its key and its value: its share of the table, and what the allocator rounds up."""

_STORED_AT = struct.Struct("=d")


class Found(NamedTuple):
    """The raw answer to a row, float64 numbers one after the other, and its age in seconds."""

    raw: bytes
    age: float


class MemoryStore:
    """Answers by key, on the monotonic clock."""

    def __init__(
        self, ttl: float, max_bytes: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Hold nothing yet.

        Args:
            ttl: seconds for which an answer is used.
            max_bytes: of all entries, keys and table included.
        """
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._bytes = metrics.slot("estiba_cache_bytes")
        self._count = metrics.slot("estiba_cache_entries")
        self._evicted = metrics.slot("estiba_cache_evictions_total")

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return self._size

    def known(self, keys: Sequence[bytes]) -> list[Found | None]:
        """The answers that are known at once."""
        return [self.find(key) for key in keys]

    def find(self, key: bytes) -> Found | None:
        """The answer to a row."""
        value = self._entries.get(key)
        if value is None:
            return None
        age = self._clock() - _STORED_AT.unpack_from(value)[0]
        if age >= self._ttl:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return Found(value[8:], age)

    def put(self, key: bytes, raw: bytes) -> bool:
        """Keep an answer; False if it is larger than all memory."""
        value = _STORED_AT.pack(self._clock()) + raw
        size = _size(key, value)
        if size > self._max_bytes:
            return False
        if key in self._entries:
            self._remove(key)
        while self._size + size > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self._evicted.add()
        self._entries[key] = value
        self._size += size
        self._bytes.set(self._size)
        self._count.set(len(self._entries))
        return True

    def _remove(self, key: bytes) -> None:
        self._size -= _size(key, self._entries.pop(key))
        self._bytes.set(self._size)
        self._count.set(len(self._entries))


def _size(key: bytes, value: bytes) -> int:
    return ENTRY_BYTES + getsizeof(key) + getsizeof(value)
