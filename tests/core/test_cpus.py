"""Quotas and throttling as cgroup v2 and v1 write them, in folders made by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from estiba.core.cpus import NATIVE_THREADS, Throttled, available, limit_native_threads, throttled

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def v1(root: Path, quota: str, period: str = "100000") -> Path:
    (root / "cpu").mkdir(exist_ok=True)
    (root / "cpu/cpu.cfs_quota_us").write_text(quota + "\n")
    (root / "cpu/cpu.cfs_period_us").write_text(period + "\n")
    return root


def v2(root: Path, limit: str) -> Path:
    (root / "cpu.max").write_text(limit + "\n")
    return root


@pytest.mark.parametrize(("limit", "count"), [("100000 100000", 1), ("20000 100000", 1), ("5000 100000", 1)])
def test_a_quota_below_two_is_one_processor(tmp_path: Path, limit: str, count: int) -> None:
    assert available(v2(tmp_path, limit)) == count
    assert available(v1(tmp_path, *limit.split())) == count


@pytest.mark.parametrize(("quota", "count"), [("200000", 2), ("299999", 2), ("99000000", HERE)])
def test_a_quota_is_rounded_down_and_never_above_the_affinity(tmp_path: Path, quota: str, count: int) -> None:
    assert available(v2(tmp_path, f"{quota} 100000")) == min(count, HERE)
    (tmp_path / "cpu.max").unlink()
    assert available(v1(tmp_path, quota)) == min(count, HERE)


@pytest.mark.parametrize("limit", ["max 100000", "", "nonsense"])
def test_no_quota_is_the_affinity(tmp_path: Path, limit: str) -> None:
    assert available(v2(tmp_path, limit)) == HERE


@pytest.mark.parametrize(("quota", "period"), [("-1", "100000"), ("0", "100000"), ("100", "0"), ("?", "100000")])
def test_no_quota_in_v1_is_the_affinity(tmp_path: Path, quota: str, period: str) -> None:
    assert available(tmp_path) == HERE
    assert available(v1(tmp_path, quota, period)) == HERE


def test_v2_goes_before_v1(tmp_path: Path) -> None:
    assert available(v1(v2(tmp_path, "max 100000"), "100000")) == HERE


def test_throttling_in_v2(tmp_path: Path) -> None:
    counts = "usage_usec 99\nuser_usec 1\nnr_periods 12\nnr_throttled 3\nthrottled_usec 1500000\nnr_bursts 0\n"
    (tmp_path / "cpu.stat").write_text(counts)
    assert throttled(tmp_path) == Throttled(12, 3, 1.5)


def test_throttling_in_v1(tmp_path: Path) -> None:
    v1(tmp_path, "100000")
    (tmp_path / "cpu/cpu.stat").write_text("nr_periods 7\nnr_throttled 2\nthrottled_time 2500000000\n")
    assert throttled(tmp_path) == Throttled(7, 2, 2.5)


@pytest.mark.parametrize("content", ["", "usage_usec 5\nuser_usec 5\n", "nr_periods\n", "nr_periods x\nnr_throttled 1"])
def test_throttling_that_the_kernel_does_not_tell(tmp_path: Path, content: str) -> None:
    assert throttled(tmp_path) is None
    (tmp_path / "cpu.stat").write_text(content)
    assert throttled(tmp_path) is None


def test_native_threads_are_told_unless_somebody_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NATIVE_THREADS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    limit_native_threads(3)
    assert [os.environ[name] for name in NATIVE_THREADS] == ["7", "3", "3", "3"]
