"""A sample that is compressed inside is bounded before it is read, whatever its own figures are."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LinearRegression

from estiba.core.errors import EstibaError
from estiba.model.packing import sample_size
from estiba.model.packing.from_file import from_file, read_arrays, read_sample

MAX_BYTES = 5_000_000
WORD = "a" * 2**16

LARGE = {
    "texts": pa.table({"x": pa.array([WORD] * 200)}),
    "texts in lists": pa.table({"x": pa.array([[WORD] * 100, [WORD] * 100])}),
    "texts in records": pa.table({"x": pa.array([{"y": [{"z": WORD}]}] * 200)}),
    "texts of a dictionary": pa.table({"x": pa.array([WORD] * 200).dictionary_encode()}),
    "one number": pa.table({"x": np.zeros(1_000_000)}),
    "wide values": pa.table({"x": pa.array([b"a" * 2**16] * 200, pa.binary(2**16))}),
    "missing values": pa.table({"x": pa.nulls(1_000_000, pa.float64())}),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("dictionary", [True, False])
def test_a_small_file_that_becomes_large_is_refused(tmp_path: Path, name: str, dictionary: bool) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(LARGE[name], path, compression="zstd", use_dictionary=dictionary, write_statistics=False)
    assert path.stat().st_size < MAX_BYTES / 100
    with pytest.raises(EstibaError, match=r"rows\.parquet becomes larger than 5,000,000 bytes when it is read"):
        sample_size.check_parquet(path, MAX_BYTES)


@pytest.mark.parametrize("encoding", ["PLAIN", None])
def test_usual_files_are_taken(tmp_path: Path, encoding: str | None) -> None:
    table = pa.table({"x": [1.0, 2.0], "y": ["a", None], "z": [["b"], []], "w": [{"v": "q"}, None]})
    path = tmp_path / "rows.parquet"
    options = {"column_encoding": {"y": encoding}, "use_dictionary": False} if encoding else {}
    pq.write_table(table, path, **options)
    sample_size.check_parquet(path)
    assert read_sample(path, None)["y"].tolist()[0] == "a"
    pq.write_table(table.slice(0, 0), path)
    sample_size.check_parquet(path)


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_other_encodings_of_texts_are_refused_with_a_remedy(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"x": ["ab", "abc"]})
    pq.write_table(table, path, column_encoding={"x": encoding}, use_dictionary=False)
    with pytest.raises(EstibaError, match=r"rows\.parquet cannot be read as a table: .* encoding") as caught:
        read_sample(path, None)
    assert caught.value.hint == "Write it again with pandas: df.to_parquet(path)."


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + b"\xff" * 50 + b"PAR1"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(damage)
    with pytest.raises(EstibaError, match=r"rows\.parquet cannot be read as a table"):
        read_sample(path, None)


def test_arrays_are_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    np.savez_compressed(path, x=np.zeros(1_000_000))
    assert path.stat().st_size < MAX_BYTES / 100
    tracemalloc.start()
    with pytest.raises(EstibaError, match=r"rows\.npz becomes larger than 5,000,000 bytes"):
        sample_size.check_arrays(path, MAX_BYTES)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    np.savez_compressed(path, x=np.zeros(3))
    assert read_arrays(path)["x"].tolist() == [0, 0, 0]


def test_packing_asks_before_it_reads(tmp_path: Path) -> None:
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    joblib.dump(LinearRegression().fit(rows, [1.0, 2.0, 3.0]), tmp_path / "line.joblib")
    large = pa.table({"x": pa.DictionaryArray.from_arrays(np.zeros(50_000, "int32"), [WORD])})
    pq.write_table(large, tmp_path / "rows.parquet", compression="zstd", write_statistics=False)
    assert (tmp_path / "rows.parquet").stat().st_size < 5_000
    with pytest.raises(EstibaError, match="becomes larger than 2,000,000,000 bytes"):
        from_file(tmp_path / "line.joblib", tmp_path / "rows.parquet", trust=True)
    assert pa.default_memory_pool().max_memory() < 500_000_000
