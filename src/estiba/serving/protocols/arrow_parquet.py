"""Bulk: requests and answers as Arrow streams or Parquet files, for callers with many rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estiba.core.errors import BadInput, BadRequest, MissingExtra, Problem
from estiba.model.coding import arrow as tables
from estiba.model.coding.coder import MAX_PROBLEMS, Coded, Coder
from estiba.model.schema.rows import Prediction
from estiba.serving.protocols.body_parsing import NotSupported, check_count

ARROW = b"application/vnd.apache.arrow.stream"
PARQUET = b"application/vnd.apache.parquet"
KINDS = (ARROW, PARQUET)


def code_bulk(coder: Coder, body: bytes | bytearray, kind: bytes) -> Coded:
    """A body of one of KINDS to coded rows.

    Raises:
        NotSupported: pyarrow is not installed here. BadRequest: the body is not of that kind.
        TooManyRows, BadInput: as for any other body.
    """
    try:
        table, names = _read(body, kind)
    except MissingExtra as error:
        raise NotSupported(f"This server cannot read {kind.decode()}: {error.message}") from None
    if problems := coder.check_names(names):
        raise BadInput(problems[:MAX_PROBLEMS])
    if not table.num_rows:
        raise BadInput([Problem("#/records", "expected at least one row")])
    return coder.check_columns(tables.columns(coder.fields, table), table.num_rows)


def _read(body: bytes | bytearray, kind: bytes) -> tuple[Any, list[str]]:
    """The table that a caller sent, and the names of its columns.

    Where its parts begin and end is the caller's word, so all of it is checked before anything is read there.
    """
    arrow = tables.pyarrow()
    try:
        table = _read_arrow(body) if kind == ARROW else _read_parquet(body)
        table.validate(full=True)
        return table, table.schema.names
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        what = "an Arrow stream" if kind == ARROW else "a Parquet file"
        raise BadRequest(f"The body is not {what}: {error}") from None


def _read_arrow(body: bytes | bytearray) -> Any:
    arrow = tables.pyarrow()
    with tables.pyarrow("ipc").open_stream(arrow.py_buffer(body)) as stream:
        batches = []
        rows = 0
        for batch in stream:
            rows += batch.num_rows
            check_count(rows)
            batches.append(batch)
        return arrow.Table.from_batches(batches, stream.schema)


def _read_parquet(body: bytes | bytearray) -> Any:
    file = tables.pyarrow("parquet").ParquetFile(tables.pyarrow().BufferReader(body))
    check_count(file.metadata.num_rows)
    return file.read(use_threads=False)


def wanted(accept: bytes) -> bytes:
    """The one of KINDS that an Accept header names; empty for JSON."""
    kinds = {part.partition(b";")[0].strip().lower() for part in accept.split(b",")}
    return next((kind for kind in KINDS if kind in kinds), b"")


def encode_bulk(predictions: Sequence[Prediction], kind: bytes) -> bytes:
    """Predictions as a table of that kind; probabilities become columns `probabilities.CLASS`."""
    arrow = tables.pyarrow()
    table = tables.table(_flat(predictions))
    sink = arrow.BufferOutputStream()
    if kind == ARROW:
        with tables.pyarrow("ipc").new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    else:
        tables.pyarrow("parquet").write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _flat(predictions: Sequence[Prediction]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for name, first in predictions[0].items():
        if isinstance(first, dict):
            columns |= {f"{name}.{key}": [row[name][key] for row in predictions] for key in first}
        else:
            columns[name] = [row[name] for row in predictions]
    return columns
