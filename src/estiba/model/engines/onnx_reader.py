"""Read ONNX files without the onnx library: the few parts of the format that graphs for tables use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.core.errors import EstibaError
from estiba.model.coding.terms import METADATA_KEY, Terms, decode

Array = npt.NDArray[Any]

FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11
_TYPES = {FLOAT: "<f4", 2: "u1", INT64: "<i8", BOOL: "?", DOUBLE: "<f8"}

_Scan = Callable[[bytes], list[tuple[int, int, bytes]]]


class NotRecognised(EstibaError):
    """A graph, or a part of one, that the kernel has no form for; the message names it. ONNX Runtime runs it."""


@dataclass(frozen=True)
class Node:
    """One operator: its kind, with its domain unless that is ONNX's own, and its attributes by name."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can run, and constants by name."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    terms: tuple[Terms, ...] = ()


def read_model(content: bytes, scan: _Scan) -> Graph:
    """The graph of an ONNX file.

    Args:
        scan: the kernel's reader of one message.

    Raises:
        NotRecognised: it is no such file, or has parts that are not read here.
    """
    try:
        model = _fields(content, scan)
        if 25 in model:
            raise NotRecognised("the file defines functions")
        terms = _terms(model, scan)
        _only(model, 7)
        return replace(_graph(model.pop(7).pop(), scan), terms=terms)
    except (ValueError, IndexError, TypeError) as error:
        raise NotRecognised(f"the file cannot be read as ONNX: {error}") from error


def _terms(model: dict[int, list[bytes]], scan: _Scan) -> tuple[Terms, ...]:
    """Terms of texts, which stand in the file's metadata."""
    properties = [_fields(part, scan) for part in model.get(14, ())]
    found = [_text(entry, 2) for entry in properties if _text(entry, 1) == METADATA_KEY]
    return decode(found[0]) if found else ()


def _fields(message: bytes, scan: _Scan) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = defaultdict(list)
    for number, _, value in scan(message):
        found[number].append(value)
    return found


def _only(fields: Mapping[int, list[bytes]], number: int) -> bytes:
    values = fields.get(number, [])
    if len(values) != 1:
        raise NotRecognised(f"field {number} appears {len(values)} times")
    return values[0]


def _text(fields: Mapping[int, list[bytes]], number: int) -> str:
    return fields[number][-1].decode() if number in fields else ""


def _numbers(fields: Mapping[int, list[bytes]], number: int) -> npt.NDArray[np.int64]:
    return np.frombuffer(b"".join(fields.get(number, ())), np.int64)


def _number(fields: Mapping[int, list[bytes]], number: int) -> int:
    values = _numbers(fields, number)
    return int(values[-1]) if len(values) else 0


def _graph(message: bytes, scan: _Scan) -> Graph:
    fields = _fields(message, scan)
    del message  # each copy of a large graph counts
    if 15 in fields:
        raise NotRecognised("the graph has sparse constants")
    constants = dict(_tensor(part, scan) for part in fields.pop(5, ()))
    return Graph(tuple(_node(part, scan) for part in _drained(fields.get(1, []))), constants)


def _drained(parts: list[bytes]) -> Iterator[bytes]:
    """The parts in order, each forgotten as it is taken."""
    parts.reverse()
    while parts:
        yield parts.pop()


def _node(message: bytes, scan: _Scan) -> Node:
    fields = _fields(message, scan)
    del message
    domain, kind = _text(fields, 7), _text(fields, 4)
    inputs, outputs = (tuple(name.decode() for name in fields.get(n, ())) for n in (1, 2))
    attributes = dict(_attribute(part, scan) for part in _drained(fields.get(5, [])))
    return Node(kind if domain in ("", "ai.onnx") else f"{domain}:{kind}", inputs, outputs, attributes)


def _attribute(message: bytes, scan: _Scan) -> tuple[str, Any]:
    fields = _fields(message, scan)
    name, kind = _text(fields, 1), _number(fields, 20)
    if kind == 1:
        return name, float(np.frombuffer(_only(fields, 2), "<f4")[0])
    if kind == 2:
        return name, _number(fields, 3)
    if kind == 3:
        return name, _text(fields, 4)
    if kind == 4:
        return name, _tensor(_only(fields, 5), scan)[1]
    if kind == 5:
        return name, _graph(_only(fields, 6), scan)
    if kind == 7:
        return name, _numbers(fields, 8)
    raise NotRecognised(f"the attribute {name!r} is of kind {kind}")


def _tensor(message: bytes, scan: _Scan) -> tuple[str, Array]:
    fields = _fields(message, scan)
    name, kind = _text(fields, 8), _number(fields, 2)
    shape = tuple(_numbers(fields, 1).tolist())
    if kind not in _TYPES or 14 in fields or (9 not in fields and prod(shape)):
        raise NotRecognised(f"the constant {name!r} is kept in a form that is not read here")
    return name, np.frombuffer(_text_bytes(fields), _TYPES[kind]).reshape(shape)


def _text_bytes(fields: Mapping[int, list[bytes]]) -> bytes:
    return _only(fields, 9) if 9 in fields else b""
