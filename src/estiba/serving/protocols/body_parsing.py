"""Decompress, parse and code request bodies, and format their problems, for all protocols."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from estiba.core.errors import BadInput, BadRequest, EstibaError, Problem
from estiba.core.suggest import did_you_mean
from estiba.model.coding.coder import Coded, Coder, Warned
from estiba.model.coding.known_names import MAX_PROBLEMS
from estiba.model.coding.record_type import code_hook
from estiba.model.schema.json_pointer import unescape
from estiba.serving.http.request import Request

MAX_ROWS = 100_000
"""Records in one request."""

MAX_LISTED_PROBLEMS = 5
"""Problems listed in an error that is a single string."""

ENCODINGS = {"gzip": 31, "deflate": 15}
"""Supported values of Content-Encoding, with the `wbits` of zlib for each."""

MAX_MEMBERS = 16
"""Compressed members in one body; each costs a copy of the data after it."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Exceptions of decoding: for invalid JSON or another schema, for text that is not UTF-8, for deep nesting."""


_NOT_FINITE = re.compile(rb"[:,\[]\s*-?(?:NaN|Infinity)\b")
"""A number that Python's json.dumps writes and JSON does not have."""


class TooManyRows(EstibaError):
    status = 413


class NotAllowed(EstibaError):
    status = 405


class NotSupported(EstibaError):
    """A media type or an encoding that a path does not accept."""

    status = 415


def check_query(request: Request, usage: str) -> None:
    """Let a QUERY request (RFC 10008) pass, which asks as POST does; refuse any other method.

    Raises:
        NotAllowed: with `usage` as its message. BadRequest: the query does not name the media type of its body.
    """
    if request.method != b"QUERY":
        raise NotAllowed(usage)
    if not request.content_type:
        raise BadRequest(
            "A QUERY request has to name the type of its body.", hint="Add Content-Type: application/json."
        )


_FORM = b"application/x-www-form-urlencoded"
"""The type of a body that `curl -d` sends."""


def unsupported_type(kind: bytes, taken: str) -> NotSupported:
    """The error for a media type that a path does not take; a hint for the one that curl writes unless told otherwise.

    Args:
        taken: the media types that it takes, in words.
    """
    named = f"not {kind.decode('latin-1')!r}" if kind else "and the request has no Content-Type"
    hint = (
        "Add the header -H 'Content-Type: application/json': curl -d sends the type of a form."
        if kind == _FORM
        else None
    )
    return NotSupported(f"This path takes {taken}, {named}.", hint=hint)


class EncodingNotSupported(NotSupported):
    """A Content-Encoding other than ENCODINGS."""


class TooLarge(EstibaError):
    status = 413


def decompressed(body: bytes | bytearray, encoding: bytes, max_bytes: int) -> bytes | bytearray:
    """Decompress a body.

    Args:
        encoding: the value of its Content-Encoding.
        max_bytes: size of the result. No more than that is ever decompressed.

    Raises:
        EncodingNotSupported: it is none of ENCODINGS. TooLarge: it becomes too large. BadRequest: it is damaged.
    """
    name = encoding.strip().lower().removeprefix(b"x-").decode("latin-1")
    if name in ("", "identity"):
        return body
    if name not in ENCODINGS:
        raise EncodingNotSupported(f"This server reads bodies in {' and '.join(ENCODINGS)}, not {name!r}.")
    parts: list[bytes] = []
    rest, left = bytes(body), max_bytes
    try:
        while rest or not parts:  # gzip allows several members, one behind the other
            if len(parts) == MAX_MEMBERS:
                raise BadRequest(f"The body has more than {MAX_MEMBERS} members of {name} data.")
            stream = zlib.decompressobj(ENCODINGS[name])
            parts.append(stream.decompress(rest, left + 1))
            left -= len(parts[-1])
            if left < 0:
                raise TooLarge(f"The body becomes larger than {max_bytes} bytes when it is decompressed.")
            if not stream.eof:
                raise BadRequest(f"The {name} data of the body is incomplete.")
            rest = stream.unused_data
    except zlib.error as error:
        raise BadRequest(f"The body is not valid {name} data: {error}") from None
    return b"".join(parts)


def check_count(count: int) -> None:
    """Raise TooManyRows for more than MAX_ROWS records."""
    if count > MAX_ROWS:
        raise TooManyRows(f"A request may hold {MAX_ROWS:,} records; this one has {count:,}.")


def check_values(body: bytes | bytearray, fields: int) -> None:
    """Raise TooManyRows for a JSON or CSV body of more values than the most rows of that many fields can have.

    Counted before anything is made of them: an empty object takes 3 bytes of a body, and 64 of memory.
    """
    most = (fields + 2) * MAX_ROWS + 10_000
    if has_more(body, b",[{", most):
        raise TooManyRows(f"The body has more than {most:,} values, which is more than {MAX_ROWS:,} records can have.")
    most = 2 * MAX_ROWS
    if has_more(body, b"{", most):
        raise TooManyRows(f"The body has more than {most:,} objects; a request may hold {MAX_ROWS:,} records.")


_QUOTED = rb'"(?:[^"\\]++|\\.)*+"|[%b]'


def has_more(body: bytes | bytearray, signs: bytes, most: int) -> bool:
    """Tell if `signs` stand more than `most` times outside of quoted text; quick where they cannot."""
    if len(body) <= most or sum(body.count(sign) for sign in signs) <= most:
        return False
    found = 0
    for match in re.finditer(_QUOTED % re.escape(signs), body, re.DOTALL):
        found += body[match.start()] != ord('"')
        if found > most:
            return True
    return False


def parse_json(body: bytes | bytearray) -> Any:
    """Decode JSON to plain values, after a byte order mark if there is one; raises BadRequest for an invalid body."""
    try:
        return msgspec.json.decode(body[3:] if body.startswith(codecs.BOM_UTF8) else body)
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except UNREADABLE as error:
        hint = "JSON has no NaN and no Infinity: send null for a missing value." if _NOT_FINITE.search(body) else None
        raise BadRequest(f"The body cannot be read as JSON: {error}", hint=hint) from None


def code_csv(coder: Coder, body: bytes | bytearray, *, header: bool | None = True) -> Coded:
    """Code a CSV body. An empty cell is a missing value.

    Args:
        header: the first line has names. Without it, cells are in the order of the fields. None decides by the line.

    Raises:
        BadRequest: it is not CSV in UTF-8. BadInput: it does not match the signature.
    """
    try:
        check_values(body, len(coder.fields))
        text = io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline="")  # a str of all may be 4 times as large
        filled = (line for line in csv.reader(text, strict=True) if line)
        lines = list(islice(filled, MAX_ROWS + 2))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"The body is not valid CSV in UTF-8: {error}") from None
    if lines:
        _check_separator(lines[0], len(coder.fields))
    if header is None and len(lines) > 1:
        _check_numbered(lines[0], len(coder.fields))
    if lines and not (header if header is not None else _is_header(coder, lines[0])):
        lines.insert(0, list(coder.signature.names))
    if len(lines) < 2:
        raise BadInput([Problem("#/records", "expected a header line and at least one row")])
    if len(lines) > MAX_ROWS + 1:
        raise TooManyRows(f"A request may hold {MAX_ROWS:,} records; this one has more.")
    return coder.check_text(lines[0], lines[1:])


def _check_separator(line: Sequence[str], fields: int) -> None:
    """Raise BadRequest for a first line of one cell that another separator would cut into several."""
    if len(line) != 1 or fields == 1:
        return
    mark = max(_SEPARATORS, key=line[0].count)
    if mark in line[0]:
        raise BadRequest(
            f"The first line of the CSV is a single cell, {line[0][:80]!r}.",
            hint=f"The separator seems to be {_SEPARATORS[mark]}: send cells separated by ',' and numbers with a "
            "decimal point, or send JSON.",
        )


def _check_numbered(line: Sequence[str], fields: int) -> None:
    """Raise BadRequest for the first of several lines that counts the fields: pandas' header of nameless columns."""
    if fields >= MIN_COUNTED_FIELDS and list(line) == [str(number) for number in range(fields)]:
        raise BadRequest(
            f"The first line of the CSV, the numbers 0 to {fields - 1}, may be a row or pandas' header of columns "
            "without names.",
            hint="Leave a header out (header=False in pandas) and send Content-Type: text/csv; header=absent.",
        )


MIN_COUNTED_FIELDS = 3
"""From this many fields on, a line 0,1,2 is more likely pandas' header than a row."""

_SEPARATORS = {";": "';'", "\t": "a tab", "|": "'|'"}


def _is_header(coder: Coder, line: Sequence[str]) -> bool:
    """Tell if a line has names: all lines do but those with one cell per field, a number wherever a field is one."""
    names = {name.strip().lower() for name in coder.names.all}
    if len(line) != len(coder.fields) or any(cell.strip().lower() in names for cell in line):
        return True
    cells = [cell for field, cell in zip(coder.fields, line, strict=True) if field.kind in ("number", "integer")]
    return not any(cells) or not all(map(_is_number, filter(None, cells)))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def code_instances(coder: Coder, rows: object, name: str) -> Coded:
    """Code an array of records, of rows with one value per field in order, or of values of the only field.

    Args:
        name: of the array, for error messages.

    Raises:
        BadRequest: it is no such array. BadInput: it does not match the signature.
    """
    if not isinstance(rows, list) or not rows:
        raise BadRequest(f"{name!r} must be an array of one row or more.")
    check_count(len(rows))
    if isinstance(rows[0], dict):
        return code_records(coder, rows)
    names = coder.signature.names
    if not isinstance(rows[0], list) and len(names) == 1:
        return coder.check_columns({names[0]: rows}, len(rows))
    return code_table(coder, names, rows)


def code_records(coder: Coder, rows: Sequence[object]) -> Coded:
    """Code records of plain values with the fast decoder, or with the careful one where that fails.

    Raises:
        BadInput: they do not match the signature.
    """
    try:
        record: Any = coder.record
        records = msgspec.convert(rows, list[record], dec_hook=code_hook)
        coded = coder.pack(records)
    except (msgspec.ValidationError, OverflowError):
        return coder.check(rows)
    # Plain values, unlike JSON, may hold infinity, and NaN where nothing may be missing.
    odd = ~np.isfinite(coded.matrix)
    if odd.any():
        nullable = [field.nullable for field in coder.fields]
        odd[:, nullable] &= ~np.isnan(coded.matrix[:, nullable])
    if odd.any():
        return coder.check(rows)
    return msgspec.structs.replace(coded, kept=coder.kept(records)) if coder.keep else coded


def code_table(coder: Coder, names: Sequence[str], rows: Sequence[object]) -> Coded:
    """Code rows of values for these field names; raises like `code_instances`."""
    check_names(coder, names)
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            raise BadRequest(f"Row {number} must be an array of {len(names)} values, one for each field.")
    return code_records(coder, [dict(zip(names, row, strict=True)) for row in rows])  # type: ignore[call-overload]


def check_names(coder: Coder, names: Iterable[str]) -> None:
    """Raise BadRequest for names that appear twice or that the model does not have."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadRequest(f"{name!r} appears twice.")
        if coder.names.refuses(name):
            raise BadRequest(f"The model has no {name!r}{did_you_mean(name, coder.names.all)}")
        seen.add(name)


def shown_warnings(warnings: Sequence[Warned]) -> list[dict[str, str]]:
    """Warnings as the members of an answer in JSON."""
    return [{"code": warning.code, "pointer": warning.pointer} for warning in warnings[:MAX_PROBLEMS]]


def encoded(predictions: Sequence[Any], warnings: Sequence[Warned]) -> bytes:
    """An answer of predictions alone, with a member `warnings` only where there are some."""
    content: dict[str, Any] = {"predictions": predictions}
    return msgspec.json.encode({**content, "warnings": shown_warnings(warnings)} if warnings else content)


def sentence(problems: Sequence[Problem]) -> str:
    """Format problems as one line, such as `age in row 3: expected an integer, got "x"`."""
    listed = "; ".join(f"{_position(problem.pointer)}{problem.detail}" for problem in problems[:MAX_LISTED_PROBLEMS])
    more = len(problems) - MAX_LISTED_PROBLEMS
    return f"{listed}; and {more} more" if more > 0 else listed


def position(row: int, name: str) -> str:
    """The position of a value, for error messages. Rows are counted from 0."""
    return f"{name} in row {row}"


def _position(pointer: str) -> str:
    parts = [unescape(part) for part in pointer.split("/")[1:]]
    if len(parts) >= 2 and parts[0] == "records":
        return f"{position(int(parts[1]), parts[2]) if len(parts) > 2 else f'row {parts[1]}'}: "
    return f"{'/'.join(parts)}: " if parts else ""
