"""estiba up."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import msgspec

from estiba.cli import completion, terminal
from estiba.cli.common_options import project_option, server_options
from estiba.core.addresses import is_wildcard

if TYPE_CHECKING:
    from estiba.cli.service_display import Board, Events, ServerLog
    from estiba.local.run_plan import RunPlan
    from estiba.model.training.runner import Outcome
    from estiba.project import Project
    from estiba.serve import Running


@click.command(
    epilog="""\b
Examples:
  estiba up                          the project in this folder or one above it
  estiba up -C examples/portfolio    another project
  estiba up dashboard                one service and its dependencies
  estiba up --profile dev --watch    also the services of a profile; restart each when its files change
  estiba up --port 9000              at other ports: 8001 of a model becomes 9001
  estiba up --force                  with all models trained again
  estiba up --watch --debug api      restart at changes; an editor attaches to api at 127.0.0.1:5678
"""
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1, shell_complete=completion.services)
@project_option
@completion.profile_option("Also start the services of this profile.")
@click.option(
    "--debug",
    multiple=True,
    metavar="SERVICE",
    shell_complete=completion.services,
    help="Start this Python service under debugpy; an editor attaches at 127.0.0.1:5678, to further ones at 5679, ...",
)
@click.option("--watch", is_flag=True, help="Restart services and train models again when their files change.")
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read variables from FILE instead of the project's .env.",
)
@click.option(
    "--containers",
    type=click.Choice(["auto", "docker", "podman", "none"]),
    default="auto",
    show_default=True,
    help="The container engine for services that exist only as images.",
)
@server_options
@click.option("--force", is_flag=True, help="Also train models that have not changed.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one object per line.")
def up(project: Path | None, force: bool, watch: bool, as_json: bool, **given: Any) -> int:
    """Train the models that have changed and run the project.

    Models are trained one after the other, each in its own process. A model whose code, data, settings and library
    versions have not changed is not trained again. Then the model server starts, and each service as soon as its
    dependencies are healthy. Without a SERVICE, all services without a profile start. A service that exists only as an
    image runs in a container, if docker or podman works here. A service that ends is started again. Ctrl-C stops
    everything in reverse order; a second Ctrl-C kills it.

    --port moves all ports, those of models and services by the same offset as the server's.
    """
    import estiba.project
    from estiba.local import run_plan

    keys = ("services", "profiles", "env_file", "port", "debug", "containers")
    names, profiles, env_file, port, debug, containers = (given.pop(key) for key in keys)

    def load() -> Project:
        loaded = estiba.project.load(project)
        return replace(loaded, server=with_options(loaded.server, given))

    call = _call(project, names, profiles)
    request = run_plan.UpRequest(load, names, profiles, env_file, port, call, debug, containers)
    plan = run_plan.plan(request)
    outcomes = _train(plan, force=force, as_json=as_json)
    plan = run_plan.with_models(plan, [outcome.version.digest for outcome in outcomes])
    return _run(plan, watch=watch, as_json=as_json)


def _call(project: Path | None, names: Sequence[str], profiles: Sequence[str]) -> str:
    """The command that the user typed, without the options that hints leave out."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "estiba" else "estiba"
    if shutil.which("estiba") == program:
        program = "estiba"
    folder = ["-C", str(project)] if project else []
    return shlex.join([program, "up", *names, *folder, *(part for name in profiles for part in ("--profile", name))])


def _train(plan: RunPlan, *, force: bool, as_json: bool) -> Sequence[Outcome]:
    from estiba.cli import progress
    from estiba.local import up as local

    if plan.selection.services and not plan.selection.models:
        return ()
    with progress.trainings() as on_event:
        outcomes = local.train(plan.project, force=force, on_event=on_event)
    if not as_json:
        show_outcomes(outcomes)
    return outcomes


def _run(plan: RunPlan, *, watch: bool, as_json: bool) -> int:
    """Run the plan and show it; return 1 if a service failed."""
    from estiba.local import reload, session

    running: list[Running] = []
    display = _display(plan, running, watch=watch, as_json=as_json)
    observer = session.Observer(
        display.status, display.line, running.append, display.note, "text" if display.readable else "json"
    )
    try:
        for status in session.left_out(plan.selection).values():
            display.status(status)
        well = session.run(plan, observer, watching=reload.start if watch else None)
    finally:
        display.close()
    return 0 if well else 1


def _display(plan: RunPlan, running: Sequence[Running], *, watch: bool, as_json: bool) -> Board | Events | ServerLog:
    from estiba.cli.service_display import Board, Events, ServerLog
    from estiba.deploy.plan.service_options import MODELS

    if as_json:
        return Events()
    if not plan.selection.services and not watch:
        return ServerLog(lambda: _announce_all(running, plan))
    selection = plan.selection
    names = [*([MODELS] if selection.models else []), *selection.services, *selection.left_out]
    return Board(names, lambda: _announce_all(running, plan))


def _announce_all(running: Sequence[Running], plan: RunPlan) -> None:
    for server in running:
        announce(server)
    if not running:
        terminal.line("Ctrl-C stops.", bold=True)
    for name, port in plan.target.debuggers.items():
        terminal.line(f"The debugger of {name} listens on 127.0.0.1:{port}: attach to it with debugpy.")
    for service in plan.applications:
        for secret in service.secrets if service.public else ():
            terminal.line(f"{service.name} asks for a secret: cat {_shown(plan.project.folder, secret)}")


def _shown(project: Path, secret: str) -> str:
    """The file of a secret, relative to the working directory where it is below that."""
    from estiba.deploy.plan.secrets import path_of

    file = path_of(project, secret)
    return shlex.quote(str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file))


def with_options(options: Any, given: dict[str, Any]) -> Any:
    """The server options, with those of the command line in their place."""
    return msgspec.structs.replace(options, **{key: value for key, value in given.items() if value is not None})


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a table of models, and the notes about them."""
    from estiba.cli import model_table

    model_table.models([(outcome.manifest, str(outcome.version.version)) for outcome in outcomes])
    for outcome in outcomes:
        for note in outcome.notes:
            terminal.warning(f"{outcome.version}: {note}")


def announce(running: Running) -> None:
    """Print the address of the server and a request for each model."""
    models, workers = len(running.examples), running.workers
    terminal.line(
        f"Serving {models} model{'s' * (models != 1)} at {running.url} "
        f"({workers} worker{'s' * (workers != 1)}, {running.threads} thread{'s' * (running.threads != 1)} each). "
        "Ctrl-C stops.",
        bold=True,
    )
    address, curl = running.url, "curl -s"
    if address.startswith("unix:"):
        curl, address = f"curl -s --unix-socket {shlex.quote(address[5:])}", "http://localhost"
    if is_wildcard(urlsplit(running.url).hostname or ""):
        # 0.0.0.0 is no address to connect to, and a container may be published at another port.
        address = f"{urlsplit(running.url).scheme}://ADDRESS"
        port = urlsplit(running.url).port
        terminal.line(f"ADDRESS is a name of this machine with :{port}, or where its container is published.")
    if running.needs_key:
        text = "Requests need a key; the commands below take it from $ESTIBA_KEY. Make one: estiba keys create NAME"
        terminal.line(text)
        if running.key_file:
            terminal.line(f"The key of the project's own services is in {running.key_file}")
    else:
        terminal.line(f"Forms and reference: {address}/docs")
    if running.ports:
        own = ", ".join(f"{name} {port}" for port, name in running.ports.items())
        terminal.line(f"Also on their own ports, as POST /predict: {own}")
    for name, record in running.examples.items():
        body = msgspec.json.encode({"records": [record]}).decode()
        url = f"{address}/models/{name}/predict"
        if not record:
            terminal.line(f"  {url} takes tensors; {address}/docs shows their shapes")
            continue
        key = ' -H "x-api-key: $ESTIBA_KEY"' if running.needs_key else ""
        terminal.line(f"  {curl} {url}{key} -H 'content-type: application/json' -d {shlex.quote(body)}")
