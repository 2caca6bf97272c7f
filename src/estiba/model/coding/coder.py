"""Convert rows of a caller to the coded matrix of the signature, and back.

There are two ways in, which agree (a property test holds them to it):

- `record` and `pack`, the fast one: msgspec decodes JSON straight into a Struct type made from the signature, which
  refuses what does not fit; packing is then a copy of doubles. A category decodes to a float that is its code.
- `check`, the authoritative one: any rows, every problem found and named. The server falls back to it when the fast way
  refuses, for the full list of problems, or for what is odd but lossless (5.0 for an integer).
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import astuple

from estiba.core.errors import BadInput, Problem
from estiba.model.coding.kernel import compiled
from estiba.model.coding.known_names import MAX_PROBLEMS, KnownNames, check_kept
from estiba.model.coding.pandas_series import frame
from estiba.model.coding.record_type import Record, is_odd, record_type
from estiba.model.schema.json_pointer import pointer
from estiba.model.schema.rows import NOT_FINITE
from estiba.model.schema.signature import MAX_INTEGER, UNSEEN, Field, Scalar, Signature
from estiba.model.schema.values import (
    NAN,
    Encoded,
    expected,
    from_text,
    is_finite,
    is_missing,
    level_types,
    lookup,
    plain,
    say,
    seconds,
    to_float,
    to_timestamp,
    unseen_level,
)

if TYPE_CHECKING:
    import pandas as pd

Matrix = npt.NDArray[np.float64]


class Warned(msgspec.Struct, frozen=True):
    """A warning about an accepted value: of `field`, in the row at position `row`; with NOT_FINITE, of an output."""

    code: str
    row: int
    field: str

    @property
    def pointer(self) -> str:
        """JSON pointer of the value, in the request or in the answer."""
        return pointer(self.row, self.field, "predictions" if self.code == NOT_FINITE else "records")


class Coded(msgspec.Struct, frozen=True):
    """Rows in coded form: `matrix` of shape (rows, fields); `texts` by field name, for text fields only.

    `kept` has the values that are handed through to the answer, by name in the signature's `keep`.
    """

    matrix: Matrix
    texts: dict[str, list[str | None]] = {}
    warnings: tuple[Warned, ...] = ()
    kept: dict[str, list[Scalar | None]] = {}

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, rows: npt.NDArray[np.int_]) -> Coded:
        """The rows at these positions, without warnings."""
        texts = {name: [values[i] for i in rows.tolist()] for name, values in self.texts.items()}
        return Coded(self.matrix[rows], texts)


class Coder:
    """Created once per loaded model; safe to share between threads."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.fields = signature.fields
        self.keep = signature.keep
        self.names = KnownNames(signature)
        self.record: type[Record] = record_type(signature, self._code)
        self._index = {f.name: i for i, f in enumerate(self.fields)}
        self._row = struct.Struct(f"={len(self.fields)}d")
        self._codes = {f.name: {level: float(i) for i, level in enumerate(f.levels)} for f in self.fields}
        self._finish = tuple(
            (i, finish) for i, f in enumerate(self.fields) if (finish := self._finisher(f)) is not None
        )
        # Last, where the code UNSEEN points, is the level that stands for unseen ones.
        self._level_words = {f.name: [*f.levels, unseen_level(f)] for f in self.fields if f.kind == "category"}
        self._compiled = compiled()
        self._rules = tuple(self._rule(f) for f in self.fields)
        width = len(self.fields)
        self._values = (lambda record: astuple(record)[:width]) if self.keep else astuple
        self.text_fields = tuple((i, f.name) for i, f in enumerate(self.fields) if f.kind == "text")

    def pack(self, records: Sequence[Record]) -> Coded:
        """The fast way: records of type `record`, which are valid already, to coded rows."""
        warnings: list[Warned] = []
        if self._compiled is None:
            matrix = self._pack(records, warnings)
        else:
            matrix = np.empty((len(records), len(self.fields)))
            for position in self._compiled.pack(map(self._values, records), self._rules, matrix):
                self._warn(warnings, *divmod(position, len(self.fields)))
        texts = {name: [astuple(record)[i] for record in records] for i, name in self.text_fields}
        return Coded(matrix, texts, tuple(warnings))

    def kept(self, records: Sequence[Record]) -> dict[str, list[Scalar | None]]:
        """The values of decoded records that are handed through to the answer."""
        return {name: [getattr(record, f"k{i}") for record in records] for i, name in enumerate(self.keep)}

    def _pack(self, records: Sequence[Record], warnings: list[Warned]) -> Matrix:
        width = self._row.size
        buffer = bytearray(width * len(records))
        pack_into, finish = self._row.pack_into, self._finish
        offset = 0
        for number, record in enumerate(records):
            values: Any = self._values(record)
            if finish:
                values = list(values)
                for i, function in finish:
                    value = values[i]
                    code = values[i] = function(value)
                    if code == UNSEEN or (code != code and value is not None):
                        self._warn(warnings, number, i)
            pack_into(buffer, offset, *values)
            offset += width
        return np.frombuffer(buffer, np.float64).reshape(len(records), len(self.fields))

    def _rule(self, field: Field) -> Any:
        """The same for the kernel: None for a value that is a number already, codes of a category, or a function."""
        finish = self._finisher(field)
        if field.kind == "category" and field.unseen != "error":
            return self._codes[field.name], NAN if field.unseen == "null" else UNSEEN, finish
        return None if finish is _nan_if_none else finish

    def _warn(self, warnings: list[Warned], row: int, column: int) -> None:
        field = self.fields[column]
        if field.kind == "category":
            warnings.append(Warned("unseen-category", row, field.name))

    def _finisher(self, field: Field) -> Callable[[Any], float] | None:
        """The step after decoding (a code for a level that the decoder let through, NaN for None), or None."""
        if field.kind == "text":
            return _text
        if field.kind == "timestamp" and not is_odd(field):
            return _timestamp
        if field.kind == "category" and field.unseen != "error":
            codes = self._codes[field.name]
            unseen = NAN if field.unseen == "null" else UNSEEN
            return lambda value: NAN if value is None else unseen if (c := lookup(codes, value)) is None else c
        return _nan_if_none if field.nullable else None

    def check(self, rows: Sequence[object]) -> Coded:
        """The authoritative way: any rows (mappings of field name to value) to coded rows.

        Raises:
            BadInput: with up to 100 problems, each with its JSON pointer, `#/records/3/age`.
        """
        problems: list[Problem] = []
        for number, row in enumerate(rows):
            if len(problems) >= MAX_PROBLEMS:
                break
            problems += self.names.of_record(number, row)
        if problems:
            self._add_value_problems(rows, problems)
            raise BadInput(problems[:MAX_PROBLEMS])
        if self.names.aliases:
            rows = [self.names.renamed(row) for row in rows]
        names = (*self.signature.names, *self.keep)
        columns = {name: [row.get(name) for row in rows] for name in names}  # type: ignore[attr-defined]
        return self.check_columns(columns, len(rows))

    def _add_value_problems(self, rows: Sequence[object], problems: list[Problem]) -> None:
        """Add wrong values to wrong keys, so that the caller gets both in one answer."""
        for number, row in enumerate(rows):
            for field in self.fields:
                if len(problems) >= MAX_PROBLEMS:
                    return
                if isinstance(row, Mapping) and field.name in row:
                    code = self._code(field, row[field.name])
                    if isinstance(code, str):
                        problems.append(Problem(pointer(number, field.name), code))

    def check_columns(self, columns: Mapping[str, Any], count: int) -> Coded:
        """Columns (sequences or arrays of `count` values; a nullable field may be absent) to coded rows.

        Raises:
            BadInput: as `check`.
        """
        if self.names.aliases:
            columns = self.names.renamed(columns)
        matrix = np.empty((count, len(self.fields)), np.float64)
        problems: list[Problem] = []
        warnings: list[Warned] = []
        texts: dict[str, list[str | None]] = {}
        for i, field in enumerate(self.fields):
            values = columns.get(field.name)
            if values is None:
                if not field.nullable and count:
                    problems.append(Problem(pointer(0, field.name), "missing; it is required"))
                matrix[:, i] = NAN
                texts.update({field.name: [None] * count} if field.kind == "text" else {})
                continue
            if not self._code_array(field, values, matrix[:, i]):
                values = _plain_values(values)
                self._code_values(i, values, matrix[:, i], problems)
            if field.kind == "category" and field.unseen != "error":
                self._warn_unseen(i, values, matrix[:, i], warnings)
            if field.kind == "text":
                texts[field.name] = [None if is_missing(v) else str(v) for v in values]
        kept: dict[str, list[Scalar | None]] = {}
        for name in self.keep:
            kept[name], odd = check_kept(name, _listed(columns.get(name), count))
            problems += odd
        if problems:
            problems.sort(key=lambda p: int(p.pointer.split("/")[2]))
            raise BadInput(problems[:MAX_PROBLEMS])
        return Coded(matrix, texts, tuple(warnings), kept)

    def check_text(self, header: Sequence[str], lines: Sequence[Sequence[str]]) -> Coded:
        """Lines of text cells under a header, as CSV brings them, to coded rows. An empty cell is a missing value.

        Raises:
            BadInput: as `check`; also for a line with more or fewer cells than the header.
        """
        problems = [
            Problem(f"#/records/{n}", f"expected {len(header)} cells as in the header, got {len(line)}")
            for n, line in enumerate(lines)
            if len(line) != len(header)
        ]
        problems += self.names.of_table(header)
        if problems:
            raise BadInput(problems[:MAX_PROBLEMS])
        header = [self.names.aliases.get(name, name) for name in header]
        cells = dict(zip(header, zip(*lines, strict=True), strict=True))
        columns = {n: from_text(self.signature.field(n), c) for n, c in cells.items() if n in self._index}
        columns |= {name: [cell or None for cell in cells[name]] for name in self.keep if name in cells}
        return self.check_columns(columns, len(lines))

    def _code_array(self, field: Field, values: Any, out: Matrix) -> bool:
        """Code a whole column at once; False where each value must be checked to name the wrong one."""
        if isinstance(values, Encoded):
            return self._code_words(field, values, out)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
            return False
        if field.kind not in ("number", "integer", "boolean") or (values.dtype.kind == "b") != (
            field.kind == "boolean"
        ):
            return False
        if values.dtype.kind in "iu" and len(values) and max(abs(int(values.min())), int(values.max())) > MAX_INTEGER:
            return False
        out[:] = values
        low = -math.inf if field.minimum is None else field.minimum
        high = math.inf if field.maximum is None else field.maximum
        with np.errstate(invalid="ignore"):
            missing = np.isnan(out)
            fits = missing if field.nullable else np.zeros(len(out), bool)
            fits = fits | (np.isfinite(out) & (out >= low) & (out <= high))
            if field.kind == "integer":
                exact = (values <= MAX_INTEGER) & (values >= -MAX_INTEGER)  # before float64 rounds them
                fits &= missing | ((out == np.floor(out)) & exact)
        return bool(fits.all())

    def _code_words(self, field: Field, values: Encoded, out: Matrix) -> bool:
        codes = [self._code(field, word) for word in (*values.words, None)]
        used = np.unique(values.positions).tolist()
        if field.kind == "text" or any(isinstance(codes[position], str) for position in used):
            return False
        out[:] = np.array([NAN if isinstance(code, str) else code for code in codes])[values.positions]
        return True

    def _code_values(self, column: int, values: Iterable[object], out: Matrix, problems: list[Problem]) -> None:
        field = self.fields[column]
        count = 0
        for number, value in enumerate(values):
            code = self._code(field, value)
            if isinstance(code, str):
                problems.append(Problem(pointer(number, field.name), code))
                count += 1
                if count >= MAX_PROBLEMS:
                    return
            else:
                out[number] = code

    def _warn_unseen(self, column: int, values: Iterable[object], codes: Matrix, warnings: list[Warned]) -> None:
        suspects = np.flatnonzero((codes == UNSEEN) | np.isnan(codes))
        if not len(suspects):
            return
        values = list(_plain_values(values))
        for number in suspects.tolist():
            if not is_missing(values[number]):
                self._warn(warnings, number, column)

    def _code(self, field: Field, value: object) -> float | str:
        """The code of one value, or a sentence with the reason why it has none."""
        if is_missing(value):
            return NAN if field.nullable else f"may not be missing; expected {expected(field)}"
        if isinstance(value, np.datetime64):
            value = value.astype("datetime64[us]").item()
        elif isinstance(value, np.generic):
            value = value.item()
        code = self._code_present(field, value)
        if code is None and field.kind == "integer" and type(value) is int and abs(value) > MAX_INTEGER:
            return f"expected an integer from -2**53 to 2**53, beyond which digits are lost, got {say(value)}"
        if code is None:
            return f"expected {expected(field)}, got {say(value)}"
        if field.max_length is not None and isinstance(value, str) and len(value) > field.max_length:
            return f"must have at most {field.max_length} characters, got {len(value)}"
        if field.kind in ("number", "integer", "boolean", "timestamp"):
            if not math.isfinite(code):
                return f"expected a finite number, got {say(value)}"
            if field.minimum is not None and code < field.minimum:
                return f"must be at least {plain(field.minimum)}, got {say(value)}"
            if field.maximum is not None and code > field.maximum:
                return f"must be at most {plain(field.maximum)}, got {say(value)}"
        return code

    def _code_present(self, field: Field, value: Any) -> float | None:
        match field.kind:
            case "number":
                return to_float(value)
            case "integer":
                number = to_float(value)
                whole = number is not None and number == math.floor(number) if is_finite(number) else False
                return number if whole and abs(value) <= MAX_INTEGER else None
            case "boolean":
                return float(bool(value)) if type(value) in (bool, int, float) and value in (0, 1) else None
            case "category":
                code = lookup(self._codes[field.name], value)
                if code is None and field.unseen != "error" and type(value) in level_types(field):
                    return NAN if field.unseen == "null" else UNSEEN
                return code
            case "timestamp":
                return to_timestamp(value)
            case _:
                return 0.0 if isinstance(value, str) else None

    def rows(self, coded: Coded) -> list[dict[str, Scalar | None]]:
        """Coded rows back to rows of plain values, as a caller would send them. Unseen levels become a fixed word."""
        names = self.signature.names
        return [dict(zip(names, row, strict=True)) for row in self.values(coded)]

    def values(self, coded: Coded) -> Iterator[tuple[Scalar | None, ...]]:
        """The same rows as tuples, in the order of the fields."""
        return zip(*(self._column(i, coded) for i in range(len(self.fields))), strict=True)

    def _column(self, i: int, coded: Coded) -> list[Any]:
        field = self.fields[i]
        values = coded.matrix[:, i].tolist()
        match field.kind:
            case "text":
                return list(coded.texts[field.name])
            case "category":
                levels = self._level_words[field.name]
                return [None if v != v else levels[int(v)] for v in values]
            case "boolean":
                return [None if v != v else bool(v) for v in values]
            case "integer":
                return [None if v != v else int(v) for v in values]
            case "timestamp":
                return [None if v != v else datetime.fromtimestamp(v, UTC).isoformat() for v in values]
            case _:
                return [None if v != v else v for v in values]

    def frame(self, coded: Coded) -> pd.DataFrame:
        """Coded rows to the DataFrame that the estimator was trained on: same columns, order and dtypes."""
        return frame(self.fields, coded.matrix, lambda i: self._column(i, coded), self._column_names)

    @cached_property
    def _column_names(self) -> pd.Index[Any]:
        import pandas as pd

        return pd.Index([field.source for field in self.fields])


def _listed(values: Any, count: int) -> Iterable[object]:
    """The values of a column that may be absent."""
    return itertools.repeat(None, count) if values is None else _plain_values(values)


def _plain_values(values: Any) -> Iterable[object]:
    if isinstance(values, Encoded):
        words = [*values.words, None]
        return [words[position] for position in values.positions.tolist()]
    plain: Iterable[object] = values
    return plain


def _nan_if_none(value: Any) -> float:
    return NAN if value is None else value


def _text(value: str | None) -> float:
    return NAN if value is None else 0.0


def _timestamp(value: datetime | None) -> float:
    return NAN if value is None else seconds(value)
