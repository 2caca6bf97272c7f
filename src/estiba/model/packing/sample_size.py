"""Bound what a compressed file of sample rows becomes, before it is read."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from estiba.core.errors import EstibaError
from estiba.model.coding import table_limits
from estiba.model.coding.arrow import pyarrow

MAX_SAMPLE_BYTES = 2_000_000_000
"""Bytes of the rows of a sample in memory. A model is packed with a few thousand rows; pandas takes several times as
many bytes as this."""


def check_arrays(path: Path, max_bytes: int = MAX_SAMPLE_BYTES) -> None:
    """Check the arrays of a `.npz` file, which may be compressed.

    Raises:
        EstibaError: they are larger than `max_bytes`.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check(path, sum(entry.file_size for entry in archive.infolist()), max_bytes)


def check_parquet(path: Path, max_bytes: int = MAX_SAMPLE_BYTES) -> None:
    """Check the pages of a Parquet file, and its texts, which a dictionary in the file holds once for many rows.

    Raises:
        EstibaError: they become larger than `max_bytes`, or contradict each other. MissingExtra: pyarrow is not here.
    """
    with path.open("rb") as file:
        _check(path, _value_bytes(file), max_bytes)
    size = 0
    for texts in _texts(path):
        size += _bytes_of(texts)
        _check(path, size, max_bytes)


def _value_bytes(file: BinaryIO) -> int:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
        return table_limits.value_bytes(view)


def _check(path: Path, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise EstibaError(
            f"{path} becomes larger than {max_bytes:,} bytes when it is read.",
            hint="Write fewer rows into it: a few thousand are enough.",
        )


def _texts(path: Path) -> Iterator[Any]:
    """The texts of each column, one row group after the other, as positions in a dictionary."""
    open_file = pyarrow("parquet").ParquetFile
    schema = open_file(path).schema
    columns = [schema.column(i) for i in range(len(schema))]
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    file = open_file(path, read_dictionary=texts)
    for group in range(file.num_row_groups):
        for name in texts:
            for column in file.read_row_group(group, [name], use_threads=False).columns:
                for chunk in column.chunks:
                    yield from _leaves(chunk)


def _leaves(array: Any) -> Iterator[Any]:
    types = pyarrow().types
    if types.is_struct(array.type) or types.is_map(array.type) or types.is_nested(array.type):
        children = array.flatten()
        for child in children if isinstance(children, list) else [children]:
            yield from _leaves(child)
    elif types.is_dictionary(array.type):
        yield array


def _bytes_of(texts: Any) -> int:
    """Bytes of an array of texts with a dictionary, if each text were written out."""
    compute = pyarrow("compute")
    lengths = compute.binary_length(texts.dictionary).cast("int64")
    return int(compute.sum(lengths.take(texts.indices)).as_py() or 0)
