"""Environments: one virtual environment for each file of Python packages that a service asks for.

It lives below `.estiba/environments`, named by what is in it, so that services with equal files share one and a changed
file gets another. Packages come from where uv or pip is set up to take them from.
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
"""The file that is written last: an environment without it was never finished."""

_INCLUDES = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]+(?P<path>\S+)")


@dataclass(frozen=True)
class Wanted:
    """An environment that a service asks for.

    Args:
        requirements: the file, absolute. python: the minor version, such as `3.11`.
        place: the folder below which environments are kept.
    """

    requirements: Path
    python: str
    place: Path

    @property
    def folder(self) -> Path:
        """Where the environment is, or will be; raises NotFound where a file of it is not there."""
        parts = [self.python, platform.machine(), sys.platform]
        parts += [hashlib.sha256(content).hexdigest() for content in _contents(self.requirements, set())]
        return self.place / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class InstallationFailed(EstibaError):
    """Packages could not be installed. `output` is the end of what the installer said."""

    def __init__(self, message: str, *, hint: str, output: str) -> None:
        super().__init__(message, hint=hint)
        self.output = output


async def ensure(wanted: Wanted, environment: Mapping[str, str], on_line: Callable[[str], None]) -> Path:
    """The environment's folder, made if it is not there. One that was not finished is made again.

    Args:
        environment: of the programs that make it. on_line: is told what they say.

    Raises:
        NotFound: a file is not there, or no Python of that version. InstallationFailed: what it says.
        EstibaError: the folder cannot be written.
    """
    folder = wanted.folder
    if ready(folder):
        return folder
    async with _alone(folder):
        if not ready(folder):
            with explained("make", folder):
                discard(folder)
            for command in _commands(wanted, folder):
                await _run(command, wanted, environment, on_line)
            with explained("write", folder):
                (folder / READY).touch()
    return folder


def ready(folder: Path) -> bool:
    """Whether an environment is finished, and the Python that it was made from is still there."""
    return (folder / READY).exists() and (folder / "bin" / "python").exists()


def _contents(path: Path, seen: set[Path]) -> Iterator[bytes]:
    """What is in a file of requirements and in those that it names."""
    if path in seen:
        return
    seen.add(path)
    with explained("read", path):
        content = path.read_bytes()
    yield content
    for line in content.decode(errors="replace").splitlines():
        if (found := _INCLUDES.match(line)) and "://" not in found["path"]:
            yield from _contents(path.parent / found["path"], seen)


@asynccontextmanager
async def _alone(folder: Path) -> AsyncIterator[None]:
    """Keeps two from making the same environment at once, in this process or in two."""
    with explained("write", folder):
        make_folder(folder.parent)
    with folder.with_suffix(".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.1)
        yield


def _commands(wanted: Wanted, folder: Path) -> Iterator[Sequence[str]]:
    python, inside = _python(wanted), str(folder / "bin" / "python")
    uv = _uv()
    if uv:
        yield [uv, "venv", "--no-project", "--quiet", "--python", python or wanted.python, str(folder)]
        yield [uv, "pip", "install", "--quiet", "--python", inside, *_how(wanted), "-r", str(wanted.requirements)]
        return
    if not python:
        hint = f'Install it, or uv, or choose the Python of the images: python = "{platform.python_version()[:4]}".'
        raise NotFound(f"There is no Python {wanted.python} here, which images.python asks for.", hint=hint)
    yield [python, "-m", "venv", str(folder)]
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--progress-bar", "off"]
    yield [inside, *pip, *_how(wanted), "-r", str(wanted.requirements)]


def _how(wanted: Wanted) -> Sequence[str]:
    """A file with hashes is a lock: it names all that is needed, and what its packages say of one another is not asked.

    Images are installed in the same way.
    """
    locked = any(b"--hash=" in content for content in _contents(wanted.requirements, set()))
    return ("--require-hashes", "--no-deps") if locked else ()


def _uv() -> str:
    """uv beside this Python, else on PATH; empty where there is none."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("uv", path=places) or ""


def _python(wanted: Wanted) -> str:
    """An interpreter of the wanted version; empty where none is known."""
    if wanted.python == ".".join(platform.python_version_tuple()[:2]):
        return sys.executable
    return shutil.which(f"python{wanted.python}") or ""


async def _run(
    command: Sequence[str], wanted: Wanted, environment: Mapping[str, str], on_line: Callable[[str], None]
) -> None:
    said: list[str] = []

    def take(line: str) -> None:
        said.append(line)
        if not line.startswith(" + "):  # uv's list of packages: a line each, and there are often a hundred
            on_line(line)

    group = ProcessGroup(command, folder=wanted.requirements.parent, environment=environment, on_line=take)
    try:
        code = await group.wait()
    finally:
        await group.kill()
    if code:
        hint = f"Check {wanted.requirements.name}, and whether packages can be reached; then try again."
        what = f"The packages of {wanted.requirements} could not be installed (exit code {code})."
        raise InstallationFailed(what, hint=hint, output="\n".join(said[-20:]))
