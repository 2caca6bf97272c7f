"""Read CSV files as people have them: other separators, decimal commas and encodings by option, with checks of each."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from estiba.core.errors import BadRequest, EstibaError
from estiba.core.stores.disk import explained

_SEPARATORS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
"""Separators that are recognized in a header, as one writes them on a command line."""

_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_CHECKED_BYTES = 1024 * 1024
"""Bytes of a file that are examined for another encoding than the one that was given."""

_COMMA_NUMBER = re.compile(r'[^"]*"-?\d+,\d+"')


class CsvOptions(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Format of a CSV file.

    Args:
        separator: the character between two cells; `tab` is one too.
        decimal: `.` or `,`.
        encoding: any name that Python knows, such as `latin-1`, `cp1252` or `utf-16`.
    """

    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"

    @property
    def delimiter(self) -> str:
        """The separator as one character."""
        return {"tab": "\t", "\\t": "\t"}.get(self.separator, self.separator)

    def check(self) -> None:
        """Raise BadRequest for options that no file can be read with."""
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise BadRequest(f"The separator cannot be {self.separator!r}.", hint="Use one character, or the word tab.")
        if self.decimal not in (".", ","):
            raise BadRequest(f"The decimal separator cannot be {self.decimal!r}.", hint="Use '.' or ','.")
        if self.delimiter == self.decimal:
            raise BadRequest(
                f"The separator of cells and the decimal separator are both {self.decimal!r}.",
                hint="With a decimal comma the cells are usually separated by ';': --separator ';'",
            )
        try:
            "".encode(self.encoding)
        except LookupError:
            raise BadRequest(
                f"There is no encoding {self.encoding!r}.", hint="Known are utf-8, latin-1, cp1252, utf-16 and others."
            ) from None

    @property
    def codec(self) -> str:
        """The encoding for open(); a byte order mark in front of UTF-8 is skipped."""
        return "utf-8-sig" if self.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else self.encoding


PLAIN_CSV = CsvOptions()
"""A CSV file as most programs write it."""


class CsvFile:
    """A CSV file with a header line: `columns` are its names.

    Raises:
        EstibaError: the file is empty, or the options do not fit it; the hint names the option that seems to.
    """

    def __init__(self, path: Path, options: CsvOptions = PLAIN_CSV) -> None:
        options.check()
        self.path, self.options = path, options
        self._check_encoding()
        with self.open() as lines:
            self.columns = tuple(next(lines, ()))
        self._check_header()

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The lines of the file as lists of cells, the header first."""
        try:
            with self.path.open(newline="", encoding=self.options.codec) as file:
                yield csv.reader(file, strict=True, delimiter=self.options.delimiter)
        except (UnicodeError, csv.Error) as error:
            name = self.options.encoding.upper()
            hint = None
            if isinstance(error, UnicodeError):
                hint = "The encoding seems to be another one. Files of Excel are often: --encoding cp1252"
            raise EstibaError(f"{self.path} is not valid CSV in {name}: {error}", hint=hint) from None

    def number(self, cell: str) -> str:
        """A cell of a number with a decimal point; one whose point could be meant for thousands stays no number."""
        if self.options.decimal == ".":
            return cell
        return f"{cell} (with a point)" if "." in cell else cell.replace(",", ".")

    def _check_encoding(self) -> None:
        with explained("read", self.path), self.path.open("rb") as file:
            start = file.read(_CHECKED_BYTES)
        if not start.strip():
            raise EstibaError(f"{self.path} is empty.", hint="A CSV file has a header line and at least one row.")
        given = self.options.codec.lower()
        if start[:2] in _MARKS and "16" not in given:
            raise EstibaError(f"{self.path} is not {self.options.encoding.upper()}.", hint=_seems("utf-16", "encoding"))
        if not given.startswith("utf") and not start.isascii() and _is_utf8(start):
            raise EstibaError(f"{self.path} is not {self.options.encoding}.", hint=_seems("utf-8", "encoding"))

    def _check_header(self) -> None:
        if len(self.columns) == 1:
            others = [mark for mark in _SEPARATORS if mark in self.columns[0] and mark != self.options.delimiter]
            if others:
                mark = max(others, key=self.columns[0].count)
                shown = _SEPARATORS[mark]
                comma = " --decimal ',' if its numbers have decimal commas" if mark != "," else ""
                raise EstibaError(
                    f"{self.path} has a single column {self.columns[0]!r}.",
                    hint=f"The separator seems to be {shown}: --separator {shown}{comma and f' (and{comma})'}",
                )
        if twice := [name for name, count in Counter(self.columns).items() if count > 1]:
            raise EstibaError(f"{self.path} has the column {twice[0]!r} twice.")

    def unlike(self, name: str) -> str | None:
        """The column that is `name` but for blanks around it, as in a header with a space after each comma."""
        return next((column for column in self.columns if column != name and column.strip() == name), None)


def decimal_hint(detail: str) -> str:
    """A hint for a value that is refused because it has a decimal comma or a point too many; else empty."""
    if _COMMA_NUMBER.search(detail):
        return "The decimal separator seems to be ',': --decimal ','"
    if "(with a point)" in detail:
        return "With --decimal ',' a number has no points, not even between thousands."
    return ""


def _seems(name: str, option: str) -> str:
    return f"The {option} seems to be {name}: --{option} {name}"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(content) - 3 and error.start > 0  # a character that the end cuts in two
    return True
