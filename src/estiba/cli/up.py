"""estiba up."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from estiba.cli import terminal
from estiba.cli.places import project_option, server_options

if TYPE_CHECKING:
    from estiba.local import Running
    from estiba.model.train import Outcome


@click.command(
    epilog="""\b
Examples:
  estiba up                          the project around here
  estiba up -C examples/portfolio    another project
  estiba up --port 9000 --force      elsewhere, everything trained again
"""
)
@project_option
@server_options
@click.option("--force", is_flag=True, help="Train also what has not changed.")
def up(project: Path | None, force: bool, **server: Any) -> None:
    """Train what has changed and serve the project.

    Models are trained one after the other, each in a process of its own. What was made from the same code, data,
    settings and library versions is not trained again. Ctrl-C stops.
    """
    import estiba.project
    from estiba import local
    from estiba.cli import progress

    found = estiba.project.load(project)
    found = replace(found, server=with_options(found.server, server))
    with progress.trainings() as on_event:
        outcomes = local.prepare(found, force=force, on_event=on_event)
    show_outcomes(outcomes)
    local.up(found, outcomes, on_ready=announce)


def with_options(options: Any, given: dict[str, Any]) -> Any:
    """Server options with those that were given on the command line."""
    return msgspec.structs.replace(options, **{key: value for key, value in given.items() if value is not None})


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Prints a table of models and what an operator should read."""
    from estiba.cli import summary

    summary.models([(outcome.manifest, str(outcome.version.version)) for outcome in outcomes])
    for outcome in outcomes:
        for note in outcome.notes:
            terminal.warning(f"{outcome.version}: {note}")


def announce(running: Running) -> None:
    """Prints where the server is and how to ask each model."""
    models, workers = len(running.examples), running.workers
    terminal.line(
        f"Serving {models} model{'s' * (models != 1)} at {running.url} "
        f"({workers} worker{'s' * (workers != 1)}, {running.threads} thread{'s' * (running.threads != 1)} each). "
        "Ctrl-C stops.",
        bold=True,
    )
    terminal.line(f"Forms and reference: {running.url}/docs")
    for name, record in running.examples.items():
        body = msgspec.json.encode({"records": [record]}).decode()
        url = f"{running.url}/models/{name}/predict"
        terminal.line(f"  curl -s {url} -H 'content-type: application/json' -d {shlex.quote(body)}")
