"""`.npy` as NumPy writes it, and what only looks like it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from estiba.core.errors import BadRequest
from estiba.model.coding import npy


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), **options)
    return file.getvalue()


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.array(3.5),
    np.arange(4, dtype=">i4"),
    np.array([True, False]),
    np.array(["a", "ñandú"]),
    np.zeros((0, 3)),
]


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_an_array_is_read_as_numpy_does(array: Any, version: tuple[int, int]) -> None:
    found = npy.read(saved(array, version=version))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize("array", [*ARRAYS, np.array(["a", "bc"], dtype=object)])
def test_an_array_is_written_so_that_numpy_reads_it(array: Any) -> None:
    found = np.load(io.BytesIO(npy.write(array)), allow_pickle=False)
    assert np.array_equal(found, array.astype(str) if array.dtype.kind == "O" else array)


def changed(old: bytes, new: bytes) -> bytes:
    content = saved(np.zeros((2, 3), np.float32))
    assert old in content
    assert len(old) == len(new)
    return content.replace(old, new)


def headed(dtype: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        saved(np.zeros(3))[:-1],
        saved(np.zeros(3)) + b"\0",
        changed(b"(2, 3)", b"(2,-3)"),
        changed(b"(2, 3)", b"(9,9,)"),
        changed(b"(2, 3)", b"{2, 3}"),
        changed(b"(2, 3)", b"(2,3.)"),
        changed(b"'<f4'", b"'|O8'"),
        changed(b"'<f4'", b"'<M8'"),
        changed(b"'<f4'", b"'xyz'"),
        changed(b"'<f4'", b"[1,2]"),
        changed(b"{'descr'", b"(((((((("),
        saved(np.array([{}], dtype=object), allow_pickle=True),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100,
        b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10000,
        headed("'<U0'", "(5,)"),
        headed("'<U0'", f"({2**39},)"),
        headed("'<f4'", f"(0, {2**39}, {2**39}, {2**39})"),
        headed("'<U1'", "(1,)", b"\xff\xff\xff\xff"),
        headed("'>U1'", "(1,)", b"\x00\x00\xd8\x00"),
        headed("'|b1'", "(1,)", b"\x07"),
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**9, 10**9)}".ljust(118),
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999,)}".ljust(118),
    ],
)
def test_what_is_no_array_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        npy.read(body)
