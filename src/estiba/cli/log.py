"""estiba log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from estiba.cli import terminal
from estiba.cli.common_options import json_option, state_option
from estiba.cli.keys import Duration

if TYPE_CHECKING:
    from estiba.gateway.log_query import Follower, Logged
    from estiba.state.database import Database

FOLLOW_SECONDS = 0.5


@click.command(
    epilog="""\b
Examples:
  estiba log bankchurn                            the newest 20 predictions of the last hour
  estiba log bankchurn --since 1d --where 'Age>=60' --where Geography=Spain
  estiba log --follow                             new ones as they come
  estiba log bankchurn --since 7d --parquet week.parquet
"""
)
@click.argument("model", default="")
@click.option("--since", type=Duration(), default="1h", help="How far back, such as 15m, 1h or 7d.", show_default=True)
@click.option("--until", type=Duration(), default=None, help="Leave out what is newer than this, such as 10m.")
@click.option("--where", "conditions", multiple=True, metavar="CONDITION", help="NAME OPERATOR VALUE; all must hold.")
@click.option("--limit", type=click.IntRange(0), default=None, help="The newest rows; 0 for all, else 20.")
@click.option("--follow", is_flag=True, help="Print further predictions as they come. Ctrl-C ends it.")
@click.option("--parquet", type=click.Path(path_type=Path), metavar="FILE", help="Write all of them to a file.")
@state_option
@json_option
def log(model: str, conditions: Sequence[str], follow: bool, parquet: Path | None, **given: Any) -> None:
    """Show what models were asked, and what they answered.

    The log is kept where `[gateway.log] enabled = true`, or with `estiba serve --log`. With --json each prediction is a
    line of its own.
    """
    from estiba.gateway import log_query

    since, until, limit, as_json = (given[name] for name in ("since", "until", "limit", "as_json"))
    now = time.time()
    shown = limit if limit is not None else (0 if parquet or follow else 20)
    query = log_query.Query(
        model, now - since, now if until is None else now - until, [log_query.condition(c) for c in conditions], shown
    )
    database = _opened(given["state"])
    if follow:
        _follow(log_query.Follower(database, query, now), as_json)
        return
    predictions = log_query.find(database, query)
    if parquet is not None:
        _write(predictions, parquet)
        terminal.line(f"{len(predictions)} predictions are in {parquet}.")
    elif as_json:
        _print_lines(predictions)
    elif predictions:
        heads = ("time (UTC)", "model", "input", "answer", "key")
        terminal.table(heads, [_row(each) for each in predictions])
    else:
        terminal.line("There is no prediction in the log for this. It is kept with [gateway.log] enabled = true.")


def _opened(state: str | None) -> Database:
    from estiba.cli.common_options import state_location
    from estiba.state.store import open_log

    return open_log(state_location(state))


def _follow(follower: Follower, as_json: bool) -> None:
    while True:
        if as_json:
            _print_lines(follower.newer())
        else:
            for each in follower.newer():
                terminal.line("  ".join(part for part in _row(each) if part))
        time.sleep(FOLLOW_SECONDS)


def _print_lines(predictions: Sequence[Logged]) -> None:
    import msgspec

    for each in predictions:
        click.echo(msgspec.json.encode(each).decode())


def _write(predictions: Sequence[Logged], file: Path) -> None:
    """Write predictions as Parquet: a column for each value, `input.NAME` and `output.NAME`."""
    import msgspec

    from estiba.core.errors import MissingExtra
    from estiba.core.stores.disk import explained

    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise MissingExtra("pyarrow, which writes Parquet,", "parquet") from None
    rows = []
    for each in predictions:
        values = msgspec.to_builtins(each)
        wide = {f"{part}.{name}": value for part in ("input", "output") for name, value in values.pop(part).items()}
        rows.append({**values, **wide})
    with explained("write", file):
        pq.write_table(pa.Table.from_pylist(rows), file)


def _row(logged: Logged) -> tuple[str, ...]:
    return (
        logged.at[:19].replace("T", " "), f"{logged.model}@{logged.version}", _shown(logged.input),
        _shown(logged.output), logged.key,
    )  # fmt: skip


def _shown(values: dict[str, object]) -> str:
    return " ".join(f"{name}={'' if value is None else value}" for name, value in values.items())
