"""Auxiliary processes are kept alive by the supervisor, restarted with backoff, and end with it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import pytest
from policies import policy_server
from toys import SUPPORT, until

from estiba.core.log import Log
from estiba.serving.workers.auxiliary_process import AuxiliaryProcess, AuxiliarySpec


def started(file: Path) -> list[int]:
    return [int(line.split()[0]) for line in file.read_text().splitlines()] if file.exists() else []


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_it_runs_beside_the_workers_and_is_restarted(toy_registry: Path, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    spec = {"registry": str(toy_registry), "models": ["price"], "auxiliary": {"auxiliary_toy": str(file)}}
    with policy_server(spec, tmp_path) as live:
        assert until(lambda: len(started(file)) == 1)
        for count in (2, 3):
            os.kill(started(file)[-1], signal.SIGKILL)
            assert until(lambda count=count: len(started(file)) == count)
        assert httpx.post(f"{live.url}/predict", json={"x": 1.0}).status_code == 200
        assert "auxiliary process ended" in live.log.read_text()
        last = started(file)[-1]
        assert is_alive(last)
        assert live.stop() == 0
        assert until(lambda: not is_alive(last))
    assert len(started(file)) == 3


@pytest.mark.slow
def test_it_ends_when_the_supervisor_is_killed(toy_registry: Path, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    spec = {"registry": str(toy_registry), "models": ["price"], "auxiliary": {"auxiliary_toy": str(file)}}
    with policy_server(spec, tmp_path) as live:
        assert until(lambda: len(started(file)) == 1)
        live.process.kill()
        assert until(lambda: not is_alive(started(file)[0]))


@pytest.mark.slow
def test_restarts_that_fail_come_ever_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    with (tmp_path / "log").open("w") as log:
        process = AuxiliaryProcess(AuxiliarySpec("broken", "no_such_module"), tmp_path, Log("json", log))
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            process.tick()
            time.sleep(0.01)
        process.stop()
        process.kill(1.0)
    assert 2 <= (tmp_path / "log").read_text().count("auxiliary process ended") <= 4
