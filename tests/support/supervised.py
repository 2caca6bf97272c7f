"""`estiba serve` as a user starts it, with its supervisor and workers, of a toy model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import estiba

RECORD = {"x0": 0.5, "x1": -1.0}
BODY = {"records": [RECORD]}


def pack(registry: Path, shift: float = 0.0, name: str = "toy") -> estiba.Packed:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 2)) + shift
    model = LogisticRegression().fit(rows, (rows[:, 0] > shift).astype(int))
    return estiba.pack(model, rows, name=name, registry=registry)


class Server:
    """`estiba serve` as a user starts it."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def workers(self) -> list[int]:
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def metric(self, name: str) -> float:
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def wait(self, condition: object, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():  # type: ignore[operator]
                return
            time.sleep(0.05)
        pytest.fail("it did not happen in time")


@contextmanager
def serving(
    registry: Path,
    *options: str,
    models: Sequence[str] = ("toy",),
    settings: Mapping[str, Any] | None = None,
    limit: Callable[[int], None] = lambda pid: None,
) -> Iterator[Server]:
    """A server of models of that registry, with options of the command and settings of `[server]`.

    Args:
        limit: called with the id of its process before it starts workers.
    """
    if settings:
        file = registry.parent / "settings.json"
        file.write_text(json.dumps(settings))
        options = (*options, "--settings", str(file))
    command = [sys.executable, "-m", "estiba", "serve", *models, "--registry", str(registry), "--port", "0", *options]
    log = registry.parent / "server.log"
    with log.open("w") as errors:  # a pipe that nobody reads would fill up, and stop the server
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    limit(process.pid)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "http://127.0.0.1:" in line:
                yield Server(process, int(line.split("http://127.0.0.1:")[1].split()[0].strip("/")), log)
                break
        else:
            pytest.fail(f"the server did not start: {log.read_text()}")
    finally:
        process.kill()
        process.communicate()


def ask(server: Server) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/predict", json.dumps(BODY).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
        return answer
