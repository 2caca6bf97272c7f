"""Elsewhere: the folder that a Dockerfile is built from, where nothing says it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from estiba.doctor.read.build_context import SKIPPED_FOLDERS, relative_source
from estiba.doctor.read.dockerfile_stages import stages
from estiba.doctor.read.dockerfile_syntax import Instruction

KEPT = ".estiba"
"""Where Estiba keeps Dockerfiles of images whose build folders are gone."""

_MOST_FOLDERS = 300
_DEPTH = 3


def find_build_context(path: Path, instructions: tuple[Instruction, ...], folder: Path) -> Path | None:
    """The folder that most likely is the build context: the one that has what is copied.

    Its own folder is asked first, then those above it up to the top of the project, then the project's others. Where
    none has anything of it, something puts the context together before the build.

    Args:
        folder: the one that is examined.

    Returns:
        None where nobody can know.
    """
    if KEPT in path.resolve().parts:
        return None
    wanted = set(_sources(instructions))
    counts: dict[Path, int] = {}
    for candidate in _candidates(path, folder):
        counts[candidate] = sum(_there(candidate, source) for source in wanted)
        if counts[candidate] == len(wanted):
            return candidate
    best = max(counts, key=lambda place: counts[place])
    return best if counts[best] or path.parent == folder else None


def _sources(instructions: tuple[Instruction, ...]) -> Iterator[str]:
    """What is copied from the context by name, `.` aside: every folder has that."""
    for stage in stages(instructions):
        for step in stage.steps:
            if (
                step.instruction.name in ("COPY", "ADD")
                and "from" not in step.instruction.flags
                and not step.instruction.heredocs
            ):
                for source in step.words[:-1]:
                    if relative_source(source) and "$" not in source and not re.match(r"\w+://|git@", source):
                        yield relative_source(source)


def _there(folder: Path, source: str) -> bool:
    if not re.search(r"[*?\[]", source):
        return os.path.lexists(folder / source)
    try:
        return any(True for _ in folder.glob(source))
    except (ValueError, OSError):
        return False


def _candidates(path: Path, folder: Path) -> Iterator[Path]:
    yield path.parent
    top = _top(folder)
    for above in path.parent.resolve().parents:
        if not above.is_relative_to(top):
            break
        yield folder if above == folder.resolve() else Path(os.path.relpath(above))
    for count, inner in enumerate(_folders(folder, 0)):
        if count >= _MOST_FOLDERS:
            break
        yield inner


def _top(folder: Path) -> Path:
    """The top of the project that a folder belongs to: where version control or a project file begins; else itself."""
    place = folder.resolve()
    marks = (".git", "pyproject.toml", "estiba.toml")
    tops = (above for above in (place, *place.parents) if any((above / mark).exists() for mark in marks))
    return next(tops, place)


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for path in inside:
        if (
            path.is_dir()
            and not path.is_symlink()
            and path.name not in SKIPPED_FOLDERS
            and not path.name.startswith(".")
        ):
            yield path
            if depth + 1 < _DEPTH:
                yield from _folders(path, depth + 1)
