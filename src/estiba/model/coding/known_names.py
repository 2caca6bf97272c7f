"""Check the names in a caller's records and tables against the signature, and the values that are handed through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from estiba.core.errors import Problem
from estiba.core.suggest import did_you_mean
from estiba.model.schema.json_pointer import pointer
from estiba.model.schema.signature import Scalar, Signature
from estiba.model.schema.values import is_missing, say

MAX_PROBLEMS = 100
"""Problems that one error lists at most."""


class KnownNames:
    """The fields of a signature, the names that it keeps, and the rule for all others."""

    def __init__(self, signature: Signature) -> None:
        self.all = (*signature.names, *signature.keep)
        self.aliases = {field.column: field.name for field in signature.fields if field.column is not None}
        self._known = frozenset((*self.all, *self.aliases))
        self._required = tuple((field.name, field.source) for field in signature.fields if not field.nullable)
        self._ignores = signature.extra == "ignore"
        self._unread = frozenset(signature.unread)

    def refuses(self, name: object) -> bool:
        """Tell if a name is to be refused: neither of a field nor of a value to keep."""
        return not self._ignores and name not in self._known

    def knows(self, name: object) -> bool:
        """Tell if a name is that of a field, also as in training, or of a value to keep."""
        return name in self._known

    def of_record(self, number: int, row: object) -> list[Problem]:
        """The problems with the names in one record, the one at position `number`."""
        if not isinstance(row, Mapping):
            return [Problem(f"#/records/{number}", f"expected an object, got {say(row)}")]
        unknown = [str(name) for name in islice(filter(self.refuses, row), MAX_PROBLEMS)]
        missing = [name for name, column in self._required if name not in row and column not in row]
        twice = [name for column, name in self.aliases.items() if name in row and column in row]
        return [
            *(Problem(pointer(number, name), self._unknown(name)) for name in unknown),
            *(Problem(pointer(number, name), "this field appears twice, under both of its names") for name in twice),
            *(Problem(pointer(number, name), "missing; it is required") for name in missing),
        ]

    def without_unread(self, records: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The records without values that the model did not read in training either."""
        if not self._unread or not any(self._unread & record.keys() for record in records):
            return records
        return [{name: value for name, value in record.items() if name not in self._unread} for record in records]

    def renamed(self, values: Any) -> dict[str, Any]:
        """A record or columns with the names of fields instead of those of the columns of training."""
        return {self.aliases.get(name, name): value for name, value in values.items()}

    def of_table(self, names: Sequence[str]) -> list[Problem]:
        """The problems with the names of a table's columns: unknown to the model, or used twice."""
        unknown = list(islice(filter(self.refuses, names), MAX_PROBLEMS))
        own = [self.aliases.get(name, name) for name in names]
        twice = [name for name, count in Counter(own).items() if count > 1][:MAX_PROBLEMS]
        return [
            *(Problem(pointer(0, name), self._unknown(name)) for name in unknown),
            *(Problem(pointer(0, name), "this column appears twice") for name in twice),
        ]

    def _unknown(self, name: str) -> str:
        if not name:
            return "this column has no name, as pandas' index: write it with index=False, or name the column"
        if name in self._unread:
            return 'the model does not read it, as in training: leave it out, or pack the model with extra = "ignore"'
        return "the model has no such field" + did_you_mean(name, self.all, otherwise="")


def check_kept(name: str, values: Iterable[object]) -> tuple[list[Scalar | None], list[Problem]]:
    """Values to hand through as plain scalars, and the problems with those that are none."""
    kept: list[Scalar | None] = []
    problems: list[Problem] = []
    for number, value in enumerate(values):
        plain = None if is_missing(value) else value.item() if isinstance(value, np.generic) else value
        if plain is None or isinstance(plain, (str, int, float)):
            kept.append(plain)
        else:
            detail = f"expected a string, a number, true, false or null, got {say(plain)}"
            problems.append(Problem(pointer(number, name), detail))
    return kept, problems
