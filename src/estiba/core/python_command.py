"""The command line of a Python interpreter. Containers for development, without Estiba, get a copy of this file."""

from __future__ import annotations

import re
from collections.abc import Sequence

_OPTION = re.compile(r"(-[^-cmWX]*)([cmWX])(.*)", re.DOTALL)
"""An option with a value, which may be joined to it and to letters before it, as in `-um` or `-Wignore`."""

_LONG_WITH_VALUE = "--check-hash-based-pycs"


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the arguments of an interpreter into its own options, and the script, `-m` or `-c` that follows them."""
    options: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        option = rest.pop(0)
        matched = _OPTION.fullmatch(option)
        if matched and matched[2] in "cm":
            options += [matched[1]] if matched[1] != "-" else []
            return options, [f"-{matched[2]}", *([matched[3]] if matched[3] else []), *rest]
        options.append(option)
        if rest and (option == _LONG_WITH_VALUE or (matched and not matched[3])):
            options.append(rest.pop(0))
    return options, rest
