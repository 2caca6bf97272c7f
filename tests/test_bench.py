"""The harness in bench/ reports figures as they are, and no process that it started outlives it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parent.parent / "bench"
ROUND = {"rps": 100.0, "p50_ms": 1.0, "p99_ms": 2.0, "cpu_us": 40.0, "bad": 0, "other_load": 0.0}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for module in BENCH.glob("*.py"):
        monkeypatch.delitem(sys.modules, module.stem, raising=False)
    monkeypatch.syspath_prepend(str(BENCH))
    import table

    return table


def _peer(title: str, *rates: float) -> dict[str, object]:
    rounds = [
        {"cold_start_s": 1.0, "rss_mb": 10.0, "pss_mb": 9.0, "loads": {"8": ROUND | {"rps": rate}}} for rate in rates
    ]
    return {"title": title, "rounds": rounds, "environment_mb": 5.0, "difference": None, "versions": {"a": "1"}}


def _report(**peers: dict[str, object]) -> dict[str, object]:
    machine = {"cpu": "c", "cores": 2, "memory_gb": 1.0, "system": "s", "python": "3"}
    settings = {"date": "2026-01-02T03", "commit": "abc", "data": "d", "rounds": 3, "seconds": 1, "connections": [8]}
    return {**settings, "machine": machine, "peers": peers}


def test_ratios_are_taken_within_each_round(table: ModuleType) -> None:
    report = _report(estiba=_peer("Estiba", 1000, 10, 1200), other=_peer("Other", 100, 1, 100))
    line = next(line for line in table.markdown(report).splitlines() if line.startswith("| Other"))
    assert line.startswith("| Other | 100 (1–100) | 10× |")


def test_a_peer_that_failed_is_named_with_its_reason(table: ModuleType) -> None:
    report = _report(estiba=_peer("Estiba", 10), gone={"title": "Gone", "rounds": [], "skipped": "would not install"})
    said = table.markdown(report)
    assert "- Gone: would not install" in said
    assert "| Gone" not in said


def test_a_noisy_machine_is_admitted(table: ModuleType) -> None:
    noisy = _peer("Estiba", 10)
    noisy["rounds"][0]["loads"]["8"]["other_load"] = 0.9  # type: ignore[index]
    assert "not quiet" in table.markdown(_report(estiba=noisy))
    assert "not quiet" not in table.markdown(_report(estiba=_peer("Estiba", 10)))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the harness reads /proc")
def test_orphans_that_ignore_a_polite_end_are_killed() -> None:
    stays = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    leaves_it = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {stays!r}], start_new_session=True)"
    harness = f"""
        import subprocess, sys
        from servers import adopt_orphans, descendants, end
        adopt_orphans()
        process = subprocess.Popen([sys.executable, "-c", {leaves_it!r}], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"up\\n"
        assert descendants()
        end(process)
        print(descendants())
    """
    command = [sys.executable, "-c", textwrap.dedent(harness)]
    ran = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
