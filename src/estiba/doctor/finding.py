"""Define a finding of the doctor: a severity, a location, and one sentence each for the fault and its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

Severity = Literal["error", "warning", "note"]


class Location(NamedTuple):
    """A line of a file; line 0 stands for the file as a whole."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Problem(NamedTuple):
    """A fault that a parser reports before any rule runs: one sentence each for what is wrong and what to do."""

    at: Location
    message: str
    fix: str


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fault at a location.

    Args:
        code: of the rule that found it.
        file: relative to the examined folder; for something that runs, the name of the container.
        line: counted from 1; 0 for the file as a whole.
        message: one sentence on what is wrong.
        fix: one sentence on what to do.
    """

    code: str
    severity: Severity
    file: str
    line: int
    message: str
    fix: str

    @property
    def where(self) -> str:
        return str(Location(self.file, self.line))


def listed(names: Iterable[str], most: int = 4) -> str:
    """Join names for a sentence, such as `a, b and 3 more`."""
    every = list(names)
    if len(every) > most:
        return f"{', '.join(every[: most - 1])} and {len(every) - most + 1} more"
    return " and ".join([*([", ".join(every[:-1])] if every[1:] else []), *every[-1:]])
