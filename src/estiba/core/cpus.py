"""The number of processors that this process may use, by the cgroup's quota and not the host's core count."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

NATIVE_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Throttled(NamedTuple):
    """CPU throttling by the cgroup's quota: all periods, periods in which it ran out, and seconds of waiting."""

    periods: int
    throttled: int
    seconds: float


def available(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole processors that this process may keep busy, at least 1. Reads cgroup v2, then v1, then affinity."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return max(1, min(affinity, math.floor(quota) if quota is not None else affinity))


def limit_native_threads(count: int) -> None:
    """Set the threads of OpenMP and BLAS libraries, which read them when first imported, also in child processes."""
    for name in NATIVE_THREADS:
        os.environ.setdefault(name, str(count))


def throttled(root: Path = Path("/sys/fs/cgroup")) -> Throttled | None:
    """CPU throttling of this cgroup, v2 or v1; None where the kernel does not report it."""
    for path in (root / "cpu.stat", root / "cpu/cpu.stat"):
        try:
            fields = dict(line.split() for line in path.read_text().splitlines())
            micro = int(fields["throttled_usec"]) if "throttled_usec" in fields else int(fields["throttled_time"]) / 1e3
            return Throttled(int(fields["nr_periods"]), int(fields["nr_throttled"]), micro / 1e6)
        except (OSError, ValueError, KeyError):
            continue
    return None


def _quota(root: Path) -> float | None:
    """Processors allowed by the cgroup; None where it sets no limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int((root / "cpu/cpu.cfs_quota_us").read_text())
        return None if limit_us <= 0 else limit_us / int((root / "cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None
