"""Counters of limits in Redis or Valkey, so that a limit holds over several servers.

Each request is one script, which Redis runs alone, on its own clock. How many requests each worker is answering is a
hash per key or model; a worker that does not report for three seconds counts for nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from estiba.core.log import Log
from estiba.gateway.limit_memory import Left, Meter, Refusal
from estiba.gateway.options import StoreAddress
from estiba.gateway.redis_connection import RedisConnection
from estiba.serving.telemetry.metrics import Slot

REPORT_SECONDS = 1.0
"""Interval in which a worker reports that it lives."""

PREFIX = "estiba:limits:"

_COMMON = """
local clock = redis.call('TIME')
local now, day = clock[1] * 1000000 + clock[2], math.floor(clock[1] / 86400)
local workers = 'estiba:limits:workers'
local function held(key)
  local counts, total = redis.call('HGETALL', key .. ':held'), 0
  for i = 1, #counts, 2 do
    local seen = redis.call('ZSCORE', workers, counts[i])
    if seen and now - seen < 3000000 then
      total = total + math.max(0, tonumber(counts[i + 1]))
    else
      redis.call('HDEL', key .. ':held', counts[i])
    end
  end
  return total
end
local function spent(key)
  local stored = redis.call('HMGET', key, 'day', 'rows')
  local rows = tonumber(stored[2] or 0)
  if tonumber(stored[1] or -1) ~= day then
    if tonumber(stored[1] or -1) < day then rows = 0 end
    redis.call('HSET', key, 'day', day, 'rows', rows)
    redis.call('EXPIRE', key, 172800)
  end
  return rows
end
local midnight = (86400 - clock[1] % 86400) * 1000000
"""

_ADMIT = (
    _COMMON
    + """
local left, times = {0}, {}
for i, key in ipairs(KEYS) do
  local interval, tolerance = tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
  local most, rows = tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 1])
  if interval > 0 then
    local time = math.max(tonumber(redis.call('HGET', key, 'time') or now), now)
    if time > now + tolerance then
      time = now + tolerance
      redis.call('HSET', key, 'time', string.format('%.0f', time))
    end
    time = time + interval
    if time > now + tolerance then return {i, 'rate', time - now - tolerance} end
    times[i] = time
    left[#left + 1] = now + tolerance - time
  end
  if most > 0 then
    local more = most - held(key)
    if more <= 0 then return {i, 'concurrent', 1000000} end
    left[#left + 1] = more - 1
  end
  if rows > 0 then
    local more = rows - spent(key)
    if more <= 0 then return {i, 'rows', midnight} end
    left[#left + 1] = more
  end
end
for i, key in ipairs(KEYS) do
  if times[i] then
    redis.call('HSET', key, 'time', string.format('%.0f', times[i]))
    redis.call('EXPIRE', key, 172800 + math.ceil(tonumber(ARGV[4 * i - 1]) / 1000000))
  end
  if tonumber(ARGV[4 * i]) > 0 then
    redis.call('HINCRBY', key .. ':held', ARGV[1], 1)
    redis.call('EXPIRE', key .. ':held', 86400)
  end
end
return left
"""
)

_CHARGE = (
    _COMMON
    + """
for i, key in ipairs(KEYS) do
  local more = tonumber(ARGV[i + 1]) - spent(key)
  if more < tonumber(ARGV[1]) then return {i, math.max(0, more), midnight} end
end
for _, key in ipairs(KEYS) do redis.call('HINCRBY', key, 'rows', ARGV[1]) end
return {0}
"""
)

_REPORT = (
    _COMMON
    + """
redis.call('ZREMRANGEBYSCORE', workers, '-inf', string.format('%.0f', now - 3000000))
local known = redis.call('ZSCORE', workers, ARGV[1])
redis.call('ZADD', workers, string.format('%.0f', now), ARGV[1])
local servers, count = {}, 0
for _, worker in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
  local server = string.match(worker, '^(.*)/')
  if server and not servers[server] then servers[server], count = true, count + 1 end
end
return {known and 1 or 0, count}
"""
)


def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class RedisCounters:
    """The counters in Redis, as one worker uses them. Lives on one event loop.

    Attributes:
        servers: how many servers were last seen to use these counters.
    """

    def __init__(self, address: StoreAddress, timeout: float, log: Log, gauge: Slot) -> None:
        """Connect to nothing yet.

        Args:
            timeout: seconds until an answer is late.
            gauge: is 1 while Redis cannot be asked.
        """
        self._gauge = gauge
        scripts = [("SCRIPT", "LOAD", script) for script in (_ADMIT, _CHARGE, _REPORT)]
        self._connection = RedisConnection(address, timeout, scripts, log)
        self._worker = f"{socket.gethostname()}-{os.getppid()}/{os.getpid()}"
        self._held: defaultdict[str, int] = defaultdict(int)
        self._pending = 0
        self._started = False
        self._must_restore = False
        self.servers = 1

    @property
    def failing(self) -> str:
        """The reason for which Redis cannot be asked; empty if it can."""
        return self._connection.failing

    def start(self) -> None:
        """Connect, from the running event loop, unless this was called before."""
        if not self._started:
            loop = asyncio.get_running_loop()
            self._started = True
            self._connection.start(self._opened)
            loop.call_later(REPORT_SECONDS, self._report_often)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def admit(self, meters: Sequence[Meter], done: Callable[[Left | Refusal | None], None]) -> None:
        """Count a request, if every meter allows it; None says that Redis cannot tell."""
        holding = [meter.subject for meter in meters if meter.concurrent]
        self._pending += 1

        def judge(answer: Any) -> None:
            self._pending -= 1
            if answer is None:
                done(None)
            elif answer[0]:
                done(Refusal(meters[answer[0] - 1], answer[1], 1000 * answer[2]))
            else:
                for subject in holding:
                    self._held[subject] += 1
                done(_in_nanoseconds(meters, answer[1:]))

        numbers = [each for meter in meters for each in _numbers(meter)]
        self._call(judge, _ADMIT, meters, self._worker, *numbers)

    def charge(self, meters: Sequence[Meter], rows: int, done: Callable[[Refusal | bool | None], None]) -> None:
        """Count the rows of a request, if every meter allows them (True); None says that Redis cannot tell."""

        def judge(answer: Any) -> None:
            if answer is None or not answer[0]:
                done(None if answer is None else True)
            else:
                done(Refusal(meters[answer[0] - 1], "rows", 1000 * answer[2], answer[1]))

        self._call(judge, _CHARGE, meters, rows, *(meter.rows for meter in meters))

    def release(self, subjects: Sequence[str]) -> None:
        """End a request that was counted."""
        for subject in subjects:
            self._held[subject] -= 1
            self._connection.call(_ignore, "HINCRBY", f"{PREFIX}{subject}:held", self._worker, -1)

    def _call(self, done: Callable[[Any], None], script: str, meters: Sequence[Meter], *numbers: str | int) -> None:
        self.start()
        names = [f"{PREFIX}{meter.subject}" for meter in meters]
        self._connection.call(done, "EVALSHA", _digest(script), len(names), *names, *numbers)

    def _opened(self) -> None:
        self._report()
        self._restore()

    def _report_often(self) -> None:
        self._gauge.set(1.0 if self._connection.failing else 0.0)
        if not self._connection.failing:
            self._report()
        if self._must_restore and not self._pending:
            self._restore()
        asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report_often)

    def _report(self) -> None:
        def take(answer: Any) -> None:
            if answer is not None:
                self.servers = max(1, answer[1])
                self._must_restore = self._must_restore or not answer[0]

        self._connection.call(take, "EVALSHA", _digest(_REPORT), 0, self._worker)

    def _restore(self) -> None:
        """Tell Redis what this worker is answering: Redis was restarted, or the worker was taken for dead."""
        self._must_restore = False
        for subject, count in self._held.items():
            self._connection.call(_ignore, "HSET", f"{PREFIX}{subject}:held", self._worker, count)


def _ignore(answer: Any) -> None:
    """An answer that changes nothing."""


def _numbers(meter: Meter) -> tuple[int, int, int, int]:
    """The limits of a meter as the scripts take them, in microseconds."""
    interval = -(-meter.interval // 1000)
    burst = meter.tolerance // meter.interval if meter.interval else 0
    return interval, burst * interval, meter.concurrent, meter.rows


def _in_nanoseconds(meters: Sequence[Meter], answer: Sequence[int]) -> Left:
    left, numbers = [], iter(answer)
    for meter in meters:
        if meter.interval:
            left.append(1000 * next(numbers))
        left += [next(numbers) for limit in (meter.concurrent, meter.rows) if limit]
    return left
