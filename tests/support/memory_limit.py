"""Limit the memory of a process and its children as a container does, with a cgroup where one can be made."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attacked import resident
from toys import children

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class MemoryLimit:
    """The limit that is in force.

    Args:
        folder: of the cgroup; None where this machine lets no test make one.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._pid = 0

    def add(self, pid: int) -> None:
        """Put a process under the limit, before it starts children."""
        self._pid = pid
        if self._folder is not None:
            (self._folder / "cgroup.procs").write_text(str(pid))

    def worst(self) -> int:
        """Bytes that the processes together used at most: their own memory, in a cgroup with the cache of files."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if self._folder is not None and (self._folder / name).is_file():
                return int((self._folder / name).read_text())
        return sum(resident(pid, "VmHWM") for pid in (self._pid, *children(self._pid)))

    def kills(self) -> int:
        """Processes that the kernel ended for lack of memory."""
        for name, key in (("memory.oom_control", "oom_kill"), ("memory.events", "oom_kill")):
            if self._folder is not None and (self._folder / name).is_file():
                lines = dict(line.split() for line in (self._folder / name).read_text().splitlines())
                return int(lines.get(key, 0))
        return 0


@contextmanager
def memory_limit(most: int) -> Iterator[MemoryLimit]:
    """Make a cgroup of so many bytes, with cgroup v1 or v2 as the machine has it."""
    name = f"estiba-test-{os.getpid()}-{threading.get_ident()}"
    for root, setting in ((V1, "memory.limit_in_bytes"), (V2, "memory.max")):
        folder = root / name
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / setting).write_text(str(most))
        except OSError:
            folder.rmdir()
            continue
        try:
            yield MemoryLimit(folder)
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return
    yield MemoryLimit(None)
