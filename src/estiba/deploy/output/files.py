"""Write the rendered files of a target into a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from estiba.core.stores.disk import TEMPORARY, explained, make_folder


@dataclass(frozen=True)
class Rendered:
    """Rendered files by their path in a folder.

    Args:
        texts: files that are written each time, and overwrite older ones.
        once: settings, which people change: written only if there is no such file.
        copies: files and folders of the project to copy.
    """

    texts: Mapping[str, str]
    once: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """The outcome for a file: `new`, `changed`, `same` or `kept` (it existed, and is the user's)."""

    path: str
    became: str


def write(rendered: Rendered, folder: Path) -> list[Written]:
    """Update a folder. Each file appears whole or not at all; other files in the folder stay as they are.

    Raises:
        EstibaError: a file cannot be written.
    """
    contents = {path: text.encode() for path, text in rendered.texts.items()} | _copied(rendered.copies)
    written = [_write(folder, path, content) for path, content in sorted(contents.items())]
    _make_readable(folder, contents)
    for path, text in sorted(rendered.once.items()):
        exists = (folder / path).exists()
        written.append(Written(path, "kept") if exists else _write(folder, path, text.encode()))
    return written


def check(rendered: Rendered, folder: Path) -> list[str]:
    """Paths of the files that `write` would create or change."""
    contents = {path: text.encode() for path, text in rendered.texts.items()} | _copied(rendered.copies)
    return sorted(path for path, content in contents.items() if _content(folder / path) != content)


def _copied(copies: Mapping[str, Path]) -> dict[str, bytes]:
    contents = {}
    for target, source in copies.items():
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file() and "__pycache__" not in path.parts:
                inside = path.relative_to(source) if source.is_dir() else Path()
                with explained("read", path):
                    contents[str(Path(target) / inside)] = path.read_bytes()
    return contents


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


def _make_readable(folder: Path, paths: Iterable[str]) -> None:
    """Let every user read the files, whatever the umask is: a container reads mounted files as another user.

    No rendered file holds a secret. The folder itself, and settings that people change, keep their modes.
    """
    inside = {Path(path) for path in paths}
    for path in inside.union(*(path.parents for path in inside)) - {Path()}:
        target = folder / path
        mode = target.stat().st_mode & 0o7777
        readable = mode | (0o555 if target.is_dir() else 0o444)
        if mode != readable:
            with explained("change the mode of", target):
                target.chmod(readable)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError:
        with explained("read", path):
            raise
