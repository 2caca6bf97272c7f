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
    click.secho(translated(text), color=False if os.environ.get("NO_COLOR") else None, **style)


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

    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        shown.add_column(head, overflow="fold", justify="right" if head in right else "left")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    console(sys.stdout).print(shown)
