"""A real Redis server for tests, in a temporary folder, that can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from estiba.core.ports import free

PASSWORD = "geheim"


class Redis:
    """One server on a free port, which asks for a password and keeps nothing on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free("127.0.0.1")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/3"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD]
        command = ["redis-server", *options, "--dir", str(self._folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while self.ask("PING") != "PONG":
            assert time.monotonic() < end, "Redis does not start"
            time.sleep(0.02)

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def ask(self, *command: str) -> str:
        """The answer to a command."""
        client = ["redis-cli", "-p", str(self.port), "-n", "3", "--no-auth-warning", "-a", PASSWORD, *command]
        return subprocess.run(client, capture_output=True, text=True, timeout=10, check=False).stdout.strip()


@contextmanager
def redis_server() -> Iterator[Redis]:
    """A server that ends with the block; skips the test where Redis is not installed, except in CI."""
    if shutil.which("redis-server") is None:
        assert not os.environ.get("CI"), "Redis is not installed"
        pytest.skip("Redis is not installed: apt install redis-server")
    folder = Path(tempfile.mkdtemp(prefix="estiba-redis-"))
    server = Redis(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
