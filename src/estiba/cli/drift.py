"""estiba drift."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli import completion, terminal
from estiba.cli.common_options import (
    csv_options,
    json_option,
    registry_option,
    sheet_option,
    state_option,
    trust_option,
)
from estiba.cli.keys import Duration

if TYPE_CHECKING:
    from estiba.model.inference.score_files import SourceOptions
    from estiba.monitoring.options import DriftOptions
    from estiba.monitoring.report import PartReport, VersionReport

FOUND = 1
"""Exit code where a file drifts."""


@click.command(
    epilog="""\b
Examples:
  estiba drift                                each model in a line
  estiba drift bankchurn                      each field of its last window
  estiba drift bankchurn --since 30d --json   with the windows of a month
  estiba drift bankchurn@3 october.csv        a file against the profile; exit code 1 where it drifts
"""
)
@click.argument("model", required=False, shell_complete=completion.refs)
@click.argument("source", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--since", type=Duration(), default="7d", help="How far back, such as 12h or 30d.", show_default=True)
@click.option("--min-rows", type=click.IntRange(50), help="Fewest rows of a file that are compared.")
@csv_options
@sheet_option
@registry_option
@state_option
@trust_option
@json_option
def drift(  # noqa: PLR0913 - one parameter per option
    model: str | None,
    source: Path | None,
    since: float,
    min_rows: int | None,
    separator: str,
    decimal: str,
    encoding: str,
    sheet: str,
    registry: str | None,
    state: str | None,
    trust: bool,
    as_json: bool,
) -> int:
    """Show how the rows of requests differ from those of training, by field.

    Servers compare with `[monitoring.drift] enabled = true`, or `estiba serve --drift`; they answer the same at GET
    /models/NAME/drift. With FILE, its rows are compared with the profile of the model, without a server.
    """
    from estiba.cli.common_options import state_location
    from estiba.model.coding.csv_file import CsvOptions
    from estiba.model.inference.score_files import SourceOptions

    if model is not None and source is not None:
        options = SourceOptions(CsvOptions(separator, decimal, encoding), sheet)
        options.csv.check()
        return _check_file(model, source, options, _options(min_rows), registry=registry, trust=trust, as_json=as_json)
    if model is not None:
        _show_model(model.partition("@")[0], since, state_location(state), as_json=as_json)
    else:
        _list_models(since, state_location(state), as_json=as_json)
    return 0


def _options(min_rows: int | None) -> DriftOptions:
    """The options of the project in this folder or above it, or the defaults."""
    import msgspec

    from estiba.core.errors import NotFound
    from estiba.monitoring.options import DriftOptions

    options = DriftOptions()
    if find_spec("estiba.deploy") is not None:  # an image that only serves cannot read projects
        from estiba import project

        with suppress(NotFound):
            options = project.load().monitoring.drift
    return options if min_rows is None else msgspec.structs.replace(options, min_rows=min_rows)


def _check_file(  # noqa: PLR0913 - the options of the command
    ref: str,
    source: Path,
    sources: SourceOptions,
    options: DriftOptions,
    *,
    registry: str | None,
    trust: bool,
    as_json: bool,
) -> int:
    import msgspec

    from estiba.cli.common_options import registry_location
    from estiba.model.inference.load import load
    from estiba.monitoring.file_check import check_file

    loaded = load(ref, registry=registry_location(registry), trust=trust)
    result = check_file(loaded, source, options, sources, at=time.time_ns() // 1000)
    drifts = result.state == "drift"
    if as_json:
        terminal.json({"model": loaded.name, **msgspec.to_builtins(result)})
    else:
        name, rows = f"{loaded.name}@{loaded.version}", result.window.rows if result.window else 0
        _table(result)
        if drifts:
            names = ", ".join(part.name for part in result.fields if part.state == "drift")
            terminal.line(f"{rows:,} rows of {source} differ from the profile of {name}: {names}.")
        else:
            terminal.line(f"{rows:,} rows of {source} are as those in the profile of {name}.")
        if result.window is not None and result.window.design_effect > SORTED_EFFECT:
            terminal.warning(
                f"Rows beside each other are alike, so that {result.window.design_effect:.0f} count as one. "
                "If the file is sorted, shuffle it: small differences are not seen otherwise."
            )
        if result.reference is not None and result.reference.output_source == "pending":
            terminal.line("Answers were not compared: the profile has those to rows of training only.")
    return FOUND if drifts else 0


def _show_model(model: str, since: float, state: str, *, as_json: bool) -> None:
    import msgspec

    from estiba.monitoring.report import report
    from estiba.state.store import open_monitoring

    with closing(open_monitoring(state)) as database:
        shown = report(database, model, since=since)
    if as_json:
        terminal.json(msgspec.to_builtins(shown))
        return
    if not shown.versions:
        terminal.line(
            f"No rows of {model} are counted yet. A server with [monitoring.drift] enabled = true does, within seconds."
        )
        return
    if shown.silence.is_silent:
        rows = shown.silence.rows_week_ago
        terminal.warning(f"{model} got no rows in the last hour; the same hour a week ago had {rows:,}.")
    for version in shown.versions:
        _show_version(model, version)


def _show_version(model: str, version: VersionReport) -> None:
    name = f"{model}@{version.version}"
    if version.window is None:
        terminal.line(f"{name}: collecting, {version.waiting_rows:,} rows so far. No window is closed yet.")
        return
    begin, end = (_time(each) for each in (version.window.begin, version.window.end))
    reference = version.reference
    source = _SOURCES[reference.source] if reference else ""
    rows, base = version.window.rows, reference.rows if reference else 0
    terminal.line(f"{name}: {rows:,} rows from {begin} to {end} (UTC), against {base:,} {source}")
    _table(version)
    if version.smallest_shift is not None:
        terminal.line(f"A window of this size shows shifts of {version.smallest_shift:.2f} and more.")


SORTED_EFFECT = 2.0
"""Rows that count as one, from which on a file may be sorted."""

_SOURCES = {
    "holdout": "held-out rows",
    "sample": "rows of training",
    "live": "rows that were served first",
    "adopted": "rows of an adopted window",
}


def _table(version: VersionReport) -> None:
    from estiba.core.language import preferred

    language = preferred()
    rows = [(part.name, _state(part), _largest(part), part.sentences[language]) for part in version.fields]
    terminal.table(("field", "state", "difference", "meaning"), rows)


def _state(part: PartReport) -> str:
    return f"{part.state} ({part.severity})" if part.severity else part.state


def _largest(part: PartReport) -> str:
    """The difference that is largest against its floor."""
    largest = max(part.statistics, key=lambda each: each.value / each.floor, default=None)
    return "" if largest is None else f"{largest.name} {largest.value:.3f} (from {largest.floor:g})"


def _list_models(since: float, state: str, *, as_json: bool) -> None:
    import msgspec

    from estiba.monitoring.report import models, report
    from estiba.state.store import open_monitoring

    with closing(open_monitoring(state)) as database:
        reports = [report(database, name, since=since) for name in models(database)]
    if as_json:
        terminal.json(msgspec.to_builtins(reports))
        return
    rows = [
        (
            shown.model,
            version.version,
            version.state,
            f"{version.window.rows if version.window else version.waiting_rows:,}",
            _time(version.window.end) if version.window else "",
            ", ".join(part.name for part in version.fields if part.state == "drift"),
        )
        for shown in reports
        for version in shown.versions
    ]
    if not rows:
        terminal.line("No rows are counted yet. A server with [monitoring.drift] enabled = true does, within seconds.")
        return
    terminal.table(("model", "version", "state", "rows", "until (UTC)", "drifts"), rows, right={"rows"})


def _time(text: str) -> str:
    return text[:16].replace("T", " ")
