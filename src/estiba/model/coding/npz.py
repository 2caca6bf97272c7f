"""Read and write several arrays as NumPy's `.npz`, a zip of `.npy` files, bounded before anything is decompressed."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

from estiba.core.errors import BadRequest, EstibaError
from estiba.model.coding import npy
from estiba.model.coding.bounded_zip import BoundedZip, count_entries
from estiba.model.coding.npy import Array

MEDIA_TYPE = b"application/x-npz"

MAX_ENTRIES = 1000
"""Arrays in one file; each costs memory before its name is known."""

_SUFFIX = ".npy"

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""Errors of zipfile for a file that is no zip, damaged, encrypted or compressed in another way."""


class TooLargeWhenRead(EstibaError):
    status = 413


def read(body: bytes | bytearray | memoryview, max_bytes: int) -> dict[str, Array]:
    """The arrays of a `.npz` file by name, read without pickle.

    Args:
        max_bytes: size of all arrays together, as the file states it. No more than that is ever decompressed.

    Raises:
        TooLargeWhenRead: they are larger, or more than MAX_ENTRIES.
        BadRequest: it is no such file, a name appears twice, or an array cannot be read.
    """
    content = bytes(body)
    if count_entries(content) > MAX_ENTRIES:
        raise TooLargeWhenRead(f"The .npz file has more than {MAX_ENTRIES:,} arrays.")
    try:
        with BoundedZip(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            _check(entries, max_bytes)
            files = {entry.filename: archive.read(entry) for entry in entries}
    except _DAMAGED as error:
        raise BadRequest(f"The body is not a .npz file: {error}") from None
    return {name.removesuffix(_SUFFIX): _array(name, data) for name, data in files.items()}


def _check(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    if wrong := [name for name in names if not name.endswith(_SUFFIX)]:
        raise BadRequest(f"The .npz file has {wrong[0]!r}, which is no .npy file.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadRequest(f"The .npz file has {twice[0].removesuffix(_SUFFIX)!r} twice.")
    size = sum(entry.file_size for entry in entries)  # of which BoundedZip reads no more
    if size > max_bytes:
        raise TooLargeWhenRead(f"The arrays of the .npz file are larger than {max_bytes:,} bytes together.")
    if odd := [e.filename for e in entries if e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]:
        raise BadRequest(f"The .npz file compresses {odd[0]!r} in a way that NumPy does not.")


def _array(name: str, data: bytes) -> Array:
    try:
        return npy.read(data)
    except BadRequest as error:
        raise BadRequest(f"{name}: {error.message}") from None


def write(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as a `.npz` file, not compressed, the same bytes for the same arrays."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            archive.writestr(zipfile.ZipInfo(name + _SUFFIX), npy.write(array))
    return file.getvalue()
