"""Parquet files are bounded by what pyarrow reads in them too, and damaged ones are refused at once."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from estiba.core.errors import BadRequest, EstibaError
from estiba.model.coding.table_limits import TableTooLarge, check_parquet
from estiba.model.coding.thrift_compact import CompactReader, number, structs

TABLE = pa.table({"age": [41, 20, None], "country": ["ES", "FR", None], "active": [True, False, True]})
WAYS: list[dict[str, Any]] = [
    {},
    {"compression": "zstd", "row_group_size": 2},
    {"use_dictionary": False, "compression": "none"},
    {"data_page_version": "2.0"},
    {"write_statistics": False, "write_page_index": True},
]


def written(**options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize("options", WAYS)
def test_the_footer_says_what_pyarrow_reads_in_it(options: dict[str, Any]) -> None:
    body = written(**options)
    (length,) = struct.unpack_from("<I", body, len(body) - 8)
    footer = CompactReader(memoryview(body), len(body) - 8 - length).struct()
    metadata = pq.ParquetFile(io.BytesIO(body)).metadata
    assert number(footer, 3) == metadata.num_rows
    groups = structs(footer, 4)
    assert len(groups) == metadata.num_row_groups
    for i, group in enumerate(groups):
        for j, column in enumerate(structs(group, 1)):
            chunk = metadata.row_group(i).column(j)
            assert number(column[3], 5) == chunk.num_values
            assert number(column[3], 7) == chunk.total_compressed_size
            assert number(column[3], 9) == chunk.data_page_offset
            assert number(column[3], 11, default=0) == (chunk.dictionary_page_offset or 0)


@pytest.mark.parametrize("options", WAYS)
def test_a_file_is_taken_up_to_its_limits(options: dict[str, Any]) -> None:
    body = memoryview(written(**options))
    check_parquet(body, 10_000, 3)
    with pytest.raises(TableTooLarge):
        check_parquet(body, 10, 3)
    with pytest.raises(BadRequest):
        check_parquet(body, 10_000, 1)


@pytest.mark.parametrize("kind", range(16))
def test_a_list_longer_than_the_input_ends(kind: int) -> None:
    endless = bytes([0x19, 0xF0 | kind, *[0xFF] * 8, 0x7F])  # member 1: a list of 2^63 of that kind
    with pytest.raises((ValueError, IndexError)):
        CompactReader(memoryview(endless), 0).struct()


@pytest.mark.slow
def test_a_damaged_file_is_taken_or_refused() -> None:
    chance = random.Random(7)
    bodies = [written(**options) for options in WAYS]
    statuses = []
    for _ in range(20_000):
        body = bytearray(chance.choice(bodies))
        for _ in range(chance.choice([1, 1, 2, 4])):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            check_parquet(memoryview(body), 10_000, 100)
        except EstibaError as error:
            statuses.append(error.status)
    assert set(statuses) <= {400, 413}
    assert 1_000 < len(statuses) < 20_000
