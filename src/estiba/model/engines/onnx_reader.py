"""Read ONNX files without the onnx library: the few parts of the format that graphs for tables use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from estiba.core.errors import EstibaError
from estiba.model.coding.terms import METADATA_KEY, Terms, decode

Array = npt.NDArray[Any]

FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11
_TYPES = {FLOAT: "<f4", 2: "u1", INT64: "<i8", BOOL: "?", DOUBLE: "<f8"}

LONG_LIST = 10_000
"""Integers of an attribute from which on they are kept in fewer bytes than eight each."""

Part = TypeVar("Part")

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
        del content  # each copy of a large graph counts
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
    del message
    if 15 in fields:
        raise NotRecognised("the graph has sparse constants")
    constants = dict(_tensor(part, scan) for part in fields.pop(5, ()))
    return Graph(tuple(_drained(fields.pop(1, []), _node, scan)), constants)


def _drained(parts: list[bytes], read: Callable[[bytes, _Scan], Part], scan: _Scan) -> Iterator[Part]:
    """The parts in order as they are read; of each only the reader holds the bytes, and may forget them."""
    parts.reverse()
    while parts:
        yield read(parts.pop(), scan)


def _node(message: bytes, scan: _Scan) -> Node:
    fields = _fields(message, scan)
    del message
    domain, kind = _text(fields, 7), _text(fields, 4)
    inputs, outputs = (tuple(name.decode() for name in fields.get(n, ())) for n in (1, 2))
    attributes = dict(_drained(fields.pop(5, []), _attribute, scan))
    return Node(kind if domain in ("", "ai.onnx") else f"{domain}:{kind}", inputs, outputs, attributes)


def _attribute(message: bytes, scan: _Scan) -> tuple[str, Any]:
    fields = _fields(message, scan)
    del message
    name, kind = _text(fields, 1), _number(fields, 20)
    if kind == 1:
        return name, float(np.frombuffer(_only(fields, 2), "<f4")[0])
    if kind == 2:
        return name, _number(fields, 3)
    if kind == 3:
        return name, _text(fields, 4)
    if kind == 4:
        _only(fields, 5)
        return name, _tensor(fields[5].pop(), scan)[1]
    if kind == 5:
        _only(fields, 6)
        return name, _graph(fields[6].pop(), scan)
    if kind == 7:
        return name, _narrow(_numbers(fields, 8))
    raise NotRecognised(f"the attribute {name!r} is of kind {kind}")


def _narrow(numbers: npt.NDArray[np.int64]) -> Array:
    """Numbers of a long list, such as those of a forest, in as few bytes as hold them."""
    if len(numbers) < LONG_LIST or numbers.min() < 0:
        return numbers
    largest = int(numbers.max())
    return numbers.astype(np.int8 if largest < 2**7 else np.int32) if largest < 2**31 else numbers


def _tensor(message: bytes, scan: _Scan) -> tuple[str, Array]:
    fields = _fields(message, scan)
    del message
    name, kind = _text(fields, 8), _number(fields, 2)
    shape = tuple(_numbers(fields, 1).tolist())
    if kind not in _TYPES or 14 in fields or (9 not in fields and prod(shape)):
        raise NotRecognised(f"the constant {name!r} is kept in a form that is not read here")
    return name, np.frombuffer(_text_bytes(fields), _TYPES[kind]).reshape(shape)


def _text_bytes(fields: Mapping[int, list[bytes]]) -> bytes:
    return _only(fields, 9) if 9 in fields else b""
