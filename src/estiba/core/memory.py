"""The memory that this process may still use, by the limit of its cgroup and the machine's free memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def available(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated before the system ends a process; None where it does not report them.

    The cache of files counts as free: the kernel drops it when memory is needed. Reads cgroup v2, then v1.
    """
    found = [free for free in (_machine(root), _cgroup(root)) if free is not None]
    return min(found) if found else None


def _machine(root: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _cgroup(root: Path) -> int | None:
    """Bytes below the limit of this process' cgroup; None without a limit."""
    for folder, prefix in _folders(root):
        limit, used = ("max", "current") if not prefix else ("limit_in_bytes", "usage_in_bytes")
        with contextlib.suppress(OSError, ValueError):
            bound = (folder / f"memory.{limit}").read_text().strip()
            if bound != "max":
                return int(bound) - int((folder / f"memory.{used}").read_text()) + _cached(folder / "memory.stat")
    return None


def _folders(root: Path) -> Iterator[tuple[Path, str]]:
    """Folders that may hold the limit, each with its prefix: of this process' cgroup, then of the whole container."""
    paths = {"": "/", "memory": "/"}
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in paths:
                paths[controllers] = path
    for prefix, path in paths.items():
        mount = root / "sys/fs/cgroup" / prefix
        yield mount / path.lstrip("/"), prefix
        yield mount, prefix


def _cached(stat: Path) -> int:
    """Bytes of cached files that the kernel can drop."""
    for line in stat.read_text().splitlines():
        name, _, count = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(count)
    return 0
