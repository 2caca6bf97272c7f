"""estiba feedback."""

from __future__ import annotations

from contextlib import closing
from typing import IO

import click

from estiba.cli import terminal
from estiba.cli.common_options import json_option, state_option


@click.command(
    epilog="""\b
Examples:
  estiba feedback labels.csv                 columns id and label, and row where requests had several
  estiba feedback labels.jsonl               {"id": "01K...", "label": "leave"} on each line
  cut -d, -f1,4 export.csv | estiba feedback - --skip-unknown
"""
)
@click.argument("file", type=click.File("rb"))
@click.option("--skip-unknown", is_flag=True, help="Leave out labels of predictions that are not in the log.")
@state_option
@json_option
def feedback(file: IO[bytes], skip_unknown: bool, state: str | None, as_json: bool) -> None:
    """Keep the labels that became known for predictions.

    FILE is CSV, JSON or JSON lines; - reads standard input. A label belongs to the prediction of its id, which the
    answer had as X-Request-ID. All labels are kept, or none where one of them is wrong. A server takes them as
    POST /feedback. `estiba quality` shows what follows from them.
    """
    import msgspec

    from estiba.cli.common_options import state_location
    from estiba.gateway.feedback import read_labels, record
    from estiba.state.store import open_log

    content = file.read()
    labels = read_labels(content, _content_type(content), limit=None)
    with closing(open_log(state_location(state))) as log:
        kept = record(log, labels, skip_unknown=skip_unknown)
    if as_json:
        terminal.json(msgspec.to_builtins(kept))
        return
    terminal.line(f"{kept.accepted} labels are kept; {kept.repeated} of these predictions had one before.")
    if kept.unknown:
        terminal.warning(f"{kept.unknown} labels were left out: the log has no prediction of their id.")


def _content_type(content: bytes) -> str:
    """The type of a file of labels: JSON has a bracket first, JSON lines an object on each line."""
    text = content.lstrip()
    if text.startswith(b"["):
        return "application/json"
    return "application/x-ndjson" if text.startswith(b"{") else "text/csv"
