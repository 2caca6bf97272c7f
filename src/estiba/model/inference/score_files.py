"""Score a file of rows: read CSV, Parquet or Excel, write predictions as these or JSON lines, in chunks."""

from __future__ import annotations

import csv
import itertools
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from estiba.core.errors import BadInput, EstibaError, NotFound
from estiba.model.coding import arrow
from estiba.model.coding.coder import Coded, Coder
from estiba.model.coding.csv_file import PLAIN_CSV, CsvFile, CsvOptions, decimal_hint
from estiba.model.coding.xlsx_file import XlsxFile, as_text
from estiba.model.coding.xlsx_writer import XlsxWriter
from estiba.model.inference.load import Model
from estiba.model.schema.signature import Field
from estiba.model.schema.values import is_numeric

CHUNK_ROWS = 50_000
"""Rows read, answered and written at a time."""

INPUTS = (".csv", ".parquet", ".xlsx")
OUTPUTS = (".csv", ".parquet", ".jsonl", ".xlsx")

Progress = Callable[[int, int | None], None]


class SourceOptions(NamedTuple):
    """Options for reading a source: the format of a `.csv`, and the sheet of an `.xlsx` file (empty: the first)."""

    csv: CsvOptions = PLAIN_CSV
    sheet: str = ""


PLAIN_SOURCE = SourceOptions()
"""A source as most programs write it."""


class Scored(NamedTuple):
    """The number of rows that were answered, and the columns of the source that the model does not know.

    not_finite: rows of which an answer is missing, because the model's number is infinite or NaN.
    """

    rows: int
    ignored: tuple[str, ...]
    not_finite: int = 0


class _Chunk(NamedTuple):
    coded: Coded
    kept: dict[str, Any]


class _Source(Protocol):
    ignored: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def total(self) -> int | None: ...

    def absent(self, name: str) -> str: ...

    def chunks(self, coder: Coder, keep: Sequence[str]) -> Iterator[_Chunk]: ...


def score(
    model: Model,
    source: Path,
    target: Path,
    *,
    keep: Sequence[str] = (),
    options: SourceOptions = PLAIN_SOURCE,
    on_rows: Progress = lambda done, total: None,
) -> Scored:
    """Answer every row of a file, in order. `target` appears complete or not at all.

    Args:
        source: `.csv` or `.xlsx` (with a header line; an empty cell is a missing value) or `.parquet`.
        target: `.csv`, `.parquet`, `.jsonl` or `.xlsx`.
        keep: columns of the source to carry over, such as a customer number; fields under their own names.
        options: separator, decimal separator and encoding of a `.csv` source, and the sheet of an `.xlsx` one.
        on_rows: called after each chunk with the number of rows done so far, and the total where it is known.

    Raises:
        EstibaError: a row does not match the signature (named with its line and field), or a file cannot be used.
    """
    if model.signature.is_tensors:
        raise EstibaError(
            f"{model.name} is a model of tensors, which files of rows do not hold.",
            hint=f"From Python: estiba.load({model.name!r}).predict(numpy.load('{source.with_suffix('.npy').name}')).",
        )
    keep = tuple(model.coder.names.aliases.get(name, name) for name in keep)
    reader = _reader(source, model.coder, keep, options)
    keep = tuple(dict.fromkeys((*(name for name in model.coder.keep if name in reader.columns), *keep)))
    if target.exists() and target.samefile(source):
        raise EstibaError(
            f"{target} is the file to be scored.",
            hint="Choose another output file: the answers would replace the rows.",
        )
    done = not_finite = 0
    with _atomic(target) as file, _writer(target, file) as write:
        for chunk in reader.chunks(model.coder, keep):
            with _counted(source, done):
                raw = model.answer(chunk.coded)
            write({**chunk.kept, **model.predictions.columns(raw)})
            not_finite += int((~np.isfinite(raw).all(axis=1)).sum())
            done += len(chunk.coded)
            on_rows(done, reader.total)
        if not done:
            raise EstibaError(f"{source} has no rows.")
    return Scored(done, reader.ignored, not_finite)


def coded_rows(model: Model, source: Path, options: SourceOptions = PLAIN_SOURCE) -> Iterator[Coded]:
    """The rows of a file in coded form, in chunks; args and errors as `score`."""
    for chunk in _reader(source, model.coder, (), options).chunks(model.coder, ()):
        yield chunk.coded


def _reader(source: Path, coder: Coder, keep: Sequence[str], options: SourceOptions) -> _Source:
    if not source.is_file():
        raise NotFound(f"There is no file {source}.")
    if source.suffix not in INPUTS:
        raise EstibaError(f"{source} has a file type that cannot be read.", hint=f"Known: {', '.join(INPUTS)}.")
    reader = _open(source, options)
    if twice := [name for name, count in Counter(reader.columns).items() if count > 1]:
        raise EstibaError(f"{source} has the column {twice[0]!r} twice.")
    reader.columns = tuple(coder.names.aliases.get(name, name) for name in reader.columns)
    known = set(coder.signature.names)
    missing = [f.name for f in coder.fields if not f.nullable and f.name not in reader.columns]
    if missing or (absent := [name for name in keep if name not in reader.columns]):
        name = missing[0] if missing else absent[0]
        what = f"column for the model's field {name!r}" if missing else f"column {name!r}"
        raise EstibaError(f"{source} has no {what}.", hint=reader.absent(name))
    reader.ignored = tuple(name for name in reader.columns if name not in known and name not in (*keep, *coder.keep))
    return reader


def _open(source: Path, options: SourceOptions) -> _Source:
    if source.suffix == ".xlsx":
        return _Xlsx(source, options.sheet)
    if options.sheet:
        raise EstibaError(f"{source} has no sheets.", hint="A sheet is chosen in .xlsx files alone.")
    return _Csv(source, options.csv) if source.suffix == ".csv" else _Parquet(source)


class _Csv:
    """A CSV source, read with the standard library so that scoring needs nothing installed."""

    total = None

    def __init__(self, path: Path, options: CsvOptions) -> None:
        self._file = CsvFile(path, options)
        self.ignored: tuple[str, ...] = ()
        self.columns = self._file.columns

    def absent(self, name: str) -> str:
        """The hint for a column that is not there."""
        if other := self._file.unlike(name):
            return f"Its header has {other!r}: remove the spaces after the separators."
        return f"It has: {', '.join(self.columns)}."

    def chunks(self, coder: Coder, keep: Sequence[str]) -> Iterator[_Chunk]:
        names = [name for name in self.columns if name in set(coder.signature.names)]
        places = [(self.columns.index(name), is_numeric(coder.signature.field(name))) for name in names]
        kept = {name: self.columns.index(name) for name in keep}
        with self._file.open() as reader:
            next(reader)
            start = 0
            while lines := self._lines(reader, start):
                columns = list(zip(*lines, strict=True))
                used = (self._cells(columns[i], numeric) for i, numeric in places)
                with _placed(self._file.path, "line", range(start + 2, start + len(lines) + 2), decimal_hint):
                    coded = coder.check_text(names, list(zip(*used, strict=True)))
                yield _Chunk(coded, {name: list(columns[i]) for name, i in kept.items()})
                start += len(lines)

    def _cells(self, cells: Sequence[str], numeric: bool) -> Sequence[str]:
        if not numeric or self._file.options.decimal == ".":
            return cells
        return [self._file.number(cell) for cell in cells]

    def _lines(self, reader: Any, start: int) -> list[list[str]]:
        lines: list[list[str]] = []
        for line in reader:
            if not line:
                continue
            if len(line) != len(self.columns):
                raise EstibaError(
                    f"{self._file.path}, line {start + len(lines) + 2}: "
                    f"expected {len(self.columns)} cells as in the header, got {len(line)}."
                )
            lines.append(line)
            if len(lines) == CHUNK_ROWS:
                break
        return lines


class _Parquet:
    """A Parquet source, read by column: strings arrive as positions in a dictionary and are coded once per word."""

    def __init__(self, path: Path) -> None:
        parquet = arrow.pyarrow("parquet")
        self._path = path
        self.ignored: tuple[str, ...] = ()
        try:
            self._file = parquet.ParquetFile(path)
            schema = self._file.schema_arrow
            text_columns = [
                field.name for field in schema if arrow.is_text(field.type)
            ]  # a long one is not copied for each row
            self._file = parquet.ParquetFile(path, metadata=self._file.metadata, read_dictionary=text_columns)
        except Exception as error:  # pyarrow's own errors, which share no root
            raise EstibaError(f"{path} is not a Parquet file: {error}") from None
        self.total: int | None = self._file.metadata.num_rows
        self.columns = tuple(schema.names)

    def absent(self, name: str) -> str:
        """The hint for a column that is not there."""
        return f"It has: {', '.join(self.columns)}."

    def chunks(self, coder: Coder, keep: Sequence[str]) -> Iterator[_Chunk]:
        fields = [field for field in coder.fields if field.name in self.columns]
        names = [*(field.name for field in fields), *keep]
        renamed = dict(zip(self._file.schema_arrow.names, self.columns, strict=True))
        start = 0
        for read in self._batches([own for own, name in renamed.items() if name in names]):
            batch = read.rename_columns([renamed[own] for own in read.schema.names])
            columns = arrow.columns(fields, batch)
            with _placed(self._path, "row", range(start + 1, start + batch.num_rows + 1)):
                coded = coder.check_columns(columns, batch.num_rows)
            yield _Chunk(coded, {name: batch.column(name).to_pylist() for name in keep})
            start += batch.num_rows

    def _batches(self, columns: Sequence[str]) -> Iterator[Any]:
        try:
            for batch in self._file.iter_batches(CHUNK_ROWS, columns=columns):
                batch.validate(full=True)
                yield batch
        except (arrow.pyarrow().ArrowException, OSError) as error:
            raise EstibaError(f"{self._path} cannot be read as Parquet: {error}") from None


class _Xlsx:
    """A sheet of an Excel workbook, read row by row."""

    total = None

    def __init__(self, path: Path, sheet: str) -> None:
        self._file = XlsxFile(path, sheet)
        self.ignored: tuple[str, ...] = ()
        self.columns = self._file.columns

    def absent(self, name: str) -> str:
        """The hint for a column that is not there."""
        return f"Its sheet {self._file.sheet!r} has: {', '.join(self.columns)}."

    def chunks(self, coder: Coder, keep: Sequence[str]) -> Iterator[_Chunk]:
        fields = [field for field in coder.fields if field.name in self.columns]
        names = [*(field.name for field in fields), *keep]
        rows = self._file.rows([self.columns.index(name) for name in dict.fromkeys(names)])
        while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
            cells = zip(*(row.cells for row in chunk), strict=True)
            columns = dict(zip(dict.fromkeys(names), cells, strict=True))
            used = {field.name: _of_field(field, columns[field.name]) for field in fields}
            with _placed(self._file.path, "row", [row.number for row in chunk], _text_hint):
                coded = coder.check_columns(used, len(chunk))
            yield _Chunk(coded, {name: list(columns[name]) for name in keep})


def _of_field(field: Field, cells: Sequence[Any]) -> Sequence[Any]:
    """Cells of a workbook as a field takes them: a number in a column of text is its digits."""
    text = field.kind == "text" or (field.kind == "category" and all(isinstance(level, str) for level in field.levels))
    return [as_text(cell) for cell in cells] if text else cells


def _text_hint(detail: str) -> str:
    number = "expected a number" in detail or "expected an integer" in detail
    return "The cell holds text: convert it to a number in the workbook." if number and detail.endswith('"') else ""


@contextmanager
def _counted(path: Path, done: int) -> Iterator[None]:
    """Turn positions in what the model was asked into positions in the file; of rows that only the model refuses."""
    try:
        yield
    except BadInput as error:
        problem = error.problems[0]
        row = done + int(problem.pointer.split("/")[2]) + 1
        raise EstibaError(
            f"{path}, row {row} below the header: {problem.detail}.", hint="Nothing was written."
        ) from None


@contextmanager
def _placed(
    path: Path, unit: str, numbers: Sequence[int], hint_of: Callable[[str], str] = lambda detail: ""
) -> Iterator[None]:
    """Turn positions within a chunk into the numbers of its rows in the file."""
    try:
        yield
    except BadInput as error:
        problem = error.problems[0]
        _, _, row, *name = problem.pointer.split("/")
        more = len(error.problems) - 1
        field = f", field {name[0]!r}".replace("~1", "/").replace("~0", "~") if name else ""
        others = f" There are at least {more} more like it in this part of the file." if more else ""
        hint = hint_of(problem.detail) or "Nothing was written."
        where = f"{path}, {unit} {numbers[int(row)]}{field}"
        raise EstibaError(f"{where}: {problem.detail}.{others}", hint=hint) from None


@contextmanager
def _atomic(target: Path) -> Iterator[Path]:
    """A file beside `target` that replaces it on success and is deleted otherwise."""
    if target.suffix not in OUTPUTS:
        raise EstibaError(f"{target} has a file type that cannot be written.", hint=f"Known: {', '.join(OUTPUTS)}.")
    file = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    try:
        try:
            file.touch(mode=0o600, exist_ok=False)
        except OSError as error:
            raise EstibaError(f"Cannot write to {target.parent}: {error.strerror}.") from error
        yield file
        file.chmod(0o644)
        file.replace(target)
    except OSError as error:
        raise EstibaError(f"Cannot write {target}: {error.strerror}.") from error
    finally:
        file.unlink(missing_ok=True)


Write = Callable[[dict[str, Any]], None]


@contextmanager
def _writer(target: Path, file: Path) -> Iterator[Write]:
    writers = {".csv": _write_csv, ".jsonl": _write_json_lines, ".parquet": _write_parquet, ".xlsx": _write_xlsx}
    with writers[target.suffix](file) as write:
        yield write


@contextmanager
def _write_csv(file: Path) -> Iterator[Write]:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")

        def write(columns: dict[str, Any]) -> None:
            if opened.tell() == 0:
                writer.writerow(columns)
            writer.writerows(zip(*(_cells(values) for values in columns.values()), strict=True))

        yield write


def _cells(values: Any) -> list[Any]:
    """Plain values, with None for NaN: an empty cell is a missing value."""
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and np.isnan(values).any():
        return [None if v != v else v for v in plain]
    cells: list[Any] = plain
    return cells


@contextmanager
def _write_json_lines(file: Path) -> Iterator[Write]:
    encoder = msgspec.json.Encoder()
    with file.open("wb") as opened:

        def write(columns: dict[str, Any]) -> None:
            names = list(columns)
            rows = zip(*(_cells(values) for values in columns.values()), strict=True)
            opened.write(encoder.encode_lines([dict(zip(names, row, strict=True)) for row in rows]))

        yield write


@contextmanager
def _write_parquet(file: Path) -> Iterator[Write]:
    parquet = arrow.pyarrow("parquet")
    writers: list[Any] = []

    def write(columns: dict[str, Any]) -> None:
        try:
            table = arrow.table(columns)
            if not writers:
                writers.append(parquet.ParquetWriter(file, table.schema))
            table = table.cast(writers[0].schema)
        except arrow.pyarrow().ArrowException as error:
            kinds = "A kept column seems to have values of several kinds, such as numbers and text"
            raise EstibaError(
                f"The answers cannot be written as Parquet: {error}", hint=f"{kinds}: write .csv, .jsonl or .xlsx."
            ) from None
        writers[0].write_table(table)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()


@contextmanager
def _write_xlsx(file: Path) -> Iterator[Write]:
    writer = XlsxWriter("predictions")
    try:
        yield lambda columns: writer.write(list(columns), zip(*map(_cells, columns.values()), strict=True))
        writer.save(file)
    finally:
        writer.close()
