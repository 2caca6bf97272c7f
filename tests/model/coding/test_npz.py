"""`.npz` files that state another size than they have, and arrays whose bytes look like a zip's directory."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from estiba.core.errors import BadRequest
from estiba.model.coding import npz

DIRECTORY_ENTRY = b"PK\x01\x02"


def dishonest(size: int, stated: int) -> bytes:
    """A zip with an entry of zeros, whose directory states another size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(size))
    content = bytearray(file.getvalue())
    place = content.rfind(DIRECTORY_ENTRY) + 24
    content[place : place + 4] = stated.to_bytes(4, "little")
    return bytes(content)


def test_an_entry_is_not_decompressed_beyond_its_stated_size() -> None:
    body = dishonest(50_000_000, 100)
    assert len(body) < 60_000
    tracemalloc.start()
    with pytest.raises(BadRequest, match=r"not a \.npz file"):
        npz.read(body, 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_an_array_that_holds_a_zip_is_no_directory() -> None:
    array = np.frombuffer(DIRECTORY_ENTRY * (npz.MAX_ENTRIES + 1), np.uint8)
    file = io.BytesIO()
    np.savez(file, a=array)
    assert np.array_equal(npz.read(file.getvalue(), 1_000_000)["a"], array)


@pytest.mark.parametrize("end", [b"", b"a comment"])
def test_too_many_entries_are_refused_though_the_end_states_fewer(end: bytes) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(npz.MAX_ENTRIES + 1):
            archive.writestr(f"{i}.npy", b"")
        archive.comment = end
    content = bytearray(file.getvalue())
    place = content.rfind(b"PK\x05\x06") + 8
    content[place : place + 4] = b"\x01\x00\x01\x00"
    assert len(zipfile.ZipFile(io.BytesIO(content)).namelist()) == npz.MAX_ENTRIES + 1
    with pytest.raises(npz.TooLargeWhenRead, match="more than 1,000 arrays"):
        npz.read(bytes(content), 1_000_000)
