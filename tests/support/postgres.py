"""A real PostgreSQL server for tests, in a temporary folder, that can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from estiba.core.ports import free


class Postgres:
    """One server on a free port, with a database `estiba` and a superuser of that name."""

    def __init__(self, programs: Path, data: Path) -> None:
        self._programs = programs
        self._data = data
        self.port = free("127.0.0.1")
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(data.parent, self._user)

    @property
    def url(self) -> str:
        return f"postgresql://estiba@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        self._run("initdb", "--username=estiba", "--auth=trust", "--no-sync", "--pgdata", str(self._data))

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = self._data.parent / "log"
        self._run("pg_ctl", "start", "--wait", "-D", str(self._data), "-l", str(log), "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "-D", str(self._data), "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, user=self._user,
            cwd="/", timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server that ends with the block; skips the test where PostgreSQL is not installed, except in CI."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    programs = found[-1] if found else Path(shutil.which("initdb") or "").parent
    if not (programs / "initdb").exists():
        assert not os.environ.get("CI"), "PostgreSQL is not installed"
        pytest.skip("PostgreSQL is not installed: apt install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="estiba-postgres-"))
    server = Postgres(programs, folder / "data")
    try:
        server.create()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
