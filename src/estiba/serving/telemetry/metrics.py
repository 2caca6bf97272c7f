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
from typing import Literal, NamedTuple

import msgspec

from estiba.core import cpus
from estiba.core.guard import process_stat
from estiba.model.schema.signature import MAX_INTEGER

INITIAL_BYTES = 1 << 20
MAX_BYTES = 1 << 24
"""Size of a file, at first and at most."""

FREE = 1
"""The state of an unused entry."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 10240.0, 102400.0)


class Metric(NamedTuple):
    """The definition of a metric.

    Args:
        labels: names of its labels.
        buckets: upper bounds of a histogram.
        aggregate: how the values of several workers combine; `max` for a gauge that is the same in every worker.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    aggregate: Literal["sum", "max"] = "sum"


METRICS = (
    Metric(
        "estiba_requests_total", "counter", "Prediction requests answered.",
        ("model", "version", "variant", "protocol", "code"),
    ),
    Metric(
        "estiba_request_duration_seconds", "histogram", "From the last byte of the request to the answer.",
        ("model", "version", "protocol"), SECONDS,
    ),
    Metric(
        "estiba_predict_duration_seconds", "histogram", "Time in the model, per batch.", ("model", "version"), SECONDS
    ),
    Metric("estiba_batch_rows", "histogram", "Rows that went to the model at once.", ("model", "version"), ROWS),
    Metric("estiba_rows_total", "counter", "Rows predicted.", ("model", "version")),
    Metric("estiba_queue_rows", "gauge", "Rows that wait for a model.", ("model",)),
    Metric("estiba_connections", "gauge", "Open connections of clients, as counted twice a second."),
    Metric("estiba_buffered_bytes", "gauge", "Bodies and responses held for clients, as counted twice a second."),
    Metric("estiba_connections_refused_total", "counter", "Connections refused, as the server held as many as it can."),
    Metric("estiba_log_lines_skipped_total", "counter", "Lines of requests left out of the log, over its limit."),
    Metric("estiba_spans_dropped_total", "counter", "Spans that were not sent, by requests.", ("reason",)),
    Metric(
        "estiba_shadow_rows_total", "counter", "Rows copied for a candidate whose answers nobody gets.",
        ("model", "version", "outcome"),
    ),
    Metric(
        "estiba_shadow_duration_seconds", "histogram", "Time in the candidate, per run of copies.",
        ("model", "version"), SECONDS,
    ),
    Metric("estiba_requests_in_flight", "gauge", "Prediction requests being answered now.", ("model",)),
    Metric(
        "estiba_limited_total", "counter", "Requests refused by a limit of a key or a model.",
        ("model", "key", "policy"),
    ),
    Metric("estiba_limits_store_failing", "gauge", "Workers that cannot reach the store of the limits now."),
    Metric(
        "estiba_limits_without_store_total", "counter", "Requests with limits while their store could not be reached.",
        ("decision",),
    ),
    Metric("estiba_cache_requests_total", "counter", "Requests, by what the cache knew.", ("model", "result")),
    Metric("estiba_cache_bytes", "gauge", "Memory of the cache's answers."),
    Metric("estiba_cache_entries", "gauge", "Rows whose answers are in memory."),
    Metric("estiba_cache_evictions_total", "counter", "Answers that left memory to make room for others."),
    Metric("estiba_cache_store_failing", "gauge", "Workers that cannot reach the store of the cache now."),
    Metric("estiba_rejected_total", "counter", "Requests refused before the model.", ("model", "reason")),
    Metric(
        "estiba_unseen_category_total", "counter", "Values that the model never saw in training.", ("model", "feature")
    ),
    Metric(
        "estiba_model_loaded", "gauge", "1 while a version is being served.", ("model", "version"), aggregate="max"
    ),
    Metric(
        "estiba_model_load_duration_seconds", "gauge", "Reading, verifying and proving a version.",
        ("model", "version"), aggregate="max",
    ),
    Metric(
        "estiba_model_info", "gauge", "What is being served; always 1.",
        ("model", "version", "digest", "framework", "engine"), aggregate="max",
    ),
    Metric(
        "estiba_parity_max_abs_error", "gauge", "Largest difference to training over the golden rows, at load.",
        ("model", "version"), aggregate="max",
    ),
    Metric("estiba_workers", "gauge", "Worker processes.", ("state",)),
    Metric("estiba_worker_restarts_total", "counter", "Workers replaced.", ("reason",)),
    Metric("estiba_swap_failures_total", "counter", "Newer versions that were not taken into service.", ("model",)),
    Metric("estiba_log_rows_total", "counter", "Rows for the log of predictions.", ("outcome",)),
    Metric("estiba_log_failing", "gauge", "Workers that cannot write the log of predictions now."),
    Metric("estiba_certificate_expiry_seconds", "gauge", "When the certificate expires, in seconds since 1970."),
    Metric(
        "estiba_drift_statistic", "gauge", "Difference to the reference in the last window, 0 to 1.",
        ("model", "field", "statistic"), aggregate="max",
    ),
    Metric(
        "estiba_drift_detected", "gauge", "1 while a field or an output drifts.", ("model", "field"), aggregate="max"
    ),
    Metric("estiba_drift_window_rows", "gauge", "Rows of the last window of drift.", ("model",), aggregate="max"),
    Metric(
        "estiba_drift_silent", "gauge", "1 while a model gets no rows in an hour that had 100 a week ago.",
        ("model",), aggregate="max",
    ),
    Metric("estiba_drift_rows_total", "counter", "Rows for the windows of drift.", ("model", "outcome")),
    Metric("estiba_policy_age_seconds", "gauge", "Time since the policies, such as keys, were last read."),
    Metric(
        "estiba_build_info", "gauge", "The server itself; always 1.", ("version", "python"), aggregate="max"
    ),
    Metric("estiba_cpu_periods_total", "counter", "Periods of the cgroup's processor quota."),
    Metric("estiba_cpu_throttled_periods_total", "counter", "Periods in which the cgroup's processor quota ran out."),
    Metric("estiba_cpu_throttled_seconds_total", "counter", "Time that processes waited for the cgroup's next period."),
    Metric("process_open_fds", "gauge", "Open files and sockets of all processes."),
    Metric("process_start_time_seconds", "gauge", "When the oldest process started, in seconds since 1970."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory of all workers."),
    Metric("process_cpu_seconds_total", "counter", "Processor time of all workers, user and system."),
)  # fmt: skip

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
