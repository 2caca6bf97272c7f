"""Cached answers in Redis or Valkey, which several servers share.

A value says its format, when it was stored, and has a checksum that includes its key. So what another program wrote, or
what was cut short, is an answer that is not known, and never a wrong one.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import estiba
from estiba.core.log import Log
from estiba.gateway.cache_memory import Found
from estiba.gateway.options import StoreAddress
from estiba.gateway.redis_connection import RedisConnection
from estiba.serving.telemetry.metrics import Slot

PREFIX = b"estiba:cache:"
NAME = "the store of the cache"

_HEAD = struct.Struct("<4sQ")
_FORMAT = b"esc1"
_CHECKSUM_BYTES = 8
_REPORT_SECONDS = 0.5


class RedisStore:
    """Answers by key, as one worker uses them. Lives on one event loop."""

    def __init__(self, address: StoreAddress, ttl: float, timeout: float, log: Log, gauge: Slot) -> None:
        """Connect to nothing yet.

        Args:
            ttl: seconds for which an answer is used.
            timeout: seconds until an answer of Redis is late.
            gauge: is 1 while Redis cannot be asked.
        """
        self._connection = RedisConnection(address, timeout, (), log, name=NAME, is_binary=True)
        self._ttl = ttl
        self._gauge = gauge
        self._started = False

    @property
    def failing(self) -> str:
        """The reason for which Redis cannot be asked; empty if it can."""
        return self._connection.failing

    def start(self) -> None:
        """Connect, from the running event loop, unless this was called before."""
        if not self._started:
            self._started = True
            self._connection.start(lambda: None)
            self._report()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _report(self) -> None:
        self._gauge.set(1.0 if self._connection.failing else 0.0)
        with contextlib.suppress(RuntimeError):  # the loop ends
            asyncio.get_running_loop().call_later(_REPORT_SECONDS, self._report)

    def ask(self, model: str, keys: Sequence[bytes], done: Callable[[list[Found | None]], None]) -> None:
        """Find the answers to rows of a model, and call `done` with them, now or within the timeout."""
        self.start()
        names = [_name(model, key) for key in keys]

        def take(answer: Any) -> None:
            values = answer if isinstance(answer, list) and len(answer) == len(names) else [b""] * len(names)
            now = time.time()
            done([self._read(name, value, now) for name, value in zip(names, values, strict=True)])

        self._connection.call(take, "MGET", *names)

    def put(self, model: str, key: bytes, raw: bytes) -> bool:
        """Keep an answer; False while Redis cannot be asked."""
        if self._connection.failing:
            return False
        name = _name(model, key)
        content = _HEAD.pack(_FORMAT, int(time.time() * 1000)) + raw
        value = content + _checksum(name, content)
        self._connection.call(_ignore, "SET", name, value, "PX", max(1, int(self._ttl * 1000)))
        return True

    def _read(self, name: bytes, value: object, now: float) -> Found | None:
        """The answer in a value; None for one that is none, is damaged, or is too old."""
        if not isinstance(value, bytes) or len(value) <= _HEAD.size + _CHECKSUM_BYTES:
            return None
        content = value[:-_CHECKSUM_BYTES]
        if not content.startswith(_FORMAT) or _checksum(name, content) != value[-_CHECKSUM_BYTES:]:
            return None
        age = now - _HEAD.unpack_from(content)[1] / 1000
        raw = content[_HEAD.size :]
        return Found(raw, max(0.0, age)) if age < self._ttl and len(raw) % 8 == 0 else None


def _name(model: str, key: bytes) -> bytes:
    """The key in Redis. It holds no value of a row, and no other version of Estiba has it."""
    digest = blake2b(key, digest_size=32, person=estiba.__version__.encode()[:16]).hexdigest()
    return b"%b%b:%b" % (PREFIX, model.encode(), digest.encode())


def _checksum(name: bytes, content: bytes) -> bytes:
    return blake2b(name + content, digest_size=_CHECKSUM_BYTES).digest()


def _ignore(answer: Any) -> None:
    """An answer that changes nothing."""
