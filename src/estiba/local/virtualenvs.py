"""Make a virtual environment for each requirements file of a service.

Its folder in `.estiba/environments` is named after a hash of its contents, so that services with equal files share one
and a changed file gets another. Packages come from the index that uv or pip is configured to use.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from estiba.core.errors import EstibaError, NotFound
from estiba.core.process_group import ProcessGroup
from estiba.core.stores.disk import discard, explained, make_folder

READY = ".estiba-ready"
"""The file that is written last: an environment without it is not finished."""

LOCK_POLL_SECONDS = 0.1

SHOWN_LINES = 20
"""Lines of output that are shown of an installation that failed."""

_INCLUDES = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]+(?P<path>\S+)")


@dataclass(frozen=True)
class EnvironmentSpec:
    """The virtual environment of a service.

    Args:
        requirements: the file, absolute. python: the minor version, such as `3.11`.
        parent: the folder of all environments.
    """

    requirements: Path
    python: str
    parent: Path

    @property
    def folder(self) -> Path:
        """The path of the environment; raises NotFound where a requirements file is not there."""
        parts = [self.python, platform.machine(), sys.platform]
        parts += [hashlib.sha256(content).hexdigest() for content in _contents(self.requirements, set())]
        return self.parent / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class InstallationFailed(EstibaError):
    """Packages could not be installed. `output` is the end of the installer's output."""

    def __init__(self, message: str, *, hint: str, output: str) -> None:
        super().__init__(message, hint=hint)
        self.output = output


async def ensure(spec: EnvironmentSpec, environment: Mapping[str, str], on_line: Callable[[str], None]) -> Path:
    """Make the environment if it is not there or was not finished; return its folder.

    Args:
        environment: of the installing programs. on_line: called with each line of their output.

    Raises:
        NotFound: a file is not there, or no Python of that version. InstallationFailed: packages cannot be installed.
        EstibaError: the folder cannot be written.
    """
    folder = spec.folder
    if ready(folder):
        return folder
    async with _locked(folder):
        if not ready(folder):
            with explained("make", folder):
                discard(folder)
            for command in _commands(spec, folder):
                await _run(command, spec, environment, on_line)
            with explained("write", folder):
                (folder / READY).touch()
    return folder


def ready(folder: Path) -> bool:
    """Tell if an environment is finished, and the Python that it was made from is still there."""
    return (folder / READY).exists() and (folder / "bin" / "python").exists()


def _contents(path: Path, seen: set[Path]) -> Iterator[bytes]:
    """The contents of a requirements file and of those that it includes."""
    if path in seen:
        return
    seen.add(path)
    with explained("read", path):
        content = path.read_bytes()
    yield content
    for line in content.decode(errors="replace").splitlines():
        if (include := _INCLUDES.match(line)) and "://" not in include["path"]:
            yield from _contents(path.parent / include["path"], seen)


@asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[None]:
    """Hold a lock, so that an environment is made once although several processes want it."""
    with explained("write", folder):
        make_folder(folder.parent)
    with folder.with_suffix(".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_SECONDS)
        yield


def _commands(spec: EnvironmentSpec, folder: Path) -> Iterator[Sequence[str]]:
    python, inner_python = _python(spec), str(folder / "bin" / "python")
    uv = _uv()
    if uv:
        yield [uv, "venv", "--no-project", "--quiet", "--python", python or spec.python, str(folder)]
        yield [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            inner_python,
            *_install_options(spec),
            "-r",
            str(spec.requirements),
        ]
        return
    if not python:
        hint = (
            f'Install it, or install uv, or set the Python of the images: python = "{platform.python_version()[:4]}".'
        )
        raise NotFound(f"Python {spec.python}, which images.python asks for, is not installed.", hint=hint)
    yield [python, "-m", "venv", str(folder)]
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--progress-bar", "off"]
    yield [inner_python, *pip, *_install_options(spec), "-r", str(spec.requirements)]


def _install_options(spec: EnvironmentSpec) -> Sequence[str]:
    """A file with hashes lists all packages that are needed: their own dependencies are ignored, as in images."""
    locked = any(b"--hash=" in content for content in _contents(spec.requirements, set()))
    return ("--require-hashes", "--no-deps") if locked else ()


def _uv() -> str:
    """The path of uv, beside this Python or on PATH; empty where there is none."""
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("uv", path=folders) or ""


def _python(spec: EnvironmentSpec) -> str:
    """The path of an interpreter of that version; empty where none is known."""
    if spec.python == ".".join(platform.python_version_tuple()[:2]):
        return sys.executable
    return shutil.which(f"python{spec.python}") or ""


async def _run(
    command: Sequence[str], spec: EnvironmentSpec, environment: Mapping[str, str], on_line: Callable[[str], None]
) -> None:
    lines: list[str] = []

    def forward(line: str) -> None:
        lines.append(line)
        if not line.startswith(" + "):  # uv's list of packages: a line each, and there are often a hundred
            on_line(line)

    group = ProcessGroup(command, folder=spec.requirements.parent, environment=environment, on_line=forward)
    try:
        code = await group.wait()
    finally:
        await group.kill()
    if code:
        hint = f"Check {spec.requirements.name} and the connection to the package index, then try again."
        message = f"The packages of {spec.requirements} could not be installed (exit code {code})."
        raise InstallationFailed(message, hint=hint, output="\n".join(lines[-SHOWN_LINES:]))
