"""Rendered: what a target consists of, as texts and files to copy, and the folder that it becomes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from estiba.core.stores.disk import TEMPORARY, explained, make_folder


@dataclass(frozen=True)
class Rendered:
    """Files by their path in a folder.

    Args:
        texts: what is written each time, and overwrites what was there.
        once: what is written where nothing is yet, because people change it: settings.
        copies: files and folders of the project to copy.
    """

    texts: Mapping[str, str]
    once: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What became of a file of the folder: `new`, `changed`, `same` or `kept` (there already, and yours)."""

    path: str
    became: str


def write(rendered: Rendered, folder: Path) -> list[Written]:
    """Brings a folder up to date. Each file appears whole or not at all; files that nobody rendered are left alone.

    Raises:
        EstibaError: a place cannot be written.
    """
    contents = {path: text.encode() for path, text in rendered.texts.items()} | _copied(rendered.copies)
    written = [_write(folder, path, content) for path, content in sorted(contents.items())]
    _let_containers_read(folder, contents)
    for path, text in sorted(rendered.once.items()):
        there = (folder / path).exists()
        written.append(Written(path, "kept") if there else _write(folder, path, text.encode()))
    return written


def check(rendered: Rendered, folder: Path) -> list[str]:
    """Paths of files that `write` would make or change."""
    contents = {path: text.encode() for path, text in rendered.texts.items()} | _copied(rendered.copies)
    return sorted(path for path, content in contents.items() if _content(folder / path) != content)


def _copied(copies: Mapping[str, Path]) -> dict[str, bytes]:
    found = {}
    for target, source in copies.items():
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file() and "__pycache__" not in path.parts:
                inside = path.relative_to(source) if source.is_dir() else Path()
                with explained("read", path):
                    found[str(Path(target) / inside)] = path.read_bytes()
    return found


def _write(folder: Path, path: str, content: bytes) -> Written:
    target = folder / path
    before = _content(target)
    if before == content:
        return Written(path, "same")
    fresh = target.with_name(f"{TEMPORARY}{target.name}")
    with explained("write", target):
        make_folder(target.parent)
        try:
            fresh.write_bytes(content)
            if target.is_dir():
                shutil.rmtree(target)
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
    return Written(path, "new" if before is None else "changed")


def _let_containers_read(folder: Path, paths: Iterable[str]) -> None:
    """Whatever rights new files get here: a container reads what is mounted as a user of its own.

    No rendered file holds a secret. The folder itself, and what people change, stay as they are.
    """
    inside = {Path(path) for path in paths}
    for path in inside.union(*(path.parents for path in inside)) - {Path()}:
        place = folder / path
        mode = place.stat().st_mode & 0o7777
        readable = mode | (0o555 if place.is_dir() else 0o444)
        if mode != readable:
            with explained("change the rights of", place):
                place.chmod(readable)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError:
        with explained("read", path):
            raise
