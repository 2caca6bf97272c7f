"""Read YAML into nodes that know their file and line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from estiba.core.errors import MissingExtra
from estiba.doctor.finding import Location
from estiba.doctor.read.dockerfile_syntax import split

DEPTH = 30
"""The depth of nodes that is read: a file may refer to itself."""


class BadCompose(Exception):
    """A compose file cannot be parsed."""

    def __init__(self, message: str, at: Location) -> None:
        super().__init__(message)
        self.message = message
        self.at = at


class Node:
    """A value of the file with its location. A value of another kind than expected counts as empty; nothing raises.

    Args:
        raw: the node of PyYAML; None for no value.
        key: the node of its key, whose line is shown to the user.
    """

    def __init__(self, raw: Any, depth: int = 0, key: Any = None) -> None:
        self.raw = raw
        self._depth = depth
        self._mark = None if raw is None else (raw if key is None else key).start_mark

    @property
    def line(self) -> int:
        return self._mark.line + 1 if self._mark else 0

    @property
    def at(self) -> Location:
        return Location(self._mark.name if self._mark else "", self.line)

    @property
    def kind(self) -> str:
        """`scalar`, `sequence`, `mapping`, or empty for no value."""
        return "" if self.raw is None else str(self.raw.id)

    @property
    def text(self) -> str:
        """The text of a scalar; empty for null."""
        if self.kind != "scalar" or self.raw.tag.endswith(":null"):
            return ""
        return str(self.raw.value)

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Yield keys and values of PyYAML, also those that `<<` merges in; of equal keys the first counts."""
        if self.kind != "mapping" or self._depth > DEPTH:
            return
        seen: set[str] = set()
        merged: dict[int, Any] = {}
        for key, value in self.raw.value:
            if getattr(key, "value", None) == "<<":
                merged |= {id(node): node for node in (value.value if value.id == "sequence" else [value])}
            elif key.id == "scalar" and key.value not in seen:
                seen.add(key.value)
                yield key, value
        for other in merged.values():
            for key, value in Node(other, self._depth + 1).pairs():
                if key.value not in seen:
                    seen.add(key.value)
                    yield key, value

    def items(self) -> Iterator[tuple[str, Node]]:
        """Yield keys and values; a value has the line of its key."""
        for key, value in self.pairs():
            yield str(key.value), Node(value, self._depth + 1, key)

    def get(self, *path: str) -> Node:
        node = self
        for name in path:
            node = next((value for key, value in node.items() if key == name), Node(None))
        return node

    def __bool__(self) -> bool:
        return self.raw is not None

    @property
    def each(self) -> list[Node]:
        if self.kind != "sequence" or self._depth > DEPTH:
            return []
        return [Node(value, self._depth + 1) for value in self.raw.value]

    @property
    def arguments(self) -> list[str]:
        """The texts of a list, or of a scalar split as a shell does."""
        return [item.text for item in self.each] if self.kind == "sequence" else split(self.text)


def parse(text: str, file: str) -> Node:
    """Parse a compose file, which is a mapping.

    Raises:
        BadCompose: it is not YAML, or not a mapping with services. MissingExtra: PyYAML is not installed.
    """
    yaml = _yaml()
    try:
        loader = yaml.SafeLoader(text)
        loader.name = file
        raw = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadCompose(str(error.problem or error.context), Location(file, mark.line + 1 if mark else 0)) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        message = str(error).splitlines()[0] if str(error) else "it is nested too deeply"
        raise BadCompose(message, Location(file)) from None
    root = Node(raw)
    if root.kind != "mapping":
        raise BadCompose("it holds no keys", Location(file, root.line))
    services = root.get("services")
    if services.kind not in ("mapping", ""):
        raise BadCompose("`services` is not a mapping of names", services.at)
    return root


def scalar(text: str, like: Any) -> Any:
    """Make a scalar of PyYAML at the location of another node."""
    return _yaml().ScalarNode("tag:yaml.org,2002:str", text, like.start_mark, like.end_mark)


def sequence(values: list[Any], like: Any) -> Any:
    """Make a sequence of PyYAML at the location of another node."""
    return _yaml().SequenceNode("tag:yaml.org,2002:seq", values, like.start_mark, like.end_mark)


def mapping(pairs: list[tuple[Any, Any]], like: Any) -> Any:
    """Make a mapping of PyYAML at the location of another node."""
    return _yaml().MappingNode("tag:yaml.org,2002:map", pairs, like.start_mark, like.end_mark)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingExtra("PyYAML, which reads compose files,", "deploy") from None
    return yaml
