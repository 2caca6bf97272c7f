"""Virtual environments are made once from a requirements file, never in part, with uv and with pip.

The packages are wheels that the test makes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from estiba.core.errors import NotFound
from estiba.core.process_group import Guard, marked
from estiba.local import virtualenvs
from estiba.local.virtualenvs import READY, EnvironmentSpec, InstallationFailed

pytestmark = pytest.mark.slow

PYTHON = ".".join(platform.python_version_tuple()[:2])


@pytest.fixture
def guard() -> Iterator[Guard]:
    made = Guard()
    yield made
    made.close()


@pytest.fixture
def wanted(tmp_path: Path) -> EnvironmentSpec:
    """A file that asks for the package `tiny`, whose wheel lies beside it."""
    wheel(tmp_path)
    (tmp_path / "requirements.txt").write_text("./tiny-1.0-py3-none-any.whl\n")
    return EnvironmentSpec(tmp_path / "requirements.txt", PYTHON, tmp_path / "environments")


def wheel(folder: Path, needs: str = "") -> None:
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny.py", "def main(): print('tiny')")
        about = "tiny-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n{needs}")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/entry_points.txt", "[console_scripts]\ntiny = tiny:main\n")
        archive.writestr(f"{about}/RECORD", "")


def ensure(wanted: EnvironmentSpec, guard: Guard, said: list[str] | None = None) -> Path:
    lines = said if said is not None else []
    environment = marked(os.environ, guard.mark, "test")
    return asyncio.run(virtualenvs.ensure(wanted, environment, lines.append))


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_it_is_made_once_and_its_programs_run(
    wanted: EnvironmentSpec, guard: Guard, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tool == "pip":
        monkeypatch.setattr(virtualenvs, "_uv", lambda: "")
    elif not virtualenvs._uv():
        pytest.skip("uv is not installed")
    folder = ensure(wanted, guard)
    assert subprocess.run([folder / "bin/tiny"], check=True, capture_output=True, text=True).stdout == "tiny\n"
    said: list[str] = []
    assert ensure(wanted, guard, said) == folder
    assert said == []


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_a_lock_says_all_that_is_needed(
    wanted: EnvironmentSpec, guard: Guard, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tool == "pip":
        monkeypatch.setattr(virtualenvs, "_uv", lambda: "")
    wheel(wanted.requirements.parent, needs="Requires-Dist: no-such-package-of-estiba\n")
    content = (wanted.requirements.parent / "tiny-1.0-py3-none-any.whl").read_bytes()
    line = wanted.requirements.read_text().strip()
    wanted.requirements.write_text(f"{line} --hash=sha256:{hashlib.sha256(content).hexdigest()}\n")
    assert (ensure(wanted, guard) / "bin/tiny").exists()
    wanted.requirements.write_text(f"{line} --hash=sha256:{'0' * 64}\n")
    with pytest.raises(InstallationFailed):
        ensure(wanted, guard)


def test_a_half_made_one_is_made_again(wanted: EnvironmentSpec, guard: Guard) -> None:
    wanted.folder.mkdir(parents=True)
    (wanted.folder / "left").write_text("")
    folder = ensure(wanted, guard)
    assert (folder / READY).exists()
    assert not (folder / "left").exists()


def test_one_whose_python_is_gone_is_made_again(wanted: EnvironmentSpec, guard: Guard) -> None:
    python = ensure(wanted, guard) / "bin/python"
    python.unlink()
    ensure(wanted, guard)
    assert python.exists()


def test_what_cannot_be_installed_is_no_environment(wanted: EnvironmentSpec, guard: Guard) -> None:
    wanted.requirements.write_text("./absent-1.0-py3-none-any.whl\n")
    with pytest.raises(InstallationFailed, match="could not be installed") as error:
        ensure(wanted, guard)
    assert "absent" in error.value.output
    assert not (wanted.folder / READY).exists()


def test_two_at_once_make_one(wanted: EnvironmentSpec, guard: Guard) -> None:
    async def both() -> list[Path]:
        environment = marked(os.environ, guard.mark, "test")
        return await asyncio.gather(*(virtualenvs.ensure(wanted, environment, said.append) for _ in range(2)))

    said: list[str] = []
    assert len(set(asyncio.run(both()))) == 1
    assert sum("tiny" in line for line in said) <= 2


def test_another_file_is_another_environment_also_one_that_is_named_inside(
    wanted: EnvironmentSpec, tmp_path: Path
) -> None:
    (tmp_path / "base.txt").write_text("a==1\n")
    (tmp_path / "requirements.txt").write_text("-r base.txt\nb==1\n")
    before = wanted.folder
    (tmp_path / "base.txt").write_text("a==2\n")
    assert wanted.folder != before
    (tmp_path / "base.txt").unlink()
    with pytest.raises(NotFound, match=r"base\.txt"):
        _ = wanted.folder


def test_a_python_that_is_not_here(wanted: EnvironmentSpec, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtualenvs, "_uv", lambda: "")
    other = EnvironmentSpec(wanted.requirements, "3.99", wanted.parent)
    with pytest.raises(NotFound, match=r"Python 3\.99, which images\.python asks for, is not installed"):
        ensure(other, guard)
    assert sys.version_info < (3, 99)
