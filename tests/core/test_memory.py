"""Free memory as the kernel reports it for a machine and for cgroups v2 and v1, in folders made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.core.memory import available

MB = 1024 * 1024


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def machine(root: Path, free_mb: int) -> Path:
    return write(root, {"proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {free_mb * 1024} kB"})


def v2(folder: str, limit: object, used: int, cached: int = 0) -> dict[str, object]:
    at = f"sys/fs/cgroup/{folder}memory."
    return {f"{at}max": limit, f"{at}current": used, f"{at}stat": f"anon 5\ninactive_file {cached}"}


def v1(folder: str, limit: int, used: int, cached: int = 0) -> dict[str, object]:
    at = f"sys/fs/cgroup/memory/{folder}memory."
    return {
        f"{at}limit_in_bytes": limit,
        f"{at}usage_in_bytes": used,
        f"{at}stat": f"cache 7\ntotal_inactive_file {cached}",
    }


def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert available(machine(tmp_path, 700)) == 700 * MB
    assert available(write(tmp_path, v2("", "max", 5))) == 700 * MB


def test_a_limit_counts_without_cached_files(tmp_path: Path) -> None:
    root = write(machine(tmp_path, 7000), v2("", 512 * MB, 400 * MB, 100 * MB))
    assert available(root) == 212 * MB


def test_version_1_has_other_names(tmp_path: Path) -> None:
    root = write(machine(tmp_path, 7000), v1("", 512 * MB, 400 * MB, 100 * MB))
    assert available(root) == 212 * MB
    assert available(write(root, v1("", 2**63 - 4096, 5))) == 7000 * MB


@pytest.mark.parametrize(
    ("line", "files"), [("0::/app", v2("app/", 9 * MB, 1 * MB)), ("4:memory:/app", v1("app/", 9 * MB, 1 * MB))]
)
def test_the_cgroup_of_this_process_counts_not_the_root(tmp_path: Path, line: str, files: dict[str, object]) -> None:
    root = write(machine(tmp_path, 7000), {**files, "proc/self/cgroup": f"9:cpu:/else\n{line}"})
    assert available(root) == 8 * MB


def test_a_system_that_reports_nothing_has_no_figure(tmp_path: Path) -> None:
    assert available(tmp_path) is None
    assert (available() or MB) > 0
