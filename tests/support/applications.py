"""Start the portfolio's applications for tests, with their environments and a server of their models."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from estiba.core.ports import free

ROOT = Path(__file__).parents[2]
PORTFOLIO = ROOT / "examples" / "portfolio"
KEPT = Path(tempfile.gettempdir()) / "estiba-applications"
"""A cache between test runs, for results that take long and depend on files alone."""

KEPT_SECONDS = 24 * 3600
"""Age from which a trained portfolio is removed; another test run may still use a younger one."""

UV = Path(sys.executable).parent / "uv"


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Lock a name, so that only one process of the test run enters at a time."""
    KEPT.mkdir(exist_ok=True)
    with (KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def environment(app: str) -> Path:
    """The folder of programs of the environment that an application's requirements.txt pins, made once per content."""
    requirements = PORTFOLIO / app / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = KEPT / f"{app}-{digest}"
    with alone(folder.name):
        if not folder.exists():
            _make(folder, requirements)
    return folder / "bin"


def _make(folder: Path, requirements: Path) -> None:
    if not UV.exists():
        pytest.skip(f"{UV} is not there to install {requirements} with; `make test` brings it")
    draft = folder.with_name(f"{folder.name}.draft")
    install = ["pip", "install", "--python", str(draft), "--no-deps", "--require-hashes", "-r", str(requirements)]
    for arguments in (["venv", "--clear", "--relocatable", "--python", sys.executable, str(draft)], install):
        done = subprocess.run([UV, "--quiet", *arguments], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{requirements} cannot be installed: {done.stderr.strip()[-300:]}")
    draft.rename(folder)


def registry(*models: str) -> Path:
    """A registry with version 1 of these models of the portfolio, trained without data files.

    What other code has trained is not used again, because its models would get a second version.
    """
    project = KEPT / f"portfolio-{_code_digest()}"
    with alone("portfolio"):
        project.mkdir(exist_ok=True)
        os.utime(project)
        for older in KEPT.glob("portfolio*"):
            if older.is_dir() and time.time() - older.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(older)
        shutil.copytree(
            PORTFOLIO, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "data", "__pycache__")
        )
        done = subprocess.run(
            [sys.executable, "-m", "estiba", "train", "-C", project, *models],
            capture_output=True,
            text=True,
            env=clean(),
        )
    assert done.returncode == 0, done.stderr
    return project / ".estiba" / "registry"


def _code_digest() -> str:
    """A digest of the files that training reads: Estiba's own and the portfolio's."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "src").rglob("*.py"), *PORTFOLIO.rglob("*.py"), *PORTFOLIO.glob("*.toml")]):
        if ".estiba" not in path.parts:
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def copied(folder: Path) -> Path:
    """A copy of the portfolio without data and without what was trained."""
    unwanted = shutil.ignore_patterns(".*", "data", "__pycache__")
    return Path(shutil.copytree(PORTFOLIO, folder, dirs_exist_ok=True, ignore=unwanted))


def clean(**more: str) -> dict[str, str]:
    """The environment without variables that change the behaviour of programs."""
    names = ("ESTIBA_DATA", "ESTIBA_REGISTRY", "MLFLOW_TRACKING_URI", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in names} | more


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def running(command: Sequence[str | Path], health: str, *, log: Path, more: Mapping[str, str]) -> Iterator[None]:
    """Run a program in the portfolio's folder, once `health` answers 200. It must end when it gets a signal."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=PORTFOLIO, env=clean(**more), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        until = time.monotonic() + 150
        while not answers(health):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, f"{health} does not answer\n{log.read_text()}"
            time.sleep(0.1)
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def served(models: Sequence[str], log: Path) -> Iterator[str]:
    """The address of a server of models of the portfolio."""
    port = free("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "estiba", "serve", *models, "--port", str(port), "--workers", "1"]
    more = {"ESTIBA_REGISTRY": str(registry(*(re.sub("@.*", "", model) for model in models)))}
    with running(command, f"{url}/health/ready", log=log, more=more):
        yield url


Served = Callable[..., str]
