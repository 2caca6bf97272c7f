"""Read and write arrays in NumPy's format `.npy`, with its header checked before anything is made of the data.

Source: numpy.org, `numpy.lib.format`, format versions 1.0 to 3.0.
"""

from __future__ import annotations

import ast
import io
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadRequest
from estiba.model.schema.tensor_types import MAX_RANK

MEDIA_TYPE = b"application/x-npy"

_MAGIC = b"\x93NUMPY"

_MAX_HEADER_BYTES = 10_000

Array = npt.NDArray[Any]


def read(body: bytes | bytearray | memoryview) -> Array:
    """The array of a `.npy` file, without a copy of its data.

    Raises:
        BadRequest: it is not one, its data do not have the size that its header says, or its elements are objects.
    """
    view = memoryview(body)
    try:
        shape, fortran, dtype, start = _header(view)
    except (ValueError, SyntaxError, TypeError, KeyError, struct.error, RecursionError, MemoryError) as error:
        raise BadRequest(f"The body is not a .npy file: {error}") from None
    if dtype.kind not in "fiubU":
        raise BadRequest(f"The .npy file has elements of type {dtype}; numbers, booleans and text can be read.")
    count = math.prod(shape)
    data = view[start:]
    if len(data) != count * dtype.itemsize:
        raise BadRequest(
            f"The .npy file has {len(data)} bytes of data, and its header says {count} elements of {dtype}: "
            f"{count * dtype.itemsize} bytes."
        )
    try:
        array = _elements(data, dtype) if count else np.empty(0, dtype)
        return array.reshape(shape, order="F" if fortran else "C")
    except ValueError as error:  # texts without characters, or axes whose product has no place in memory
        raise BadRequest(f"The .npy file has shape {shape} of {dtype}, which cannot be read: {error}") from None


def _elements(data: memoryview, dtype: np.dtype[Any]) -> Array:
    """The elements, of which NumPy itself checks nothing; raises ValueError for what is no boolean and no text."""
    if dtype.kind == "b" and np.frombuffer(data, np.uint8).max() > 1:
        raise ValueError("a boolean is 0 or 1")
    if dtype.kind == "U":
        points = np.frombuffer(data, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():
            raise ValueError("a text has what is no character")
    return np.frombuffer(data, dtype)


def _header(view: memoryview) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether the order is that of Fortran, element type, and where the data begin."""
    if bytes(view[:6]) != _MAGIC or len(view) < 12:
        raise ValueError("it does not begin as one")
    wide = view[6] > 1
    (length,) = struct.unpack_from("<I" if wide else "<H", view, 8)
    start = 8 + (4 if wide else 2)
    if length > _MAX_HEADER_BYTES or start + length > len(view):
        raise ValueError("its header is not all there, or too long")
    header = ast.literal_eval(bytes(view[start : start + length]).decode("utf-8" if view[6] > 2 else "latin-1").strip())
    shape, fortran, descr = header["shape"], header["fortran_order"], header["descr"]
    sizes = isinstance(shape, tuple) and all(type(size) is int and 0 <= size < 2**40 for size in shape)
    if not sizes or len(shape) > MAX_RANK + 1 or not isinstance(descr, str) or not isinstance(fortran, bool):
        raise ValueError("its header is not one of a plain array")
    return shape, fortran, np.dtype(descr), start + length


def write(array: Array) -> bytes:
    """The array as a `.npy` file; text as UTF-32 of one width, as NumPy does."""
    if array.dtype.kind == "O":
        array = array.astype(str)
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array) if array.ndim else array, allow_pickle=False)
    return file.getvalue()
