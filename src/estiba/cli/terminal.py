"""Print tables, JSON and warnings; plain in a pipe, with colour on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec

from estiba.core.language import translated

if TYPE_CHECKING:
    from rich.console import Console


UNBROKEN_CHARACTERS = 24
"""Columns of cells up to this width, such as dates and digests, are not wrapped: a part of one cannot be copied."""


def console(stream: IO[str]) -> Console:
    """A rich console on a terminal; it honours NO_COLOR."""
    from rich.console import Console

    return Console(file=stream, highlight=False)


def is_terminal(stream: IO[str]) -> bool:
    """True for a terminal, if rich is installed: an image that only serves does not have it."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and find_spec("rich") is not None


def json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def line(text: str = "", **style: Any) -> None:
    """Print a line in the user's language; click's style options apply on a terminal only."""
    _data(translated(text), **style)


def _data(text: str, **style: Any) -> None:
    """Print a line as it is, such as a name that the user has chosen."""
    click.secho(text, color=False if os.environ.get("NO_COLOR") else None, **style)


def warning(text: str) -> None:
    """Print a warning to standard error, in the user's language."""
    colour = not os.environ.get("NO_COLOR") and sys.stderr.isatty()
    click.secho(translated(text), err=True, fg="yellow", bold=True, color=None if colour else False)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print a table; in a pipe, columns are separated by two spaces and lines are not wrapped.

    Args:
        right: heads of columns that are aligned to the right.
    """
    right = [translated(head) for head in right]
    heads = [translated(head) for head in heads]
    if is_terminal(sys.stdout):
        _rich_table(heads, rows, right)
        return
    every = [heads, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(heads))]
    for row in every:
        cells = zip(heads, row, widths, strict=True)
        shown = (cell.rjust(width) if head in right else cell.ljust(width) for head, cell, width in cells)
        click.echo("  ".join(shown).rstrip())


def _rich_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    screen = console(sys.stdout)
    smallest = [_smallest_width([head, *(row[i] for row in rows)]) for i, head in enumerate(heads)]
    if sum(smallest) + 3 * len(heads) - 1 > screen.width:  # of a space at each side, and three between columns
        _records(heads, rows, screen.width)
        return
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head, width in zip(heads, smallest, strict=True):
        shown.add_column(head, overflow="fold", justify="right" if head in right else "left", min_width=width)
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    screen.print(shown)


def _smallest_width(cells: Sequence[str]) -> int:
    """The width of a column in which no word is broken, and no cell that somebody may want to copy."""
    words = max(len(word) for cell in cells for word in (cell.split() or [""]))
    return max(words, min(max(map(len, cells)), UNBROKEN_CHARACTERS))


def _records(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    """Print each row as a block of lines, for a window that the table does not fit into. No word is broken."""
    import textwrap

    indent = " " * (max(len(head) for head in heads[1:]) + 4)
    for row in rows:
        _data(row[0], bold=True)
        for head, cell in zip(heads[1:], row[1:], strict=True):
            if cell:
                begin = f"  {head}".ljust(len(indent))
                text = textwrap.wrap(
                    cell,
                    max(width, len(indent) + UNBROKEN_CHARACTERS),
                    initial_indent=begin,
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                _data("\n".join(text))
