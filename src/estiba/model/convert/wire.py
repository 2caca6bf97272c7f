"""Write and read large ONNX graphs in protobuf's wire format, without a protobuf object for each number.

The `onnx` library holds each integer of a list several times while a file is written. A forest has tens of millions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

_VARINT, _LENGTH = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
_INTS, _ATTRIBUTE, _NODE, _GRAPH = 8, 5, 1, 7
"""Numbers of fields: integers of an attribute, attributes of a node, nodes of a graph, the graph of a model."""

_LONGEST = 10
"""Bytes of the longest varint."""

_AT_ONCE = 500_000
"""Integers that are written at once, to hold few copies of them."""


def varint(number: int) -> bytes:
    """A number of 0 or more, seven bits in a byte, the lowest first."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes((*parts, number))


def tagged_integers(numbers: npt.NDArray[Any], field: int = _INTS) -> bytes:
    """Integers of 0 or more as one field that is repeated, each number behind its tag."""
    return b"".join(_tagged(numbers[n : n + _AT_ONCE], field) for n in range(0, len(numbers), _AT_ONCE))


def _tagged(numbers: npt.NDArray[Any], field: int) -> bytes:
    values = numbers.astype(np.uint64)
    sizes = np.ones(len(values), np.int64)
    for size in range(1, _LONGEST):
        longer = values >> np.uint64(7 * size) > 0
        if not longer.any():
            break
        sizes += longer
    ends = np.cumsum(sizes + 1)
    starts = ends - sizes
    content = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    content[starts - 1] = field << 3 | _VARINT
    for byte in range(int(sizes.max(initial=0))):
        there = sizes > byte
        more = np.where(sizes[there] > byte + 1, 128, 0)
        content[starts[there] + byte] = (values[there] >> np.uint64(7 * byte) & np.uint64(127)).astype(np.int64) | more
    return content.tobytes()


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length, with their numbers; nothing is copied.

    Raises:
        IndexError, ValueError: it is no message.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _read_varint(message, at)
        elif kind == _LENGTH:
            length, at = _read_varint(message, at)
            yield tag >> 3, message[at : at + length]
            at += length
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            raise ValueError(f"a field has the wire type {kind}")


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, and the position behind it."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def _nested(field: int, parts: list[bytes]) -> list[bytes]:
    """Parts of a message as a field of another."""
    return [varint(field << 3 | _LENGTH), varint(sum(map(len, parts))), *parts]


def node_parts(node: onnx.NodeProto, lists: Mapping[str, npt.NDArray[Any]]) -> list[bytes]:
    """The bytes of a node, in parts.

    Args:
        lists: attributes that are lists of integers by name, besides those of the node itself.
    """
    from onnx import AttributeProto, NodeProto

    head = NodeProto(input=node.input, output=node.output, name=node.name, op_type=node.op_type)
    attributes = {attribute.name: [attribute.SerializeToString(deterministic=True)] for attribute in node.attribute}
    for name, numbers in lists.items():
        kind = AttributeProto(type=AttributeProto.INTS).SerializeToString()
        attributes[name] = [AttributeProto(name=name).SerializeToString(), tagged_integers(numbers), kind]
    parts = [head.SerializeToString(deterministic=True)]
    for name in sorted(attributes):
        parts += _nested(_ATTRIBUTE, attributes[name])
    domain = NodeProto(domain=node.domain).SerializeToString() if node.domain else b""
    return [*parts, domain]


def model_content(model: onnx.ModelProto, nodes: Iterator[list[bytes]]) -> bytes:
    """The bytes of a model whose graph has no nodes of its own, with nodes in parts; the same as onnx writes."""
    from onnx import ModelProto

    graph: list[bytes] = []
    for node in nodes:
        graph += _nested(_NODE, node)
    graph.append(model.graph.SerializeToString(deterministic=True))
    before, after = ModelProto(), ModelProto()
    for field, value in model.ListFields():
        if field.number != _GRAPH:
            part = before if field.number < _GRAPH else after
            getattr(part, field.name).extend(value) if field.is_repeated else setattr(part, field.name, value)
    head, tail = (part.SerializeToString(deterministic=True) for part in (before, after))
    return b"".join([head, *_nested(_GRAPH, graph), tail])
