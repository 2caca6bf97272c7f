"""Merge compose files as Compose does it. Every value keeps its location."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

from estiba.doctor.read.yaml_nodes import DEPTH, Node, mapping, scalar, sequence

_REPLACED = ("command", "entrypoint", "test")
"""Lists that the upper file replaces."""

_NAMED = ("environment", "labels", "args", "depends_on", "networks", "extra_hosts", "sysctls", "annotations")
"""Keys of a list of names or a mapping, which are merged by name."""

_BY_TARGET = ("volumes", "devices", "configs", "secrets")
"""Lists in which an entry replaces that of the same target."""


def merged(below: Node, above: Node) -> Node:
    """Merge a mapping over another one."""
    return Node(_mappings(below, above, 0)) if below and above else above or below


def _mappings(below: Node, above: Node, depth: int) -> Any:
    if depth > DEPTH:
        return above.raw
    pairs = {key.value: (key, value) for key, value in below.pairs()}
    for key, value in above.pairs():
        name = key.value
        if value.tag == "!reset":
            pairs.pop(name, None)
        elif name in pairs:
            kept, under = pairs[name]
            result = _values(name, Node(under), Node(value), depth + 1)
            pairs[name] = (kept if result is under or result.id == "mapping" else key, result)
        else:
            pairs[name] = (key, value)
    return mapping(list(pairs.values()), below.raw)


def _values(name: str, below: Node, above: Node, depth: int) -> Any:
    if name in _NAMED:
        below, above = _by_name(below), _by_name(above)
    elif name == "build":
        below, above = _build(below), _build(above)
    if above.raw.tag == "!override":
        return above.raw
    if below.kind == above.kind == "mapping":
        return _mappings(below, above, depth)
    if below.kind == above.kind == "sequence" and name not in _REPLACED:
        return _sequences(name, below, above)
    return above.raw


def _sequences(name: str, below: Node, above: Node) -> Any:
    label = _target if name in _BY_TARGET else lambda node: node.text
    taken = {label(node) for node in above.each} - {""}
    kept = [node.raw for node in below.each if label(node) not in taken]
    return sequence([*kept, *above.raw.value], below.raw)


def _target(node: Node) -> str:
    """Return the target of a mount, which identifies it."""
    if node.kind == "mapping":
        return node.get("target").text or node.get("source").text
    parts = node.text.split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _by_name(node: Node) -> Node:
    """Convert a list of `NAME=value` or bare names to a mapping."""
    if node.kind != "sequence":
        return node
    pairs = []
    for item in node.each:
        name, _, value = item.text.partition("=")
        pairs.append((scalar(name, item.raw), scalar(value, item.raw)))
    return Node(mapping(pairs, node.raw))


def _build(node: Node) -> Node:
    """Convert the short form, which is only the context, to the long one."""
    if node.kind != "scalar":
        return node
    return Node(mapping([(scalar("context", node.raw), node.raw)], node.raw))


def relocated(service: Node, folder: str) -> Node:
    """Make the paths of a service from a file in another folder relative to this one.

    Args:
        folder: the other, relative to this one.
    """
    if folder in ("", "."):
        return service

    def moved(raw: Any) -> Any:
        local = raw.id == "scalar" and raw.value.startswith(".")
        return scalar(posixpath.normpath(f"{folder}/{raw.value}"), raw) if local else raw

    def short(raw: Any) -> Any:
        source, colon, rest = raw.value.partition(":")
        local = colon and source.startswith(".")
        return scalar(f"./{posixpath.normpath(f'{folder}/{source}')}:{rest}", raw) if local else raw

    def mount(raw: Any) -> Any:
        return short(raw) if raw.id == "scalar" else _changed(Node(raw), {"source": moved})

    def mounts(raw: Any) -> Any:
        return sequence([mount(one) for one in raw.value], raw) if raw.id == "sequence" else raw

    def context(raw: Any) -> Any:  # here a name without a dot is a folder too
        outside = raw.id != "scalar" or raw.value.startswith(("/", "$")) or "://" in raw.value
        return raw if outside else scalar(posixpath.normpath(f"{folder}/{raw.value}"), raw)

    def build(raw: Any) -> Any:
        node = _build(Node(raw))
        if node.kind == "mapping" and not node.get("context"):  # its default is the folder of the file
            return mapping([(scalar("context", raw), scalar(folder, raw)), *node.pairs()], raw)
        return _changed(node, {"context": context})

    return Node(_changed(service, {"build": build, "volumes": mounts}))


def without(node: Node, name: str) -> Node:
    """Remove a key of a mapping."""
    return Node(mapping([pair for pair in node.pairs() if pair[0].value != name], node.raw))


def replaced(node: Node, values: dict[str, Node]) -> Node:
    """Replace or add values of a mapping."""
    pairs = {key.value: (key, value) for key, value in node.pairs()}
    for name, value in values.items():
        key = pairs[name][0] if name in pairs else scalar(name, value.raw)
        pairs[name] = (key, value.raw)
    return Node(mapping(list(pairs.values()), node.raw))


def _changed(node: Node, changes: dict[str, Callable[[Any], Any]]) -> Any:
    if node.kind != "mapping":
        return node.raw
    pairs = [(key, changes[key.value](value) if key.value in changes else value) for key, value in node.pairs()]
    return mapping(pairs, node.raw)
