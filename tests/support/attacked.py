"""Measure the memory of a real server's worker while it gets hostile requests."""

from __future__ import annotations

import gzip
import http.client
import resource
from collections.abc import Mapping
from pathlib import Path

import supervised

MIB = 2**20


def resident(pid: int, what: str = "VmRSS") -> int:
    """Bytes of memory of a process, or with VmHWM its peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024


def limit_memory(pid: int, more: int) -> None:
    """Limit a process's address space to its current size and `more` bytes."""
    most = resident(pid, "VmSize") + more
    resource.prlimit(pid, resource.RLIMIT_AS, (most, most))


class Target:
    """The only worker of a server, with its memory use for one request."""

    def __init__(self, server: supervised.Server) -> None:
        self.server = server
        (self.worker,) = server.workers()

    def peak(self) -> None:
        """Reset the measured peak of the worker's memory."""
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")
        self._before = resident(self.worker)

    def growth(self) -> int:
        """Bytes by which the worker's memory grew at its peak, or -1 if the worker died."""
        if self.server.workers() != [self.worker]:
            return -1
        return max(0, resident(self.worker, "VmHWM") - self._before)

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, packed: bool = False) -> tuple[int, bytes]:
        """Status and body of the answer; `packed` sends the request with gzip."""
        more = {"content-encoding": "gzip"} if packed else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request("POST", path, gzip.compress(body, 9) if packed else body, {**headers, **more})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
