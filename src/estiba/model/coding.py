"""Coder: rows of a caller to the coded matrix of the signature, and back.

There are two ways in, which agree (a property test holds them to it):

- `record` and `pack`, the fast one: msgspec decodes JSON straight into a Struct type made from the signature, which
  refuses what does not fit; packing is then a copy of doubles. A category decodes to a float that is its code.
- `check`, the authoritative one: any rows, every problem found and named. The server falls back to it when the fast way
  refuses, for the full list of problems, or for what is odd but lossless (5.0 for an integer).
"""

from __future__ import annotations

import difflib
import enum
import functools
import math
import operator
import struct
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadInput, Problem
from estiba.model.signature import MAX_INTEGER, UNSEEN, Field, Scalar, Signature

if TYPE_CHECKING:
    import pandas as pd

Matrix = npt.NDArray[np.float64]
Record = msgspec.Struct

MAX_PROBLEMS = 100
"""A caller who sends a wrong file learns enough from this many problems."""

UNSEEN_TEXT = "(a level never seen in training)"
"""Stands for an unseen level where a model or a golden row needs a word for it."""

_NAN = math.nan

_FRAGMENT = "!$&'()*+,;=:@/?-._~"


class Warned(msgspec.Struct, frozen=True):
    """Something odd about an accepted value: of `field`, in the row at position `row`."""

    code: str
    row: int
    field: str


class Encoded(NamedTuple):
    """A column with few distinct words: `positions` into `words` by row, -1 for a missing value."""

    positions: npt.NDArray[np.int64]
    words: Sequence[object]


class Coded(msgspec.Struct, frozen=True):
    """Rows in coded form: `matrix` of shape (rows, fields); `texts` by field name, for text fields only."""

    matrix: Matrix
    texts: dict[str, list[str | None]] = {}
    warnings: tuple[Warned, ...] = ()

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, rows: npt.NDArray[np.int_]) -> Coded:
        """The rows at these positions, without warnings."""
        texts = {name: [values[i] for i in rows.tolist()] for name, values in self.texts.items()}
        return Coded(self.matrix[rows], texts)


class Coder:
    """Made once per loaded model; safe to share between threads."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.fields = signature.fields
        self.record: type[Record] = _record_type(signature, self._code)
        self._index = {f.name: i for i, f in enumerate(self.fields)}
        self._row = struct.Struct(f"={len(self.fields)}d")
        self._codes = {f.name: {level: float(i) for i, level in enumerate(f.levels)} for f in self.fields}
        self._finish = tuple(
            (i, finish) for i, f in enumerate(self.fields) if (finish := self._finisher(f)) is not None
        )
        self.text_fields = tuple((i, f.name) for i, f in enumerate(self.fields) if f.kind == "text")

    def pack(self, records: Sequence[Record]) -> Coded:
        """The fast way: records of type `record`, already known to be valid, to coded rows."""
        width = self._row.size
        buffer = bytearray(width * len(records))
        pack_into, finish = self._row.pack_into, self._finish
        offset = 0
        warnings: list[Warned] = []
        for number, record in enumerate(records):
            values: Any = msgspec.structs.astuple(record)
            if finish:
                values = list(values)
                for i, function in finish:
                    value = values[i]
                    code = values[i] = function(value)
                    if code == UNSEEN or (code != code and value is not None):
                        self._warn(warnings, number, i)
            pack_into(buffer, offset, *values)
            offset += width
        matrix = np.frombuffer(buffer, np.float64).reshape(len(records), len(self.fields))
        texts = {name: [msgspec.structs.astuple(record)[i] for record in records] for i, name in self.text_fields}
        return Coded(matrix, texts, tuple(warnings))

    def _warn(self, warnings: list[Warned], row: int, column: int) -> None:
        field = self.fields[column]
        if field.kind == "category":
            warnings.append(Warned("unseen-category", row, field.name))

    def _finisher(self, field: Field) -> Callable[[Any], float] | None:
        """What is left to do after decoding: a code for a level that the decoder let through, NaN for None."""
        if field.kind == "text":
            return _text
        if field.kind == "timestamp" and not _is_odd(field):
            return _timestamp
        if field.kind == "category" and field.unseen != "error":
            codes = self._codes[field.name]
            unseen = _NAN if field.unseen == "null" else UNSEEN
            return lambda value: _NAN if value is None else unseen if (c := _lookup(codes, value)) is None else c
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
            self._check_keys(number, row, problems)
        if problems:
            self._add_value_problems(rows, problems)
            raise BadInput(problems[:MAX_PROBLEMS])
        columns = {f.name: [row.get(f.name) for row in rows] for f in self.fields}  # type: ignore[attr-defined]
        return self.check_columns(columns, len(rows))

    def _check_keys(self, number: int, row: object, problems: list[Problem]) -> None:
        if not isinstance(row, Mapping):
            problems.append(Problem(f"#/records/{number}", f"expected an object, got {_say(row)}"))
            return
        for name in row:
            if name not in self._index:
                detail = "the model has no such field" + self._nearest(str(name))
                problems.append(Problem(pointer(number, str(name)), detail))
        for field in self.fields:
            if not field.nullable and field.name not in row:
                problems.append(Problem(pointer(number, field.name), "missing; it is required"))

    def _add_value_problems(self, rows: Sequence[object], problems: list[Problem]) -> None:
        """A caller with wrong keys wants to hear of wrong values in the same answer."""
        for number, row in enumerate(rows):
            for field in self.fields:
                if len(problems) >= MAX_PROBLEMS:
                    return
                if isinstance(row, Mapping) and field.name in row:
                    code = self._code(field, row[field.name])
                    if isinstance(code, str):
                        problems.append(Problem(pointer(number, field.name), code))

    def _nearest(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._index, n=1)
        return f"; did you mean {near[0]!r}?" if near else ""

    def check_columns(self, columns: Mapping[str, Any], count: int) -> Coded:
        """Columns (sequences or arrays of `count` values; a nullable field may be absent) to coded rows.

        Raises:
            BadInput: as `check`.
        """
        matrix = np.empty((count, len(self.fields)), np.float64)
        problems: list[Problem] = []
        warnings: list[Warned] = []
        texts: dict[str, list[str | None]] = {}
        for i, field in enumerate(self.fields):
            values = columns.get(field.name)
            if values is None:
                if not field.nullable and count:
                    problems.append(Problem(pointer(0, field.name), "missing; it is required"))
                matrix[:, i] = _NAN
                texts.update({field.name: [None] * count} if field.kind == "text" else {})
                continue
            if not self._code_array(field, values, matrix[:, i]):
                values = _plain_values(values)
                self._code_values(i, values, matrix[:, i], problems)
            if field.kind == "category" and field.unseen != "error":
                self._warn_unseen(i, values, matrix[:, i], warnings)
            if field.kind == "text":
                texts[field.name] = [None if _missing(v) else str(v) for v in values]
        if problems:
            problems.sort(key=lambda p: int(p.pointer.split("/")[2]))
            raise BadInput(problems[:MAX_PROBLEMS])
        return Coded(matrix, texts, tuple(warnings))

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
        known = set(self.signature.names)
        problems += [
            Problem(pointer(0, name), "the model has no such field" + self._nearest(name))
            for name in header
            if name not in known
        ]
        if problems or len(set(header)) < len(header):
            twice = [
                Problem(pointer(0, name), "this column appears twice") for name in header if header.count(name) > 1
            ]
            raise BadInput([*problems, *twice][:MAX_PROBLEMS])
        cells = dict(zip(header, zip(*lines, strict=True), strict=True))
        return self.check_columns({n: _from_text(self.signature.field(n), c) for n, c in cells.items()}, len(lines))

    def _code_array(self, field: Field, values: Any, out: Matrix) -> bool:
        """Codes a whole column at once; False where only a look at each value can say what is wrong."""
        if isinstance(values, Encoded):
            return self._code_words(field, values, out)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
            return False
        if field.kind not in ("number", "integer", "boolean") or (values.dtype.kind == "b") != (
            field.kind == "boolean"
        ):
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
        out[:] = np.array([_NAN if isinstance(code, str) else code for code in codes])[values.positions]
        return True

    def _code_values(self, column: int, values: Iterable[object], out: Matrix, problems: list[Problem]) -> None:
        field = self.fields[column]
        found = 0
        for number, value in enumerate(values):
            code = self._code(field, value)
            if isinstance(code, str):
                problems.append(Problem(pointer(number, field.name), code))
                found += 1
                if found >= MAX_PROBLEMS:
                    return
            else:
                out[number] = code

    def _warn_unseen(self, column: int, values: Iterable[object], codes: Matrix, warnings: list[Warned]) -> None:
        suspects = np.flatnonzero((codes == UNSEEN) | np.isnan(codes))
        if not len(suspects):
            return
        values = list(_plain_values(values))
        for number in suspects.tolist():
            if not _missing(values[number]):
                self._warn(warnings, number, column)

    def _code(self, field: Field, value: object) -> float | str:
        """The code of one value, or a sentence saying what is wrong with it."""
        if _missing(value):
            return _NAN if field.nullable else f"may not be missing; expected {expected(field)}"
        if isinstance(value, np.datetime64):
            value = value.astype("datetime64[us]").item()
        elif isinstance(value, np.generic):
            value = value.item()
        code = self._code_present(field, value)
        if code is None:
            return f"expected {expected(field)}, got {_say(value)}"
        if field.kind in ("number", "integer", "boolean", "timestamp"):
            if not math.isfinite(code):
                return f"expected a finite number, got {_say(value)}"
            if field.minimum is not None and code < field.minimum:
                return f"must be at least {_plain(field.minimum)}, got {_say(value)}"
            if field.maximum is not None and code > field.maximum:
                return f"must be at most {_plain(field.maximum)}, got {_say(value)}"
        return code

    def _code_present(self, field: Field, value: Any) -> float | None:
        match field.kind:
            case "number":
                return _to_float(value)
            case "integer":
                number = _to_float(value)
                whole = number is not None and number == math.floor(number) if _finite(number) else False
                return number if whole and abs(value) <= MAX_INTEGER else None
            case "boolean":
                return (
                    float(value)
                    if value is True or value is False or (type(value) is int and value in (0, 1))
                    else None
                )
            case "category":
                code = _lookup(self._codes[field.name], value)
                if code is None and field.unseen != "error" and type(value) in _level_types(field):
                    return _NAN if field.unseen == "null" else UNSEEN
                return code
            case "timestamp":
                return _to_timestamp(value)
            case "text":
                return 0.0 if isinstance(value, str) else None

    def rows(self, coded: Coded) -> list[dict[str, Scalar | None]]:
        """Coded rows back to rows of plain values, as a caller would send them. Unseen levels become a fixed word."""
        columns = [self._column(i, coded) for i in range(len(self.fields))]
        names = self.signature.names
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _column(self, i: int, coded: Coded) -> list[Any]:
        field = self.fields[i]
        values = coded.matrix[:, i].tolist()
        match field.kind:
            case "text":
                return list(coded.texts[field.name])
            case "category":
                levels = {float(n): level for n, level in enumerate(field.levels)}
                levels[UNSEEN] = unseen_level(field)
                return [levels.get(v) for v in values]
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
        import pandas as pd

        return pd.DataFrame(
            {f.name: _series(f, self._column(i, coded), coded.matrix[:, i]) for i, f in enumerate(self.fields)}
        )


def pointer(row: int, name: str) -> str:
    """JSON pointer of one field of one record, as a URI fragment (RFC 6901, sections 3 and 6)."""
    return f"#/records/{row}/{escape(name)}"


def escape(name: str) -> str:
    """One step of a JSON pointer in a URI fragment: `~` and `/` as RFC 6901 says, the rest as RFC 3986 does."""
    return name if name.isalnum() and name.isascii() else quote(name.replace("~", "~0").replace("/", "~1"), _FRAGMENT)


def expected(field: Field) -> str:
    """What a field accepts, in words."""
    if field.kind == "category":
        if len(field.levels) <= 12:
            return "one of: " + ", ".join(map(str, field.levels))
        return f"one of {len(field.levels)} levels ({', '.join(map(str, field.levels[:5]))}, ...)"
    article = {"integer": "an integer", "boolean": "true or false", "text": "a string"}
    return article.get(field.kind, "a number" if field.kind == "number" else "a timestamp such as 2026-01-31T12:00:00Z")


def unseen_level(field: Field) -> Scalar:
    """A level that the field does not have, of the type that its levels have."""
    if all(isinstance(level, str) for level in field.levels):
        return UNSEEN_TEXT
    return max(int(level) for level in field.levels if not isinstance(level, str)) + 1


def _from_text(field: Field, cells: Sequence[str]) -> Any:
    """Text cells as values of the field's kind; a cell that is none stays text, for the check to name."""
    if field.kind in ("number", "integer"):
        try:
            numbers = np.array([float(cell) if cell else _NAN for cell in cells])
        except ValueError:
            numbers = np.array([math.inf])
        # float() rounds large integers and takes "1_000" for a number: where that may be, each cell is looked at.
        plain = bool(np.all(~(np.abs(numbers) >= MAX_INTEGER))) and not any("_" in cell for cell in cells)
        return numbers if plain else [_number_of(cell) if cell else None for cell in cells]
    if field.kind == "boolean":
        words = {"true": True, "false": False, "1": True, "0": False, "": None}
        return [words.get(cell.lower(), cell) for cell in cells]
    if field.kind != "category":
        return [cell or None for cell in cells]
    levels: dict[str, object] = {str(level): level for level in field.levels}
    if bool in _level_types(field):
        levels |= {"true": True, "false": False}
    table: dict[str, int] = {}
    positions = np.array([table.setdefault(cell, len(table)) for cell in cells], np.int64)
    numeric = not any(isinstance(level, (str, bool)) for level in field.levels)
    other: Callable[[str], object] = _number_of if numeric else str
    return Encoded(positions, [levels.get(cell, other(cell)) if cell else None for cell in table])


def _plain_values(values: Any) -> Iterable[object]:
    if isinstance(values, Encoded):
        words = [*values.words, None]
        return [words[position] for position in values.positions.tolist()]
    plain: Iterable[object] = values
    return plain


def _number_of(cell: str) -> float | str:
    """A cell as a number, an integer where it is one; anything else as it is."""
    for kind in (int, float):
        try:
            return cell if "_" in cell else kind(cell)
        except ValueError:
            continue
    return cell


def _series(field: Field, values: list[Any], codes: Matrix) -> pd.Series[Any]:
    import pandas as pd

    match field.kind:
        case "category" if field.dtype == "category":
            return pd.Series(pd.Categorical.from_codes(np.nan_to_num(codes, nan=-1).astype(int), list(field.levels)))
        case "category" | "text" if field.dtype in ("str", "string", "object"):
            return pd.Series(values, dtype=field.dtype)
        case "timestamp":
            return pd.Series(pd.to_datetime(codes, unit="s", utc="UTC" in field.dtype)).astype(field.dtype)
        case "category":
            column = pd.Series(values, dtype=object)
            return column if column.isna().any() else column.astype(field.dtype)
        case "integer" | "boolean" if np.isnan(codes).any() and field.dtype[0].islower():
            # NumPy's own integers and booleans cannot be missing; what a library makes of one that is, is float.
            return pd.Series(codes)
        case "integer" | "boolean":
            return pd.Series(values, dtype=field.dtype)
        case _:
            return pd.Series(codes).astype(field.dtype)


class _Level(float, enum.Enum):
    """A category level that *is* its code: it decodes from the level and packs as the code."""

    def __new__(cls, code: float, level: Scalar) -> _Level:
        member = float.__new__(cls, code)
        member._value_ = level
        return member


def _is_enum(field: Field) -> bool:
    """msgspec decodes enumerations of strings alone or of integers alone."""
    if field.unseen != "error" or {type(level) for level in field.levels} not in ({str}, {int}):
        return False
    return all(isinstance(level, str) or abs(level) < 2**63 for level in field.levels)


def _is_odd(field: Field) -> bool:
    """Whether msgspec has no type that accepts just what the field does."""
    if field.kind == "timestamp":
        return field.minimum is not None or field.maximum is not None
    return field.kind == "category" and field.unseen == "error" and not _is_enum(field)


class _Odd(float):
    """The code of a value that `code_hook` judges. Subclasses, one per field, know how."""

    @staticmethod
    def judge(value: object) -> float | str:
        raise NotImplementedError


def code_hook(kind: type, value: object) -> float:
    """For `dec_hook` of the decoder of a coder's records: judges what msgspec itself cannot.

    Raises:
        ValueError: with a sentence that says what is wrong; msgspec makes a ValidationError of it.
    """
    if not issubclass(kind, _Odd):
        raise NotImplementedError(f"{kind} is no type of a coder.")
    code = kind.judge(value)
    if isinstance(code, str):
        raise ValueError(code)
    return kind(code)


def _record_type(signature: Signature, code: Callable[[Field, object], float | str]) -> type[Record]:
    definitions: list[Any] = []
    rename = {}
    for i, field in enumerate(signature.fields):
        rename[f"f{i}"] = field.name
        kind = _odd_type(field, code) if _is_odd(field) else _python_type(field)
        definitions.append((f"f{i}", kind | None, None) if field.nullable else (f"f{i}", kind))
    return msgspec.defstruct(
        "Record", definitions, rename=rename, kw_only=True, forbid_unknown_fields=True, gc=False, frozen=True
    )


def _odd_type(field: Field, code: Callable[[Field, object], float | str]) -> Any:
    judge = staticmethod(functools.partial(code, field))
    return types.new_class(f"Odd{field.kind}", (_Odd,), exec_body=lambda names: names.update(judge=judge))


def _python_type(field: Field) -> Any:
    match field.kind:
        case "number":
            return _ranged(float, field.minimum, field.maximum)
        case "integer":
            low = max(-MAX_INTEGER, -math.inf if field.minimum is None else field.minimum)
            high = min(MAX_INTEGER, math.inf if field.maximum is None else field.maximum)
            return _ranged(int, math.ceil(low), math.floor(high))
        case "boolean":
            return bool
        case "category" if _is_enum(field):
            members = [(f"L{i}", (float(i), level)) for i, level in enumerate(field.levels)]
            return _Level(field.name, members)  # type: ignore[arg-type] # an enumeration made by a call
        case "category":
            return functools.reduce(operator.or_, _level_types(field))
        case "timestamp":
            return datetime
        case _:
            return str


def _ranged(kind: type, low: float | None, high: float | None) -> Any:
    limits: dict[str, Any] = {k: v for k, v in (("ge", low), ("le", high)) if v is not None}
    return Annotated[kind, msgspec.Meta(**limits)] if limits else kind


def _nan_if_none(value: Any) -> float:
    return _NAN if value is None else value


def _text(value: str | None) -> float:
    return _NAN if value is None else 0.0


def _timestamp(value: datetime | None) -> float:
    return _NAN if value is None else _seconds(value)


def _seconds(value: datetime) -> float:
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def _to_timestamp(value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = msgspec.convert(value, datetime)
        except msgspec.ValidationError:
            return None
    if isinstance(value, datetime):
        return _seconds(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    return None


def _to_float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _lookup(codes: Mapping[Any, float], value: object) -> float | None:
    """Position of a level; True is not the level 1, and 1.0 is."""
    try:
        code = codes.get(value)
    except TypeError:  # unhashable: a list or an object
        return None
    if code is None:
        return None
    level = next(level for level, c in codes.items() if c == code) if isinstance(value, (bool, float)) else value
    return code if isinstance(level, bool) == isinstance(value, bool) else None


def _level_types(field: Field) -> tuple[type, ...]:
    """Types of a value that may stand for a level, seen or not."""
    found = {type(level) for level in field.levels}
    return tuple(found | {int} if float in found else found)


def _missing(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, (float, np.floating, np.datetime64)):
        return bool(value != value)
    # pandas' NA and NaT are not equal to themselves or refuse to be asked; neither imports pandas here.
    return type(value).__name__ in ("NAType", "NaTType")


def _say(value: object) -> str:
    """A caller's value for an error message, never longer than a line."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, float):
        return f"{value:.17g}"
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(number: float) -> str:
    return f"{number:.15g}"
