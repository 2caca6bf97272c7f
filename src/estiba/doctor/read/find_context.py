"""Find the build context of a Dockerfile that no compose file names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from estiba.doctor.read.build_context import SKIPPED_FOLDERS, relative_source
from estiba.doctor.read.dockerfile_stages import stages
from estiba.doctor.read.dockerfile_syntax import Instruction

KEPT = ".estiba"
"""The folder with Dockerfiles of images whose build contexts Estiba has removed."""

_MOST_FOLDERS = 300
_DEPTH = 3


def find_build_context(path: Path, instructions: tuple[Instruction, ...], folder: Path) -> Path | None:
    """Return the folder that most likely is the build context: the one that has the sources of COPY.

    Its own folder is tried first, then those above it up to the top of the project, then the others of the project:
    those must have all of the sources, and no Dockerfile of their own. If none has any of the sources, a tool puts the
    context together before the build.

    Args:
        folder: the examined one.

    Returns:
        None if it cannot be found.
    """
    if KEPT in path.resolve().parts:
        return None
    wanted = set(_sources(instructions))
    counts: dict[Path, int] = {}
    for candidate in _own_and_above(path, folder):
        counts[candidate] = sum(_there(candidate, source) for source in wanted)
        if counts[candidate] == len(wanted):
            return candidate
    for other in islice(_folders(folder, 0), _MOST_FOLDERS):  # part of the sources is too little in a folder beside it
        if not (other / "Dockerfile").exists() and all(_there(other, source) for source in wanted):
            return other
    if {"template", "templates"} & set(Path(os.path.relpath(path, folder)).parts[:-1]):
        return None
    best = max(counts, key=lambda candidate: counts[candidate])
    return best if counts[best] or path.parent == folder else None


def _sources(instructions: tuple[Instruction, ...]) -> Iterator[str]:
    """Yield the sources of COPY from the context; not `.`, which every folder has."""
    for stage in stages(instructions):
        for step in stage.steps:
            if (
                step.instruction.name in ("COPY", "ADD")
                and "from" not in step.instruction.flags
                and not step.instruction.heredocs
            ):
                for source in step.arguments[:-1]:
                    if relative_source(source) and "$" not in source and not re.match(r"\w+://|git@", source):
                        yield relative_source(source)


def _there(folder: Path, source: str) -> bool:
    if not re.search(r"[*?\[]", source):
        return os.path.lexists(folder / source)
    try:
        return any(True for _ in folder.glob(source))
    except (ValueError, OSError):
        return False


def _own_and_above(path: Path, folder: Path) -> Iterator[Path]:
    yield path.parent
    top = _top(folder)
    for above in path.parent.resolve().parents:
        if not above.is_relative_to(top):
            break
        yield folder if above == folder.resolve() else Path(os.path.relpath(above))


def _top(folder: Path) -> Path:
    """Return the top folder of a project, which has version control or a project file; else the folder itself."""
    resolved = folder.resolve()
    marks = (".git", "pyproject.toml", "estiba.toml")
    tops = (above for above in (resolved, *resolved.parents) if any((above / mark).exists() for mark in marks))
    return next(tops, resolved)


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
