"""A build context: the files that a builder is sent, what .dockerignore keeps out, and which of them COPY means."""

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
"""A folder with more files than this is not walked to its end."""

SKIPPED_FOLDERS = frozenset(
    (".git", ".venv", "venv", "env", "node_modules", "__pycache__", "mlruns", ".mypy_cache", ".tox", ".estiba")
)
"""Folders that are known by their names, and not walked: they count as one entry."""


class Rule(NamedTuple):
    """A line of .dockerignore. `keeps` is true where it begins with an exclamation mark."""

    pattern: re.Pattern[str]
    keeps: bool
    line: int


class ContextEntry(NamedTuple):
    """A file of the context, or a folder that is not walked. `path` is relative, with slashes."""

    path: str
    size: int
    mode: int
    folder: bool = False


@dataclass(frozen=True)
class IgnoreFile:
    """What .dockerignore says. `name` is the file's name as the user would write it; empty where there is none."""

    name: str
    rules: tuple[Rule, ...] = ()

    def excluding_pattern(self, path: str) -> Rule | None:
        """The rule that keeps a path, or a folder above it, out of the context; None where none does."""
        parts = path.split("/")
        ways = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        decided: Rule | None = None
        for rule in self.rules:
            if any(rule.pattern.fullmatch(way) for way in ways):
                decided = None if rule.keeps else rule
        return decided


def ignored(text: str, name: str) -> IgnoreFile:
    """The rules of a .dockerignore file, of which the last that matches decides."""
    rules = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        keeps, bare = bare.startswith("!"), bare.removeprefix("!").strip()
        bare = re.sub(r"/+", "/", bare).strip("/").removeprefix("./")
        if bare and bare != ".":
            rules.append(Rule(re.compile(_expression(bare)), keeps, number))
    return IgnoreFile(name, tuple(rules))


def _expression(pattern: str) -> str:
    """A pattern of Go's filepath.Match, with `**` for any number of folders, as a regular expression."""
    found, place = "", 0
    while place < len(pattern):
        character = pattern[place]
        if pattern.startswith("**/", place):
            found, place = f"{found}(?:.*/)?", place + 3
        elif pattern.startswith("**", place):
            found, place = f"{found}.*", place + 2
        elif character == "[" and (end := pattern.find("]", place + 2)) > 0:
            inside = pattern[place + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            found, place = f"{found}[{inside}]", end + 1
            try:
                re.compile(found)
            except re.error:  # such as a range that runs backwards, which matches nothing
                return r"(?!)"
        else:
            found += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
            place += 1
    return found


@dataclass(frozen=True)
class BuildContext:
    """The folder that a builder is given.

    Args:
        name: how its files are spelled to the user: empty, or a relative path that ends in a slash.
        known: whether this is the folder at all; if not, nothing of it is looked at.
    """

    folder: Path
    name: str
    ignored: IgnoreFile
    known: bool = True

    @cached_property
    def entries(self) -> dict[str, ContextEntry]:
        """Its files, and folders that are known by name, whether ignored or not."""
        found: dict[str, ContextEntry] = {}
        for entry in _walk(self.folder) if self.known else ():
            found[entry.path] = entry
            if len(found) >= MAX_FILES:
                break
        return found

    @property
    def complete(self) -> bool:
        """Whether all of it was walked: if not, nothing can be said of what is not there."""
        return self.known and len(self.entries) < MAX_FILES

    @cached_property
    def included(self) -> dict[str, ContextEntry]:
        """What the builder gets to see."""
        return {path: entry for path, entry in self.entries.items() if self.ignored.excluding_pattern(path) is None}

    def at(self, path: str, line: int = 0) -> Location:
        return Location(f"{self.name}{path}", line)

    def exists(self, path: str) -> bool:
        """Whether a file, or a folder even without files, has that path."""
        return self.known and (path in self.entries or (self.folder / path).exists())

    def matching(self, source: str) -> list[str]:
        """The paths, of all entries, that a source of COPY means: files, and all below a folder."""
        source = relative_source(source)
        if not source:
            return list(self.entries)
        expression = re.compile(_expression(source) + r"(?:/.*)?")
        return [path for path in self.entries if expression.fullmatch(path)]

    def text(self, path: str) -> str | None:
        """The text of a file of up to a megabyte; None where it is none, or cannot be read."""
        return text(self.folder / path) if self.known else None


def relative_source(source: str) -> str:
    """A source of COPY relative to the context: without the leading slash, `./` and `..`, which lead nowhere else."""
    parts = [part for part in source.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)


def text(path: Path, most: int = 1 << 20) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as handle:
            content = handle.read(most + 1)
    except (OSError, ValueError):
        return None
    return None if len(content) > most or b"\0" in content else content.decode("utf-8", "replace")


def _left(folder: Path) -> bool:
    """Whether a folder counts as one entry: known by its name, or a virtual environment by what is in it."""
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
            if below and depth < 12 and not _left(folder / entry.name):
                yield from _walk(folder / entry.name, f"{path}/", depth + 1)
            else:
                yield ContextEntry(path, known.st_size, known.st_mode, below)
        except OSError:
            continue
