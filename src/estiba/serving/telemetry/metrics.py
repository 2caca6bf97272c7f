"""Prometheus metrics of several workers, in memory-mapped files.

Every worker keeps its numbers in a file of its own, and the worker that is scraped adds all files up. A worker that
replaces a dead one opens the same file and continues its counts, so none is lost. An update is an addition to a float64
in memory: no lock, no system call.

The file: 8 bytes with the process id, then entries of (uint32 key length, uint32 state, key padded to 8 bytes,
float64). A key is the metric's name and its label values as a JSON array. A key length of zero ends the file. A state
of FREE means that the entry is unused, and that a key of the same padded length may take it. The file grows; entries
keep their offset, as an older mapping of a file shows the same memory as a newer one.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import tempfile
import time
import weakref
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from estiba.core import cpus
from estiba.core.guard import process_stat
from estiba.model.schema.signature import MAX_INTEGER
from estiba.serving.telemetry.metric_table import METRICS, Metric

INITIAL_BYTES = 1 << 20
MAX_BYTES = 1 << 24
"""Size of a file, at first and at most."""

FREE = 1
"""The state of an unused entry."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_KINDS = {metric.name: metric for metric in METRICS}


class Slot:
    """One number in the file."""

    __slots__ = ("_at", "_values")

    def __init__(self, values: memoryview[float], at: int) -> None:
        self._values = values
        self._at = at

    def add(self, amount: float = 1.0) -> None:
        self._values[self._at] += amount

    def set(self, value: float) -> None:
        self._values[self._at] = value


class Histogram:
    """A count per bucket, a sum and a count."""

    __slots__ = ("_bounds", "_buckets", "_count", "_sum", "_values")

    def __init__(self, values: memoryview[float], bounds: tuple[float, ...], at: list[int]) -> None:
        self._values = values
        self._bounds = bounds
        self._buckets = at[:-2]
        self._sum, self._count = at[-2:]

    def observe(self, value: float) -> None:
        values = self._values
        values[self._buckets[bisect_left(self._bounds, value)]] += 1.0
        values[self._sum] += value
        values[self._count] += 1.0


class Metrics:
    """The metrics of one worker. `slot` and `histogram` find or create a series; keep what they return."""

    def __init__(self, file: Path | None = None) -> None:
        """Open or create `file`; without one the metrics are private to this process."""
        self._file = _open(file)
        weakref.finalize(self, os.close, self._file)
        self._map, self._values = _mapped(self._file)
        self._map[:8] = struct.pack("=Q", os.getpid())
        self._known = {key: at for key, at, _ in _entries(self._map)}
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._end = 8
        for start, length, state in _headers(self._map):
            self._end = start + 16 + _padded(length)
            if state == FREE:
                self._free[_padded(length)].append(start)
        for key, at in self._known.items():
            if _KINDS[_name(key)].kind == "gauge":
                self._values[at] = 0.0
        self.folder = file.parent if file else None

    def slot(self, name: str, *labels: str) -> Slot:
        """A counter or gauge with these label values, in the order of the metric's label names."""
        at = self._index(name, labels)
        return Slot(self._values, at)

    def histogram(self, name: str, *labels: str) -> Histogram:
        bounds = _KINDS[name].buckets
        names = [f"{bound:g}" for bound in bounds] + ["+Inf", "sum", "count"]
        indexes = [self._index(name, (*labels, part)) for part in names]
        return Histogram(self._values, bounds, indexes)

    def _index(self, name: str, labels: tuple[str, ...]) -> int:
        key = msgspec.json.encode([name, *labels])
        if key not in self._known:
            self._known[key] = self._add_entry(key)
        return self._known[key]

    def _add_entry(self, key: bytes) -> int:
        """Write a new key into a free entry or after the last one. A concurrent reader sees all of it or nothing."""
        size = _padded(len(key))
        free = self._free[size]
        start = free.pop() if free else self._end
        if not free and start == self._end:
            while start + 24 + size > len(self._map):
                self._grow()
            self._end = start + 16 + size
        self._map[start + 8 : start + 8 + size] = key.ljust(size)
        self._map[start : start + 8] = struct.pack("=II", len(key), 0)
        return (start + 8 + size) // 8

    def _grow(self) -> None:
        if len(self._map) >= MAX_BYTES:
            raise MemoryError("The metrics file is full: a label has too many values.")
        os.posix_fallocate(self._file, 0, 2 * len(self._map))
        self._map, self._values = _mapped(self._file)

    def versions(self) -> list[tuple[str, str]]:
        """Models and versions that have series here, in the order of their creation."""
        found = (_version(key) for key in self._known)
        return list(dict.fromkeys(each for each in found if each is not None))

    def forget(self, model: str, version: str) -> None:
        """Free the entries of a version. None of its slots may be in use any more."""
        for key in [key for key in self._known if _version(key) == (model, version)]:
            at = self._known.pop(key)
            size = _padded(len(key))
            start = 8 * at - 8 - size
            self._map[start : start + 8] = struct.pack("=II", len(key), FREE)
            self._values[at] = 0.0
            self._free[size].append(start)

    def render(self) -> bytes:
        """Render the metrics of all workers in the Prometheus text format, 0.0.4."""
        if self.folder is None:
            return render([bytes(self._map)])
        return render([path.read_bytes() for path in self.folder.glob("*.metrics")])


def _open(file: Path | None) -> int:
    """A descriptor of the file, or of an unnamed temporary one; it stays open so that the file can grow."""
    if file is not None:
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    else:
        with tempfile.TemporaryFile() as nameless:
            opened = os.dup(nameless.fileno())
    os.posix_fallocate(opened, 0, max(INITIAL_BYTES, os.fstat(opened).st_size))  # or a full disk fails later
    return opened


def _mapped(file: int) -> tuple[mmap.mmap, memoryview[float]]:
    mapped = mmap.mmap(file, 0)
    return mapped, memoryview(mapped).cast("d")


def _padded(length: int) -> int:
    return length + (-length % 8)


def _headers(content: bytes | mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """(start, key length, state) of each entry."""
    start = 8
    while start + 8 <= len(content):
        length, state = struct.unpack_from("=II", content, start)
        if not length:
            return
        yield start, length, state
        start += 16 + _padded(length)


def _entries(content: bytes | mmap.mmap) -> Iterator[tuple[bytes, int, float]]:
    """(key, position of the value counted in float64, value) of each entry in use."""
    for start, length, state in _headers(content):
        if state != FREE:
            value = start + 8 + _padded(length)
            yield content[start + 8 : start + 8 + length], value // 8, struct.unpack_from("=d", content, value)[0]


def _version(key: bytes) -> tuple[str, str] | None:
    """The model and version labels of a key; None if it lacks either."""
    name, *values = msgspec.json.decode(key)
    labels = dict(zip(_KINDS[name].labels, values, strict=False))  # a histogram's key ends with its bucket
    return (labels["model"], labels["version"]) if "model" in labels and "version" in labels else None


def _name(key: bytes) -> str:
    name: str = msgspec.json.decode(key)[0]
    return name


def render(files: Iterable[bytes]) -> bytes:
    """Add up the files of several workers and format the result."""
    totals: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for content in files:
        if len(content) < 8:  # its process is still creating it
            continue
        pid = struct.unpack_from("=Q", content)[0]
        alive = _alive(pid)
        _add_process(totals, pid)
        for key, _, value in _entries(content):
            try:
                name, *labels = msgspec.json.decode(key)
            except msgspec.DecodeError:  # another key is being written there
                continue
            if not alive and _KINDS[name].kind == "gauge":
                continue  # counters of a dead worker still count; its gauges do not
            family = totals[name]
            known = family.get(tuple(labels), 0.0)
            family[tuple(labels)] = max(known, value) if _KINDS[name].aggregate == "max" else known + value
    _add_throttling(totals)
    lines: list[str] = []
    for metric in METRICS:
        if metric.name in totals:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            lines += _samples(metric, totals[metric.name])
    return ("\n".join(lines) + "\n").encode()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _add_process(totals: dict[str, dict[tuple[str, ...], float]], pid: int) -> None:
    try:
        stat = process_stat(pid)
    except OSError:  # the worker is gone, or there is no /proc
        return
    cpu = stat.cpu_ticks / os.sysconf("SC_CLK_TCK")
    memory = stat.memory_pages * os.sysconf("SC_PAGE_SIZE")
    sums = {"process_cpu_seconds_total": cpu, "process_resident_memory_bytes": float(memory)}
    with suppress(OSError):  # a restricted /proc
        sums["process_open_fds"] = float(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
    for name, value in sums.items():
        totals[name][()] = totals[name].get((), 0.0) + value
    # /proc gives seconds since boot, so compute the time of boot from two clocks.
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    started = round(booted + stat.start_ticks / os.sysconf("SC_CLK_TCK"), 2)
    oldest = totals["process_start_time_seconds"]
    oldest[()] = min(oldest.get((), started), started)


def _add_throttling(totals: dict[str, dict[tuple[str, ...], float]]) -> None:
    counted = cpus.throttled()
    if counted is not None:
        totals["estiba_cpu_periods_total"][()] = float(counted.periods)
        totals["estiba_cpu_throttled_periods_total"][()] = float(counted.throttled)
        totals["estiba_cpu_throttled_seconds_total"][()] = counted.seconds


def _samples(metric: Metric, values: dict[tuple[str, ...], float]) -> Iterator[str]:
    if metric.kind != "histogram":
        for labels in sorted(values):
            yield f"{metric.name}{_labels(metric.labels, labels)} {_number(values[labels])}"
        return
    # A part may be absent while another worker creates this histogram.
    for labels in sorted({key[:-1] for key in values}):
        running = 0.0
        for bound in [f"{b:g}" for b in metric.buckets] + ["+Inf"]:
            running += values.get((*labels, bound), 0.0)
            yield f"{metric.name}_bucket{_labels((*metric.labels, 'le'), (*labels, bound))} {_number(running)}"
        for part in ("sum", "count"):
            yield f"{metric.name}_{part}{_labels(metric.labels, labels)} {_number(values.get((*labels, part), 0.0))}"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    escaped = (v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for v in values)
    return "{" + ",".join(f'{n}="{v}"' for n, v in zip(names, escaped, strict=True)) + "}"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < MAX_INTEGER else repr(value)
