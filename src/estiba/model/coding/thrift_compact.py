"""Read structs of Thrift's compact protocol, as the footer and the pages of a Parquet file have them.

Only integers, structs and lists are kept: sizes and offsets are all that is asked for. Every element takes at least a
byte of the input, so the work is bounded by its length.

Source: apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from typing import Any

_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 11, 12
MAX_DEPTH = 16


class CompactReader:
    """Reads from `at` on; `at` is behind what was read.

    Every method raises ValueError, IndexError or RecursionError for damaged input.
    """

    def __init__(self, body: memoryview, at: int) -> None:
        self._body = body
        self.at = at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The members of a struct by their number; None for those of other types."""
        if depth > MAX_DEPTH:
            raise ValueError(depth)
        members: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            number = number + step if step else self._zigzag()
            if number in members:  # which of the two counts is up to the reader
                raise ValueError(number)
            members[number] = None if kind in _BOOLEANS else self._value(kind, depth)
        return members

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._zigzag()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in _LISTS:
            head = self._byte()
            count = self._varint() if head >> 4 == 15 else head >> 4
            return [self._element(head & 15, depth) for _ in range(count)]
        if kind == _MAP:
            self._map(depth)
        elif kind == _BINARY:
            self._skip(self._varint())
        elif kind in (_BYTE, _DOUBLE):
            self._skip(1 if kind == _BYTE else 8)
        else:
            raise ValueError(kind)
        return None

    def _element(self, kind: int, depth: int) -> Any:
        if kind in _BOOLEANS:  # a byte each, where a member of a struct has its value in its type
            self._byte()
            return None
        if depth > MAX_DEPTH:
            raise ValueError(depth)
        return self._value(kind, depth + 1)

    def _map(self, depth: int) -> None:
        count = self._varint()
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._element(kinds >> 4, depth)
            self._element(kinds & 15, depth)

    def _skip(self, length: int) -> None:
        self.at += length
        if self.at > len(self._body):
            raise IndexError(self.at)

    def _byte(self) -> int:
        self.at += 1
        return self._body[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError(value)

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def number(members: Any, member: int, default: int | None = None) -> int:
    """A member that is an integer.

    Args:
        default: for an absent one.

    Raises:
        ValueError: it is absent and has no default, or is something else.
    """
    value = members.get(member, default) if isinstance(members, dict) else None
    if not isinstance(value, int):
        raise ValueError(member)
    return value


def structs(members: dict[int, Any], member: int) -> list[dict[int, Any]]:
    """A member that is a list of structs. Raises ValueError for something else."""
    value = members.get(member)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError(member)
    return value
