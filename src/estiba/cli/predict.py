"""estiba predict."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from estiba.cli import completion, terminal
from estiba.cli.common_options import csv_options, json_option, registry_option, sheet_option, trust_option


@click.command(
    epilog="""\b
Examples:
  estiba predict bankchurn customers.csv -o scores.csv
  estiba predict bankchurn@3 customers.parquet -o scores.parquet --keep CustomerId
  estiba predict iris flowers.csv -o answers.jsonl
  estiba predict iris flores.csv -o respuestas.csv --separator ';' --decimal ',' --encoding cp1252
  estiba predict iris flowers.xlsx -o answers.xlsx --sheet October
"""
)
@click.argument("ref", shell_complete=completion.refs)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", metavar="OUT", type=click.Path(path_type=Path), required=True,
              help="File to write: .csv, .parquet, .jsonl or .xlsx.")  # fmt: skip
@click.option("--keep", metavar="COLUMN", multiple=True, help="A column of IN to copy to OUT; may be repeated.")
@click.option("--threads", type=click.IntRange(1), help="Threads of native libraries.")
@csv_options
@sheet_option
@registry_option
@trust_option
@json_option
def predict(  # noqa: PLR0913 - one parameter per option
    ref: str,
    source: Path,
    target: Path,
    keep: tuple[str, ...],
    threads: int | None,
    separator: str,
    decimal: str,
    encoding: str,
    sheet: str,
    registry: str | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Score a file of rows.

    IN is a .csv or .xlsx file (with a header line; an empty cell is a missing value) or a .parquet file. OUT has one
    row for each row of IN, in the same order.
    """
    from estiba.cli import common_options
    from estiba.model.coding.csv_file import CsvOptions
    from estiba.model.inference.load import load
    from estiba.model.inference.score_files import SourceOptions, score

    options = SourceOptions(CsvOptions(separator, decimal, encoding), sheet)
    options.csv.check()
    model = load(ref, registry=common_options.registry_location(registry), trust=trust, threads=threads)
    start = time.perf_counter()
    with _bar(source.name) as on_rows:
        scored = score(model, source, target, keep=keep, options=options, on_rows=on_rows)
    seconds = time.perf_counter() - start
    rate = scored.rows / max(seconds, 1e-9)
    if as_json:
        summary = {
            "model": model.name,
            "version": model.version,
            "rows": scored.rows,
            "seconds": round(seconds, 3),
            "ignored": scored.ignored,
            "not_finite": scored.not_finite,
        }
        terminal.json(summary)
        return
    terminal.line(
        f"{scored.rows:,} rows answered by {model.name}@{model.version} in {seconds:.1f} s ({rate:,.0f}/s): {target}"
    )
    if scored.ignored:
        names = ", ".join(map(_shown, scored.ignored))
        terminal.warning(f"Columns that the model does not know were left out: {names}.")
    if scored.not_finite:
        terminal.warning(
            f"The answers to {scored.not_finite:,} rows are not finite numbers: their cells in {target} are empty."
        )


def _shown(column: str) -> str:
    return column or "one without a name, which is usually pandas' index"


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on a terminal; silent elsewhere."""
    if not terminal.is_terminal(sys.stderr):
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal.console(sys.stderr), transient=True) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
