"""Counters of limits that processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from estiba.core.errors import EstibaError
from estiba.gateway import limit_memory
from estiba.gateway.limit_memory import LimitMemory, Meter, Refusal

SECOND = 10**9


def meter(memory: LimitMemory, name: str = "ada", *, rate: float = 0, burst: int = 1, **limits: int) -> Meter:
    interval = round(SECOND / rate) if rate else 0
    at = memory.at_of([name])[name]
    return Meter(
        at, interval, burst * interval, limits.get("concurrent", 0), limits.get("rows", 0), "key", name, name
    )  # fmt: skip


def admitted(memory: LimitMemory, meters: list[Meter], count: int) -> int:
    return sum(not isinstance(memory.admit(meters), Refusal) for _ in range(count))


class Clock:
    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def test_a_burst_is_admitted_and_then_the_rate(tmp_path: Path) -> None:
    memory = LimitMemory(tmp_path)
    ada = meter(memory, rate=20, burst=10)
    began = time.monotonic()
    assert admitted(memory, [ada], 40) == 10 + int((time.monotonic() - began) * 20)
    refusal = memory.admit([ada])
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, 0 < refusal.wait <= SECOND / 20) == ("rate", True)
    time.sleep(refusal.wait / SECOND + 0.001)
    assert not isinstance(memory.admit([ada]), Refusal)


def test_a_request_that_one_meter_refuses_counts_for_none(tmp_path: Path) -> None:
    memory = LimitMemory(tmp_path)
    key, model = meter(memory, "key", rate=0.001, burst=5), meter(memory, "model", rate=0.001, burst=3)
    assert admitted(memory, [key, model], 10) == 3
    assert admitted(memory, [key], 10) == 2


def test_a_lower_limit_is_not_blocked_by_what_an_earlier_one_allowed(tmp_path: Path) -> None:
    memory = LimitMemory(tmp_path)
    assert admitted(memory, [meter(memory, rate=0.01, burst=1000)], 1000) == 1000
    faster = meter(memory, rate=1000, burst=1)
    assert isinstance(memory.admit([faster]), Refusal)
    time.sleep(0.002)
    assert not isinstance(memory.admit([faster]), Refusal)


def test_shares_of_several_servers_are_no_more_than_the_limit(tmp_path: Path) -> None:
    memory = LimitMemory(tmp_path)
    assert admitted(memory, [meter(memory, "rate", rate=0.001, burst=9).shared(3)], 20) == 3
    assert admitted(memory, [meter(memory, "less", rate=0.001, burst=2).shared(3)], 20) == 1
    assert admitted(memory, [meter(memory, "held", concurrent=9).shared(3)], 20) == 3
    rows = meter(memory, "rows", rows=90).shared(3)
    assert memory.charge([rows], 30) is None
    assert memory.charge([rows], 1) is not None


def test_rows_are_counted_from_midnight_to_midnight(tmp_path: Path) -> None:
    clock = Clock(20_000 * 86_400 - 10.0)
    memory = LimitMemory(tmp_path, clock)
    ada = meter(memory, rows=100)
    assert memory.charge([ada], 60) is None
    refused = memory.charge([ada], 41)
    assert refused == Refusal(ada, "rows", 10 * SECOND, 40)
    assert memory.charge([ada], 40) is None
    assert memory.admit([ada]) == Refusal(ada, "rows", 10 * SECOND)
    clock.at += 10
    assert not isinstance(memory.admit([ada]), Refusal)
    assert memory.charge([ada], 100) is None
    assert memory.charge([ada], 1) is not None


def test_a_clock_that_is_set_back_gives_no_rows_back(tmp_path: Path) -> None:
    clock = Clock(20_000 * 86_400 + 10.0)
    memory = LimitMemory(tmp_path, clock)
    ada = meter(memory, rows=100)
    assert memory.charge([ada], 100) is None
    clock.at -= 3 * 86_400
    assert memory.charge([ada], 1) is not None
    clock.at += 86_400
    assert memory.charge([ada], 100) is None


OTHER = """
import sys, time
from pathlib import Path
from estiba.gateway.limit_memory import LimitMemory, Meter, Refusal
memory = LimitMemory(Path(sys.argv[1]))
rate, held = (memory.at_of(["other", "rate", "held"])[name] for name in ("rate", "held"))
rated, holding = Meter(rate, 10**12, 1000 * 10**12, 0, 0, "", "", ""), Meter(held, 0, 0, 5, 0, "", "", "")
meters = {"rate": rated, "held": holding}
taken = sum(not isinstance(memory.admit([meters[sys.argv[2]]]), Refusal) for _ in range(int(sys.argv[3])))
print(taken, flush=True)
sys.stdin.read()
"""


def other(folder: Path, kind: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OTHER, str(folder), kind, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def taken(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_processes_that_ask_at_once_are_admitted_exactly_as_often_as_allowed(tmp_path: Path) -> None:
    processes = [other(tmp_path, "rate", 20_000) for _ in range(3)]
    assert sum(taken(process) for process in processes) == 1000
    end(*processes)


@pytest.mark.slow
def test_requests_of_a_process_that_was_killed_are_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_memory, "CHECK_SECONDS", 0.0)
    memory = LimitMemory(tmp_path)
    held = meter(memory, "held", concurrent=5)
    assert not isinstance(memory.admit([held]), Refusal)
    first = other(tmp_path, "held", 3)
    assert taken(first) == 3
    second = other(tmp_path, "held", 9)
    assert taken(second) == 1
    assert isinstance(memory.admit([held]), Refusal)
    end(first)
    assert admitted(memory, [held], 9) == 3
    end(second)
    assert admitted(memory, [held], 9) == 1
    memory.hold([held.at], -5)
    assert admitted(memory, [held], 9) == 5
    assert [path.name for path in tmp_path.glob("limits-*.held")] == [f"limits-{os.getpid()}.held"]


def test_records_of_keys_that_are_gone_are_given_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_memory, "MAX_RECORDS", 4)
    memory = LimitMemory(tmp_path)
    first = memory.at_of(["a", "b", "c", "d"])
    assert len(set(first.values())) == 4
    with pytest.raises(EstibaError, match="more than 4 keys and models"):
        memory.at_of(["a", "b", "c", "d", "e"])
    assert LimitMemory(tmp_path).at_of(["d", "a"]) == {"d": first["d"], "a": first["a"]}
    monkeypatch.setattr(limit_memory, "IDLE_NANOSECONDS", 0)
    assert memory.at_of(["a", "b", "c", "e"]) == {**{name: first[name] for name in "abc"}, "e": first["d"]}


def test_without_room_the_reason_is_said(tmp_path: Path) -> None:
    (tmp_path / "limits.memory").mkdir()
    with pytest.raises(EstibaError, match="The counters of limits cannot be kept in"):
        LimitMemory(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["limits.memory"]
