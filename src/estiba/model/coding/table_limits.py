"""Bounds for Arrow streams and Parquet files from callers: what one would become, found out before any of it is made.

Both compress inside, and both can repeat one value for every row. The sizes that count are read from the headers of
pages and of messages, since the readers of pyarrow allocate by them and have no limit on memory.

Source: apache/parquet-format, parquet.thrift; apache/arrow,
format/Message.fbs and docs/source/format/Columnar.rst; FlatBuffers, "Internals".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from estiba.core.errors import BadRequest, EstibaError, Problem
from estiba.model.coding import arrow
from estiba.model.coding.thrift_compact import CompactReader, number, structs
from estiba.model.schema.json_pointer import pointer

MAX_PARTS = 20_000
"""Pages of a Parquet file, or messages of an Arrow stream."""

_WIDEST_BYTES = 12
"""The widest value of a type with a width of its own, INT96."""

MAX_FOOTER_BYTES = 256 * 1024
"""The footer of a Parquet file; a reader makes of it hundreds of times its size."""

_ENCODINGS = (0, 2, 3, 5, 8, 9)
"""PLAIN, PLAIN_DICTIONARY, RLE, DELTA_BINARY_PACKED, RLE_DICTIONARY, BYTE_STREAM_SPLIT. Those of the others that build
one string from the one before it can become any size."""

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2  # types of messages


class TableTooLarge(EstibaError):
    status = 413


def check_types(schema: Any) -> list[Problem]:
    """Problems of columns whose type is no plain value; nested and repeated values have no bound by row."""
    return [Problem(pointer(0, field.name), f"no column may be of type {field.type}") for field in _odd(schema)]


def _odd(schema: Any) -> Iterator[Any]:
    types = arrow.pyarrow().types
    plain = (
        *(types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_temporal),
        *(types.is_string, types.is_large_string, types.is_binary, types.is_large_binary),
    )
    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        null = types.is_null(field.type)  # but no dictionary of nulls: it has a length and no size
        if not null and not any(fits(kind) for fits in plain):
            yield field


def check_parquet(body: memoryview, max_bytes: int, max_rows: int) -> None:
    """Check the pages of a Parquet file of plain columns.

    The footer is read here: pyarrow ends the process (an exception of C++ that nothing catches) on damaged statistics.

    Raises:
        TableTooLarge: the pages become more than `max_bytes`, or there are too many. BadRequest: they are damaged, or
            of an encoding without bounds.
    """
    try:
        _check_pages(body, max_bytes, max_rows)
    except (ValueError, IndexError, RecursionError, struct.error):
        raise _damaged("Parquet file") from None


def _check_pages(body: memoryview, max_bytes: int, max_rows: int) -> None:
    pages, left = 0, max_bytes
    length = struct.unpack_from("<I", body, len(body) - 8)[0]
    footer = CompactReader(body, len(body) - 8 - length).struct()
    for row_group in structs(footer, 4):
        rows = number(row_group, 3)
        for column in structs(row_group, 1):
            chunk = column.get(3)
            values = 0
            for size, count in _pages(body, chunk, max_rows):
                pages += 1
                left -= size
                values += count
                if left < 0:
                    raise _too_large(max_bytes)
                if pages > MAX_PARTS:
                    raise TableTooLarge(f"The Parquet file has more than {MAX_PARTS:,} pages.")
            if values != number(chunk, 5) or values != rows or rows > max_rows:
                raise ValueError(values)


def value_bytes(body: memoryview) -> int:
    """Bytes that the values of a Parquet file become, without repeating the texts of dictionaries.

    Raises:
        BadRequest: its sizes contradict each other, or it has an encoding without bounds.
    """
    try:
        return sum(_column_bytes(body))
    except (ValueError, IndexError, RecursionError, struct.error):
        raise BadRequest("It is not a valid Parquet file: its sizes contradict each other.") from None


def _column_bytes(body: memoryview) -> Iterator[int]:
    length = struct.unpack_from("<I", body, len(body) - 8)[0]
    footer = CompactReader(body, len(body) - 8 - length).struct()
    leaves = [element for element in structs(footer, 2) if not number(element, 5, default=0)]
    widths = [max(number(element, 2, default=0), _WIDEST_BYTES) for element in leaves]
    for row_group in structs(footer, 4):
        if not number(row_group, 3):  # without rows it may have no pages
            continue
        for width, column in zip(widths, structs(row_group, 1), strict=True):
            pages = list(_pages(body, column.get(3), number(row_group, 3)))
            yield max(sum(size for size, _ in pages), width * sum(count for _, count in pages))


def check_footer(body: memoryview) -> None:
    """Refuse a Parquet file with a footer over MAX_FOOTER_BYTES."""
    length = struct.unpack_from("<I", body, len(body) - 8)[0] if len(body) >= 12 and bytes(body[-4:]) == b"PAR1" else 0
    if MAX_FOOTER_BYTES < length < len(body):
        raise TableTooLarge(f"The footer of the Parquet file is larger than {MAX_FOOTER_BYTES:,} bytes.")


def _pages(body: memoryview, chunk: Any, max_rows: int) -> Iterator[tuple[int, int]]:
    """Bytes that each page of a column becomes, and how many values it has, none for a dictionary."""
    at, dictionary = number(chunk, 9), number(chunk, 11, default=0)
    at = dictionary if 0 < dictionary < at else at
    end = at + number(chunk, 7)
    if not 0 <= at <= end <= len(body):
        raise ValueError(end)
    while at < end:
        reader = CompactReader(body, at)
        header = reader.struct()
        kind, size, stored = number(header, 1), number(header, 2), number(header, 3)
        inner = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0))
        count, encoding = 0, 0
        if inner is not None:
            count, encoding = number(inner, 1), number(inner, 4 if kind == _DATA_V2 else 2)
        if min(size, stored, count) < 0 or reader.at + stored > end or (kind == _DICTIONARY and count > max_rows):
            raise ValueError(count)
        if encoding not in _ENCODINGS:
            hint = "Write it with the encodings PLAIN, RLE_DICTIONARY or DELTA_BINARY_PACKED."
            raise BadRequest("The Parquet file has a page with an encoding that is not supported.", hint=hint)
        yield size, 0 if kind == _DICTIONARY else count
        at = reader.at + stored


def check_arrow(body: Any, max_bytes: int, max_rows: int) -> None:
    """Check the messages of an Arrow stream.

    Raises:
        TableTooLarge: their buffers become more than `max_bytes`, or there are too many. BadRequest: they are damaged.
    """
    left, entries_left = max_bytes, max_rows * 16
    for position, message in enumerate(arrow.pyarrow("ipc").MessageReader.open_stream(body)):
        if position >= MAX_PARTS:
            raise TableTooLarge(f"The Arrow stream has more than {MAX_PARTS:,} messages.")
        content = memoryview(message.body) if message.body is not None and message.body.size else memoryview(b"")
        try:
            rows, size, is_dictionary = _batch(memoryview(message.metadata), content)
        except (struct.error, IndexError, ValueError):
            raise _damaged("Arrow stream") from None
        entries_left -= rows if is_dictionary else 0
        if rows > max_rows or entries_left < 0:
            raise TableTooLarge(
                f"The Arrow stream has too many dictionaries, or a batch of more than {max_rows:,} rows."
            )
        left -= size
        if left < 0:
            raise _too_large(max_bytes)


def _batch(metadata: memoryview, content: memoryview) -> tuple[int, int, bool]:
    """The longest of the arrays of a message, the bytes that its buffers become, and whether it is a dictionary."""
    message = _Table(metadata, struct.unpack_from("<I", metadata, 0)[0])
    kind = message.number(1, "<B")
    if kind not in (_RECORD_BATCH, _DICTIONARY_BATCH):
        return 0, 0, False
    batch = message.table(2)
    if kind == _DICTIONARY_BATCH:
        batch = batch.table(1)
    lengths = [batch.number(0, "<q"), *(length for length, _ in batch.pairs(1))]
    compressed = batch.at(3) > 0
    size = 0
    for start, length in batch.pairs(2):
        if min(start, length) < 0 or start + length > len(content):
            raise ValueError(length)
        unpacked = struct.unpack_from("<q", content, start)[0] if compressed and length else -1
        if unpacked < -1:
            raise ValueError(unpacked)
        size += max(unpacked, length)
    return max(lengths), size, kind == _DICTIONARY_BATCH


class _Table:
    """A table of a FlatBuffer."""

    def __init__(self, data: memoryview, start: int) -> None:
        self._data = data
        self._start = start
        self._fields = start - struct.unpack_from("<i", data, start)[0]
        if self._fields < 0:
            raise ValueError(start)

    def at(self, field: int) -> int:
        """Offset of a field; 0 for an absent one."""
        place = 4 + 2 * field
        if place + 2 > struct.unpack_from("<H", self._data, self._fields)[0]:
            return 0
        offset: int = struct.unpack_from("<H", self._data, self._fields + place)[0]
        return self._start + offset if offset else 0

    def number(self, field: int, kind: str) -> int:
        at = self.at(field)
        return int(struct.unpack_from(kind, self._data, at)[0]) if at else 0

    def _follow(self, field: int) -> int:
        at = self.at(field)
        return at + int(struct.unpack_from("<I", self._data, at)[0]) if at else 0

    def table(self, field: int) -> _Table:
        return _Table(self._data, self._follow(field))

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """A vector of structs of two 64-bit integers."""
        at = self._follow(field)
        if not at:
            return iter(())
        count = struct.unpack_from("<I", self._data, at)[0]
        return iter(struct.iter_unpack("<qq", self._data[at + 4 : at + 4 + 16 * count]))


def _too_large(max_bytes: int) -> TableTooLarge:
    return TableTooLarge(f"The body becomes larger than {max_bytes} bytes when it is decompressed.")


def _damaged(what: str) -> BadRequest:
    return BadRequest(f"The body is not a valid {what}: its sizes contradict each other.")
