"""Read requests and write answers as Arrow streams or Parquet files, for callers with many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from estiba.core.errors import BadInput, BadRequest, MissingExtra, Problem
from estiba.model.coding import arrow as tables
from estiba.model.coding import table_limits
from estiba.model.coding.coder import Coded, Coder
from estiba.model.coding.known_names import MAX_PROBLEMS
from estiba.model.schema.rows import Prediction
from estiba.serving.protocols.body_parsing import MAX_ROWS, NotSupported, check_count

ARROW = b"application/vnd.apache.arrow.stream"
PARQUET = b"application/vnd.apache.parquet"
KINDS = (ARROW, PARQUET)


def code_table_body(coder: Coder, body: bytes | bytearray, kind: bytes, max_bytes: int) -> Coded:
    """Code a body of one of KINDS.

    Args:
        max_bytes: size of the table. Its schema and its size are checked before anything is decompressed.

    Raises:
        NotSupported: pyarrow is not installed here. BadRequest: the body is not of that kind.
        TooManyRows, TableTooLarge, BadInput: as for any other body.
    """
    try:
        table = _read(coder, body, kind, max_bytes)
    except MissingExtra as error:
        raise NotSupported(f"This server cannot read {kind.decode()}: {error.message}") from None
    if not table.num_rows:
        raise BadInput([Problem("#/records", "expected at least one row")])
    columns = tables.columns(coder.fields, table)
    columns |= {name: table.column(name).to_pylist() for name in coder.keep if name in table.schema.names}
    return coder.check_columns(columns, table.num_rows)


def _read(coder: Coder, body: bytes | bytearray, kind: bytes, max_bytes: int) -> Any:
    """The table of a body.

    Its offsets and lengths come from the caller, so all of them are validated before any value is read.
    """
    arrow = tables.pyarrow()
    read = _read_arrow if kind == ARROW else _read_parquet
    try:
        table = read(coder, body, max_bytes)
        table.validate(full=True)
        return table
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        what = "an Arrow stream" if kind == ARROW else "a Parquet file"
        raise BadRequest(f"The body is not {what}: {error}") from None


def _check_schema(coder: Coder, schema: Any) -> None:
    """Refuse columns that the model does not know, and types that it cannot take, before any of them is read."""
    if problems := coder.names.of_table(schema.names) or table_limits.check_types(schema):
        raise BadInput(problems[:MAX_PROBLEMS])


def _read_arrow(coder: Coder, body: bytes | bytearray, max_bytes: int) -> Any:
    arrow = tables.pyarrow()
    content = arrow.py_buffer(body)
    with tables.pyarrow("ipc").open_stream(content) as stream:
        _check_schema(coder, stream.schema)
        table_limits.check_arrow(content, max_bytes, MAX_ROWS)
        batches = []
        rows = 0
        for batch in stream:
            rows += batch.num_rows
            check_count(rows)
            batches.append(batch)
        return arrow.Table.from_batches(batches, stream.schema)


def _read_parquet(coder: Coder, body: bytes | bytearray, max_bytes: int) -> Any:
    """Read strings as positions in their dictionary, as a long one would otherwise be copied for every row."""
    arrow, parquet = tables.pyarrow(), tables.pyarrow("parquet")
    view = memoryview(body)
    table_limits.check_footer(view)
    file = parquet.ParquetFile(arrow.BufferReader(body))
    metadata, schema = file.metadata, file.schema_arrow
    check_count(max(metadata.num_rows, sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))))
    _check_schema(coder, schema)
    table_limits.check_parquet(view, max_bytes, MAX_ROWS)
    text_columns = [field.name for field in schema if tables.is_text(field.type)]
    file = parquet.ParquetFile(arrow.BufferReader(body), metadata=metadata, read_dictionary=text_columns)
    known = [name for name in schema.names if coder.names.knows(name)]
    return file.read(known, use_threads=False)


def wanted(accept: bytes) -> bytes:
    """The first of KINDS in an Accept header; empty for JSON."""
    kinds = {part.partition(b";")[0].strip().lower() for part in accept.split(b",")}
    return next((kind for kind in KINDS if kind in kinds), b"")


def encode_table(predictions: Sequence[Prediction], kind: bytes, warnings: Sequence[Mapping[str, str]] = ()) -> bytes:
    """Encode predictions as a table of that kind; probabilities become columns `probabilities.CLASS`.

    Args:
        warnings: as in JSON; in the metadata of the table's schema.
    """
    arrow = tables.pyarrow()
    table = tables.table(_flat(predictions))
    if warnings:
        table = table.replace_schema_metadata({"warnings": msgspec.json.encode(warnings)})
    sink = arrow.BufferOutputStream()
    if kind == ARROW:
        with tables.pyarrow("ipc").new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    else:
        tables.pyarrow("parquet").write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _flat(predictions: Sequence[Prediction], prefix: str = "") -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for name, first in predictions[0].items():
        values = [row[name] for row in predictions]
        columns |= _flat(values, f"{prefix}{name}.") if isinstance(first, dict) else {prefix + name: values}
    return columns
