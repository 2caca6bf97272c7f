"""Read the services of compose files, merged or one by itself. Every value keeps its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from estiba.doctor.finding import Location
from estiba.doctor.read import yaml_nodes
from estiba.doctor.read.dockerfile_stages import substitute
from estiba.doctor.read.yaml_nodes import Node

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|ns|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.I)


class Variable(NamedTuple):
    """A variable of the environment: `raw` as in the file, `value` with `${NAME:-default}` expanded."""

    raw: str
    value: str
    at: Location


class Port(NamedTuple):
    """A published port. `published` and `target` are 0 for a range or a variable."""

    host: str
    published: int
    target: int
    at: Location


class Mount(NamedTuple):
    """A mount. `kind` is bind, volume or tmpfs; `source` a path, the name of a volume or empty."""

    kind: str
    source: str
    target: str
    read_only: bool
    at: Location


@dataclass(frozen=True)
class Service:
    """A service of a compose file. `values` are those of its variables."""

    name: str
    node: Node
    values: Mapping[str, str]

    def text(self, *path: str) -> str:
        return substitute(self.node.get(*path).text, self.values)

    @property
    def image(self) -> str:
        return self.text("image")

    @property
    def build(self) -> tuple[str, str, str] | None:
        """Context, Dockerfile and target; None if an image is pulled."""
        build = self.node.get("build")
        if not build:
            return None
        if build.kind == "scalar":
            return substitute(build.text, self.values), "", ""
        if build.get("dockerfile_inline"):
            return None
        return self.text("build", "context") or ".", self.text("build", "dockerfile"), self.text("build", "target")

    @property
    def arguments(self) -> dict[str, str]:
        return {name: given.value for name, given in _variables(self.node.get("build", "args"), self.values)}

    @property
    def environment(self) -> dict[str, Variable]:
        return dict(_variables(self.node.get("environment"), self.values))

    @property
    def command(self) -> list[str] | None:
        return self._words("command")

    @property
    def entrypoint(self) -> list[str] | None:
        return self._words("entrypoint")

    def _words(self, name: str) -> list[str] | None:
        node = self.node.get(name)
        return [substitute(word, self.values) for word in node.arguments] if node else None

    @property
    def ports(self) -> list[Port]:
        return [port for node in self.node.get("ports").each if (port := _port(node, self.values))]

    @property
    def mounts(self) -> list[Mount]:
        found = [mount for node in self.node.get("volumes").each if (mount := _mount(node, self.values))]
        tmpfs = self.node.get("tmpfs")
        folders = [tmpfs, *tmpfs.each] if tmpfs else []
        return found + [
            Mount("tmpfs", "", node.text.partition(":")[0], False, node.at) for node in folders if node.text
        ]

    @property
    def env_files(self) -> list[tuple[str, Location]]:
        """Path and location of each file of variables that has to exist."""
        node = self.node.get("env_file")
        entries = node.each if node.kind == "sequence" else [node]
        needed = [entry for entry in entries if entry.get("required").text.lower() != "false"]
        files = [entry.get("path") if entry.kind == "mapping" else entry for entry in needed]
        return [(substitute(file.text, self.values), file.at) for file in files if file.text]

    @property
    def dependencies(self) -> list[tuple[str, str, Location]]:
        """Name, condition (empty if there is none) and location of each service that this one depends on."""
        node = self.node.get("depends_on")
        if node.kind == "mapping":
            return [(name, inner.get("condition").text, inner.at) for name, inner in node.items()]
        return [(inner.text, "", inner.at) for inner in node.each if inner.text]

    @property
    def cpus(self) -> float:
        """The limit of processors; 0 if there is none."""
        return _float(self.text("deploy", "resources", "limits", "cpus") or self.text("cpus"))

    @property
    def memory(self) -> int:
        """The limit of memory in bytes; 0 if there is none."""
        return size(self.text("deploy", "resources", "limits", "memory") or self.text("mem_limit"))

    @property
    def profiles(self) -> list[str]:
        return [node.text for node in self.node.get("profiles").each]


@dataclass(frozen=True)
class Compose:
    """A compose file, or several merged. `values` are the variables of the `.env` file beside it.

    Args:
        file: the first; paths in all of them are relative to its folder.
    """

    file: str
    node: Node
    values: Mapping[str, str]

    @property
    def services(self) -> dict[str, Service]:
        every = self.node.get("services").items()
        return {name: Service(name, node, self.values) for name, node in every if node.kind == "mapping"}

    @property
    def volumes(self) -> dict[str, Node]:
        return dict(self.node.get("volumes").items())


def read(text: str, file: str, values: Mapping[str, str]) -> Compose:
    """Parse one compose file.

    Args:
        values: the variables for `${NAME}`, by name.

    Raises:
        BadCompose: it is not YAML, or not a mapping with services. MissingExtra: PyYAML is not installed.
    """
    return Compose(file, yaml_nodes.parse(text, file), values)


def _variables(node: Node, values: Mapping[str, str]) -> Iterator[tuple[str, Variable]]:
    """Yield the variables of a mapping `NAME: value`, or of a list of `NAME=value`."""
    for name, inner in node.items():
        yield name, Variable(inner.text, substitute(inner.text, values), inner.at)
    for inner in node.each:
        name, _, value = inner.text.partition("=")
        if name:
            yield name, Variable(value, substitute(value, values), inner.at)


def _port(node: Node, values: Mapping[str, str]) -> Port | None:
    if node.kind == "mapping":
        host, published, target = (substitute(node.get(key).text, values) for key in ("host_ip", "published", "target"))
    else:
        text, _, protocol = substitute(node.text, values).partition("/")
        if protocol == "udp" or not text:
            return None
        rest, _, target = text.rpartition(":")
        host, _, published = rest.rpartition(":")
    return Port(host.strip("[]"), _port_number(published), _port_number(target), node.at)


def _port_number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text.strip()) else 0


def _mount(node: Node, values: Mapping[str, str]) -> Mount | None:
    def filled(name: str) -> str:
        return substitute(node.get(name).text, values)

    if node.kind == "mapping":
        read_only = node.get("read_only").text.lower() in ("true", "yes", "on")
        return Mount(filled("type") or "volume", filled("source"), filled("target"), read_only, node.at)
    parts = substitute(node.text, values).split(":")
    if len(parts) == 1:
        return Mount("volume", "", parts[0], False, node.at) if parts[0] else None
    source, target, options = parts[0], parts[1], ",".join(parts[2:]).split(",")
    kind = "bind" if source.startswith(("/", ".", "~")) else "volume"
    return Mount(kind, source, target, "ro" in options, node.at)


def parse_duration(text: str) -> float | None:
    """Parse a duration of Docker to seconds, such as `1m30s` to 90; None if it is not one."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def size(text: str) -> int:
    """Parse a size of Docker, such as 512m, to bytes; 0 if it is not one."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return 0
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def _float(text: str) -> float:
    return float(text) if re.fullmatch(r"\d{1,6}(?:\.\d{1,6})?", text.strip()) else 0.0


def parse_env_file(text: str) -> dict[str, tuple[str, int]]:
    """Parse a `.env` file to names, each with its value and line."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and re.fullmatch(r"[A-Za-z_][\w.]*", name.strip()):
            found[name.strip()] = (value.strip().strip("\"'"), number)
    return found
