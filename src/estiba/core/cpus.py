"""How much processor this process may use: the cgroup's quota, not the host's core count."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

NATIVE_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Throttled(NamedTuple):
    """What the cgroup's quota has cost: periods that passed, those in which it ran out, and seconds of waiting."""

    periods: int
    throttled: int
    seconds: float


def available(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole processors that this process may keep busy, at least 1. Reads cgroup v2, then v1, then affinity."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return max(1, min(affinity, math.floor(quota) if quota is not None else affinity))


def limit_native_threads(count: int) -> None:
    """Tells OpenMP and the BLAS libraries, which read it when they are first imported, in this process and below."""
    for name in NATIVE_THREADS:
        os.environ.setdefault(name, str(count))


def throttled(root: Path = Path("/sys/fs/cgroup")) -> Throttled | None:
    """How often the cgroup, v2 or v1, held its processes back; None where the kernel does not say."""
    for path in (root / "cpu.stat", root / "cpu/cpu.stat"):
        try:
            said = dict(line.split() for line in path.read_text().splitlines())
            micro = int(said["throttled_usec"]) if "throttled_usec" in said else int(said["throttled_time"]) / 1e3
            return Throttled(int(said["nr_periods"]), int(said["nr_throttled"]), micro / 1e6)
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
