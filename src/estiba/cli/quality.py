"""estiba quality."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from estiba.cli import terminal
from estiba.cli.common_options import json_option, state_option
from estiba.cli.keys import Duration

if TYPE_CHECKING:
    from estiba.gateway.quality import VersionQuality, Window


@click.command(
    epilog="""\b
Examples:
  estiba quality bankchurn                            the last seven days, one line for a day and version
  estiba quality bankchurn --since 12w --window 1w
  estiba quality bankchurn --since 30d --window 30d --json
"""
)
@click.argument("model")
@click.option("--since", type=Duration(), default="7d", help="How far back, such as 12h or 30d.", show_default=True)
@click.option("--window", type=Duration(), default="1d", help="Length of a window.", show_default=True)
@state_option
@json_option
def quality(model: str, since: float, window: float, state: str | None, as_json: bool) -> None:
    """Show how right a model was, by version and time, from the labels of its predictions.

    Labels come from `estiba feedback` or POST /feedback. A server answers the same at GET /models/NAME/quality.
    """
    import msgspec

    from estiba.cli.common_options import state_location
    from estiba.gateway.quality import MAX_LABELS
    from estiba.gateway.quality import quality as measured
    from estiba.state.store import open_log

    with closing(open_log(state_location(state))) as log:
        result = measured(log, model, since=since, window=min(window, since))
    if as_json:
        terminal.json(msgspec.to_builtins(result))
        return
    rows = [_row(each, window) for window in result.windows for each in window.versions]
    if not rows:
        terminal.line(f"There is no label for predictions of {model} in this time. `estiba feedback` takes them.")
        return
    terminal.table(_heads(result.windows), rows, right={"labels", "logged"})
    if result.truncated:
        terminal.warning(f"There are more labels: the newest {MAX_LABELS:,} are measured. Ask for less with --since.")


def _heads(windows: tuple[Window, ...]) -> tuple[str, ...]:
    first = next(each for window in windows for each in window.versions)
    measures = ("mean error", "RMSE", "bias") if first.accuracy is None else ("accuracy", "95 % interval", "AUC")
    return ("from (UTC)", "version", "labels", "logged", *measures)


def _row(each: VersionQuality, window: Window) -> tuple[str, ...]:
    begin = window.begin[:16].replace("T", " ")
    head = (begin, each.version, f"{each.labels:,}", f"{window.logged:,}")
    if each.accuracy is None:
        return (*head, _number(each.mae), _number(each.rmse), _number(each.bias))
    low, high = each.accuracy_interval or (0.0, 1.0)
    auc = "" if each.auc is None else f"{each.auc:.3f}"
    return (*head, f"{each.accuracy:.1%}", f"{low:.1%} to {high:.1%}", auc)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
