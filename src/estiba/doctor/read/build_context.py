"""Read the files of a build context, the patterns of .dockerignore, and the matches of a source of COPY."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from estiba.doctor.finding import Location

MAX_FILES = 20_000
"""A folder with more files is not walked to its end."""

SKIPPED_FOLDERS = frozenset(
    (".git", ".venv", "venv", "env", "node_modules", "__pycache__", "mlruns", ".mypy_cache", ".tox", ".estiba")
)
"""Folders that are not walked, by name: each counts as one entry."""


class IgnorePattern(NamedTuple):
    """A line of .dockerignore. `negated` is true if it begins with an exclamation mark."""

    expression: re.Pattern[str]
    negated: bool
    line: int


class ContextEntry(NamedTuple):
    """A file of a build context, or a folder that is not walked. `path` is relative, with slashes."""

    path: str
    size: int
    mode: int
    folder: bool = False


@dataclass(frozen=True)
class IgnoreFile:
    """A .dockerignore file. `name` is its path as the user would write it; empty if there is none."""

    name: str
    patterns: tuple[IgnorePattern, ...] = ()

    def excluding_pattern(self, path: str) -> IgnorePattern | None:
        """Return the pattern that keeps a path, or a folder above it, out of the context; None if none does."""
        parts = path.split("/")
        paths = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        decided: IgnorePattern | None = None
        for pattern in self.patterns:
            if any(pattern.expression.fullmatch(above) for above in paths):
                decided = None if pattern.negated else pattern
        return decided


def parse_ignore_file(text: str, name: str) -> IgnoreFile:
    """Parse a .dockerignore file. The last pattern that matches a path decides."""
    patterns = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        negated, bare = bare.startswith("!"), bare.removeprefix("!").strip()
        bare = re.sub(r"/+", "/", bare).strip("/").removeprefix("./")
        if bare and bare != ".":
            patterns.append(IgnorePattern(re.compile(_expression(bare)), negated, number))
    return IgnoreFile(name, tuple(patterns))


def _expression(pattern: str) -> str:
    """Translate a pattern of Go's filepath.Match, with `**` for any number of folders, to a regular expression."""
    expression, position = "", 0
    while position < len(pattern):
        character = pattern[position]
        if pattern.startswith("**/", position):
            expression, position = f"{expression}(?:.*/)?", position + 3
        elif pattern.startswith("**", position):
            expression, position = f"{expression}.*", position + 2
        elif character == "[" and (end := pattern.find("]", position + 2)) > 0:
            inside = pattern[position + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            expression, position = f"{expression}[{inside}]", end + 1
            try:
                re.compile(expression)
            except re.error:  # such as a range that runs backwards, which matches nothing
                return r"(?!)"
        else:
            expression += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
            position += 1
    return expression


@dataclass(frozen=True)
class BuildContext:
    """The folder that a builder reads.

    Args:
        name: the prefix of its files for the user: empty, or a relative path that ends in a slash.
        known: False if the real build context is not known; then none of its files is read.
    """

    folder: Path
    name: str
    ignored: IgnoreFile
    known: bool = True

    @cached_property
    def entries(self) -> dict[str, ContextEntry]:
        """Its files and skipped folders by path, ignored ones included."""
        entries: dict[str, ContextEntry] = {}
        for entry in _walk(self.folder) if self.known else ():
            entries[entry.path] = entry
            if len(entries) >= MAX_FILES:
                break
        return entries

    @property
    def complete(self) -> bool:
        """True if all of it was walked: only then is a file that is not in it really missing."""
        return self.known and len(self.entries) < MAX_FILES

    @cached_property
    def included(self) -> dict[str, ContextEntry]:
        """The entries that the builder is sent."""
        return {path: entry for path, entry in self.entries.items() if self.ignored.excluding_pattern(path) is None}

    def at(self, path: str, line: int = 0) -> Location:
        return Location(f"{self.name}{path}", line)

    def exists(self, path: str) -> bool:
        """Return True if a file, or a folder even without files, has that path."""
        return self.known and (path in self.entries or (self.folder / path).exists())

    def matching(self, source: str) -> list[str]:
        """Return the paths, of all entries, that a source of COPY matches: files, and all below a folder."""
        source = relative_source(source)
        if not source:
            return list(self.entries)
        expression = re.compile(_expression(source) + r"(?:/.*)?")
        return [path for path in self.entries if expression.fullmatch(path)]

    def text(self, path: str) -> str | None:
        """Read a text file of up to a megabyte; None if it is larger, binary or cannot be read."""
        return text(self.folder / path) if self.known else None


def relative_source(source: str) -> str:
    """Make a source of COPY relative to the context, as a leading slash, `./` and `..` do not lead out of it."""
    parts = [part for part in source.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)


def text(path: Path, max_bytes: int = 1 << 20) -> str | None:
    """Read a text file; None if it is larger, binary or cannot be read."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as handle:
            content = handle.read(max_bytes + 1)
    except (OSError, ValueError):
        return None
    return None if len(content) > max_bytes or b"\0" in content else content.decode("utf-8", "replace")


def _skipped(folder: Path) -> bool:
    """Return True if a folder counts as one entry: by its name, or as a virtual environment."""
    return folder.name in SKIPPED_FOLDERS or (folder / "pyvenv.cfg").is_file()


def _walk(folder: Path, prefix: str = "", depth: int = 0) -> Iterator[ContextEntry]:
    try:
        inside = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in inside:
        path = f"{prefix}{entry.name}"
        try:
            known = entry.stat(follow_symlinks=False)
            below = entry.is_dir(follow_symlinks=False)
            if below and depth < 12 and not _skipped(folder / entry.name):
                yield from _walk(folder / entry.name, f"{path}/", depth + 1)
            else:
                yield ContextEntry(path, known.st_size, known.st_mode, below)
        except OSError:
            continue
