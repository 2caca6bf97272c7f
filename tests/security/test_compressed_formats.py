"""Refuse small bodies in formats that compress inside before they become gigabytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from attacked import MIB, Target, limit_memory
from supervised import pack, serving

pytestmark = pytest.mark.slow

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
PATH = "/models/toy/predict"
MOST = 100 * MIB
"""By how much the worker may grow; what is refused is refused for far less."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    registry = tmp_path_factory.mktemp("security") / "registry"
    pack(registry)
    with serving(registry, "--workers", "1") as server:
        target = Target(server)
        good = parquet({"x0": [0.5], "x1": [-1.0]})
        assert target.post(PATH, good, {"content-type": PARQUET})[0] == 200  # and pyarrow is imported now
        limit_memory(target.worker, 1500 * MIB)
        yield target


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    options = {"compression": "zstd", "store_schema": False, "write_statistics": False, **options}
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def arrow(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table)
    return sink.getvalue()


def refused(target: Target, body: bytes, kind: str) -> tuple[int, str]:
    target.peak()
    status, answer = target.post(PATH, body, {"content-type": kind})
    grown = target.growth()
    assert 0 <= grown < MOST, f"{grown / MIB:.0f} MB for {len(body)} bytes, {status} {answer[:200]!r}"
    return status, answer.decode()


LONG = {"dictionary_pagesize_limit": 4 << 20, "use_dictionary": True}


def test_an_unknown_column_of_287_bytes_that_would_be_gigabytes(target: Target) -> None:
    body = parquet({"x": pa.array(["a" * 2**20] * 2000)}, **LONG)
    assert len(body) < 400
    status, answer = refused(target, body, PARQUET)
    assert status == 422
    assert "#/records/0/x" in answer


def test_a_long_string_for_every_row_of_a_known_column(target: Target) -> None:
    words = pa.array(["a" * 2**20] * 2000)
    status, _ = refused(target, parquet({"x0": words, "x1": words}, **LONG), PARQUET)
    assert status == 422


@pytest.mark.parametrize("codec", ["zstd", "gzip", "brotli", "lz4", "snappy"])
def test_pages_that_become_larger_than_a_body_may_be(target: Target, codec: str) -> None:
    words = pa.array(["a" * 2**20 + str(n) for n in range(40)])
    body = parquet({"x0": words, "x1": [1.0] * 40}, compression=codec, use_dictionary=False)
    assert len(body) < 4 * MIB
    status, answer = refused(target, body, PARQUET)
    assert (status, "becomes larger than 16777216 bytes" in answer) == (413, True)


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_encodings_that_repeat_the_string_before(target: Target, encoding: str) -> None:
    words = pa.array(["a" * 2**20] * 2000)
    encodings = {"x0": encoding, "x1": "PLAIN"}
    body = parquet({"x0": words, "x1": [1.0] * 2000}, use_dictionary=False, column_encoding=encodings)
    status, answer = refused(target, body, PARQUET)
    assert status in (400, 413), answer


def test_nested_and_repeated_values_are_refused_by_their_type(target: Target) -> None:
    body = parquet({"x0": pa.array([[0.0] * 100_000] * 500), "x1": [1.0] * 500})
    status, answer = refused(target, body, PARQUET)
    assert (status, "no column may be of type list" in answer) == (422, True)
    ends = pa.RunEndEncodedArray.from_arrays([100_000], pa.array(["a" * 2**20]))
    status, answer = refused(target, arrow({"x0": ends, "x1": [1.0] * 100_000}), ARROW)
    assert (status, "no column may be of type run_end_encoded" in answer) == (422, True)
    views = pa.array(["a" * 2**20] * 10, pa.string_view())
    assert refused(target, arrow({"x0": views, "x1": [1.0] * 10}), ARROW)[0] == 422


def test_arrow_buffers_say_what_they_become(target: Target) -> None:
    words = pa.array(["a" * (512 * MIB)])
    for columns, expected in (({"x": words}, 422), ({"x0": words, "x1": [1.0]}, 413)):
        body = arrow(columns, compression="zstd")
        assert len(body) < 64 * 1024
        assert refused(target, body, ARROW)[0] == expected
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 10), pa.array(["a" * (64 * MIB)]))
    assert refused(target, arrow({"x0": words, "x1": [1.0] * 10}, compression="lz4"), ARROW)[0] == 413


def test_a_footer_of_twelve_thousand_columns(target: Target) -> None:
    body = parquet({f"c{n}": [1.0] for n in range(12_000)})
    assert refused(target, body, PARQUET)[0] == 413


@pytest.mark.parametrize("codec", ["NONE", "zstd", "snappy", "gzip"])
def test_what_is_within_the_bounds_is_answered(target: Target, codec: str) -> None:
    columns = {"x0": [n / 3 for n in range(50_000)], "x1": pa.array(range(50_000), pa.int32())}
    for options in ({}, {"data_page_version": "2.0"}, {"use_dictionary": False}, {"row_group_size": 7000}):
        status, answer = target.post(PATH, parquet(columns, compression=codec, **options), {"content-type": PARQUET})
        assert status == 200, answer
    stream = arrow(columns, compression=codec) if codec == "zstd" else arrow(columns)
    assert target.post(PATH, stream, {"content-type": ARROW})[0] == 200
