"""Group the compose files of a folder as Compose reads them, and merge each group with its includes."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from estiba.doctor.finding import Location, Problem
from estiba.doctor.read.compose_file import Compose
from estiba.doctor.read.compose_merge import merged, relocated, replaced, without
from estiba.doctor.read.yaml_nodes import BadCompose, Node, parse

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
"""The file names that Compose looks for; the first that exists counts."""

OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)

_DEEP = 20
"""The depth of files that include each other, and of services that extend each other, that is read."""

Read = Callable[[str], str | None]
"""Reads a file by its path relative to the folder; None if it cannot be read."""


def group_files(names: Sequence[str], values: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Group file names: those that Compose reads by default, then each other one alone.

    Args:
        names: the compose files of a folder. values: the variables of the `.env` beside them.
    """
    chosen = values.get("COMPOSE_FILE", "")
    if chosen:
        first = tuple(chosen.split(values.get("COMPOSE_PATH_SEPARATOR", "") or ":"))
    else:
        first = tuple(name for kind in (NAMES, OVERRIDES) for name in [name for name in kind if name in names][:1])
    rest: list[tuple[str, ...]] = [(name,) for name in names if name not in first]
    return [first, *rest] if first else rest


@dataclass
class ComposeReader:
    """Reads and merges compose files, and collects the problems in them.

    Args:
        read: reads a file that they name. values: the variables for `${NAME}`.
        files: those that were read.
    """

    read: Read
    values: Mapping[str, str]
    files: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)
    """Files that are included already, and need not be again."""

    def compose(self, names: Sequence[str]) -> Compose | None:
        """Merge files with all that they include and extend; None if there is nothing to read.

        Raises:
            MissingExtra: PyYAML is not installed.
        """
        node = Node(None)
        for name in names:
            node = merged(node, self._file(name, Location(name), 0))
        return Compose(names[0], node, self.values) if node else None

    def _file(self, name: str, by: Location, depth: int) -> Node:
        """Read a file, merged over its includes, and its services over those that they extend. `by` names the file."""
        content = self.read(name)
        if content is None:
            message = f"`{name}` is named here, and cannot be read as text of up to a megabyte."
            self._problem(by, message, "Check the path, its permissions and its content.")
            return Node(None)
        self.files.append(name)
        self._taken.add(name)
        try:
            node = parse(content, name)
        except BadCompose as error:
            message = f"The file cannot be read as a compose file: {error.message}."
            self._problem(error.at, message, "Correct this line; docker compose config checks it.")
            return Node(None)
        folder = posixpath.dirname(name)
        services = {key: self._extended(value, name, node, depth) for key, value in _services(node)}
        if services:
            moved = {key: relocated(value, folder) if depth else value for key, value in services.items()}
            node = replaced(node, {"services": replaced(node.get("services"), moved)})
        below = Node(None)
        for path, at in _included(node):
            if depth < _DEEP and "://" not in path and "$" not in path and _from(folder, path) not in self._taken:
                below = merged(below, self._file(_from(folder, path), at, depth + 1))
        return merged(below, node)

    def _extended(self, service: Node, file: str, root: Node, depth: int) -> Node:
        """Merge a service over the one that it extends."""
        extends = service.get("extends")
        name = extends.text or extends.get("service").text
        path = extends.get("file").text
        if not name or depth > _DEEP or "$" in path:
            return service
        own = without(service, "extends")
        if path:
            other = _from(posixpath.dirname(file), path)
            there = self._parsed(other, extends.get("file").at)
        else:
            other, there = file, root
        if not there:
            return service
        base = there.get("services").get(name)
        if base.kind != "mapping":
            message = f"It extends `{name}`, which is not a service of {other}."
            self._problem(extends.at, message, "Name a service of that file.")
            return own
        below = self._extended(base, other, there, depth + 1)
        if path:
            folder = posixpath.relpath(posixpath.dirname(other) or ".", posixpath.dirname(file) or ".")
            below = relocated(below, folder)
        return merged(below, own)

    def _parsed(self, name: str, at: Location) -> Node:
        content = self.read(name)
        try:
            if content is not None:
                self.files.append(name)
                return parse(content, name)
            message = f"`{name}` is named here, and cannot be read."
        except BadCompose as error:
            message = f"`{name}` is named here, and is not a compose file: {error.message}."
        self._problem(at, message, "Check the path, its permissions and its content.")
        return Node(None)

    def _problem(self, at: Location, message: str, fix: str) -> None:
        self.problems.append(Problem(at, message, fix))


def needs_base_file(compose: Compose) -> bool:
    """Return True if a file only makes sense over another: one of its services has neither image nor build."""
    return any(not service.node.get("build") and not service.image for service in compose.services.values())


def _services(root: Node) -> Iterator[tuple[str, Node]]:
    return ((name, node) for name, node in root.get("services").items() if node.kind == "mapping")


def _included(root: Node) -> Iterator[tuple[str, Location]]:
    for entry in root.get("include").each:
        path = entry.get("path") if entry.kind == "mapping" else entry
        for one in path.each or [path]:
            if one.text:
                yield one.text, one.at


def _from(folder: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(folder, path))
