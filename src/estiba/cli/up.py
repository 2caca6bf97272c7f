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
from estiba.cli.common_options import project_option, server_options

if TYPE_CHECKING:
    from estiba.local.session import Start
    from estiba.model.training.runner import Outcome
    from estiba.project import Project
    from estiba.serve import Running


@click.command(
    epilog="""\b
Examples:
  estiba up                          the project around here
  estiba up -C examples/portfolio    another project
  estiba up dashboard                one service, and what it needs
  estiba up --profile dev --watch    the services of a profile too, each started again when its files change
  estiba up --port 9000 --force      elsewhere, everything trained again
"""
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
@project_option
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Start also the services of this profile.")
@click.option("--watch", is_flag=True, help="Start again, and train again, what belongs to files that change.")
@click.option("--env-file", type=click.Path(path_type=Path), metavar="FILE", help="Instead of the project's .env.")
@server_options
@click.option("--force", is_flag=True, help="Train also what has not changed.")
@click.option("--json", "as_json", is_flag=True, help="Print what happens as JSON, an object a line.")
def up(project: Path | None, force: bool, watch: bool, as_json: bool, **given: Any) -> int:
    """Train what has changed and run the project.

    Models are trained one after the other, each in a process of its own. What was made from the same code, data,
    settings and library versions is not trained again. Then the model server starts, and each service once what it
    needs is healthy; without a name, all that belong to no profile. What ends is started again. Ctrl-C stops everything
    in reverse order, a second one at once.
    """
    import estiba.project
    from estiba.local import session
    from estiba.local import up as local

    names, profiles, env_file = (given.pop(key) for key in ("services", "profiles", "env_file"))

    def load() -> Project:
        found = estiba.project.load(project)
        return replace(found, server=with_options(found.server, given))

    start = session.plan(session.Wish(load, names, profiles, env_file))
    outcomes = _trained(start, force=force, as_json=as_json)
    if start.choice.services or watch or as_json:
        return _run(start, outcomes, watch=watch, as_json=as_json)
    for name, reason in start.choice.left_out.items():
        terminal.line(f"{name}: left out: {reason}")
    local.up(start.project, outcomes, on_ready=announce)
    return 0


def _trained(start: Start, *, force: bool, as_json: bool) -> Sequence[Outcome]:
    from estiba.cli import progress
    from estiba.local import up as local

    if start.choice.services and not start.choice.models:
        return ()
    with progress.trainings() as on_event:
        outcomes = local.prepare(start.project, force=force, on_event=on_event)
    if not as_json:
        show_outcomes(outcomes)
    return outcomes


def _run(start: Start, outcomes: Sequence[Outcome], *, watch: bool, as_json: bool) -> int:
    """Runs what takes part, and shows it; 1 where something ended in failure."""
    from estiba.cli.service_display import Board, Events
    from estiba.deploy.plan.service_options import MODELS
    from estiba.local import reload, session

    running: list[Running] = []
    left_out = session.left_out(start.choice)
    names = [*([MODELS] if start.choice.models else []), *start.choice.services, *left_out]
    board = Events() if as_json else Board(names, lambda: _settled(running))
    observer = session.Observer(board.status, board.line, running.append, board.note)
    try:
        for status in left_out.values():
            board.status(status)
        trust = {outcome.version.digest for outcome in outcomes}
        well = session.run(start, trust, observer, watching=reload.begin if watch else None)
    finally:
        board.close()
    return 0 if well else 1


def _settled(running: Sequence[Running]) -> None:
    for found in running:
        announce(found)
    if not running:
        terminal.line("Ctrl-C stops.", bold=True)


def with_options(options: Any, given: dict[str, Any]) -> Any:
    """Server options with those that were given on the command line."""
    return msgspec.structs.replace(options, **{key: value for key, value in given.items() if value is not None})


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Prints a table of models and what an operator should read."""
    from estiba.cli import model_table

    model_table.models([(outcome.manifest, str(outcome.version.version)) for outcome in outcomes])
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
    if running.ports:
        own = ", ".join(f"{name} {port}" for port, name in running.ports.items())
        terminal.line(f"At ports of their own, as POST /predict: {own}")
    for name, record in running.examples.items():
        body = msgspec.json.encode({"records": [record]}).decode()
        url = f"{running.url}/models/{name}/predict"
        terminal.line(f"  curl -s {url} -H 'content-type: application/json' -d {shlex.quote(body)}")
