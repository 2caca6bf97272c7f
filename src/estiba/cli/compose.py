"""estiba compose."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli.common_options import json_option, project_option

if TYPE_CHECKING:
    from estiba.deploy.plan.plan import Plan

FOLDER = "deploy/compose"


@click.command(
    epilog="""\b
Examples:
  estiba compose                       into deploy/compose
  estiba compose -o /srv/portfolio     elsewhere
  estiba compose --dev                 also compose.dev.yaml: reload at changes, a debugger at 5678
  estiba compose --check               list the files that are out of date: exit code 1 if there are any
"""
)
@project_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help=f"By default {FOLDER}.")
@click.option("--check", is_flag=True, help="Write nothing; list the files that would change.")
@click.option("--dev", is_flag=True, help="Also write compose.dev.yaml: run the project's code, and reload it.")
@json_option
def compose(project: Path | None, output: Path | None, check: bool, dev: bool, as_json: bool) -> int:
    """Render the project for Docker Compose.

    Ports are published on this machine only, secrets are generated on first use and are in no file that git sees, and
    every container runs without privileges that it does not need. Settings go to .env, which is written once and is
    yours to edit.
    """
    import estiba.project
    from estiba import planning
    from estiba.cli import write_files
    from estiba.deploy.compose import development
    from estiba.deploy.compose.render import render
    from estiba.deploy.compose.secrets_in_use import check_lost_secrets
    from estiba.deploy.plan import secrets
    from estiba.local import debugger

    loaded = estiba.project.load(project)
    plan = planning.lower_for_compose(loaded)
    files = render(plan, loaded.compose)
    folder = output or loaded.folder / FOLDER
    if dev:
        files = replace(files, texts={**files.texts, **development.render(plan, folder, debugger.folder())})
    if check:
        return write_files.stale(files, folder, as_json=as_json)
    new = secrets.to_generate(loaded.folder, plan.secrets, folder / "secrets", plan.external_secrets)
    check_lost_secrets(plan, plan.project, new)
    secrets.copy_to(loaded.folder, plan.secrets, folder / "secrets", plan.external_secrets)
    directory = shlex.quote(str(write_files.shown(folder)))
    chosen = "".join(f" -f {directory}/{name}" for name in ("compose.yaml", development.FILE)) if dev else ""
    steps = ["estiba build", f"docker compose --project-directory {directory}{chosen} up --detach --wait"]
    write_files.write(files, folder, services=len(plan.services), next_steps=steps, as_json=as_json)
    if plan.policies.needs_keys and not as_json:
        show_key(plan, folder)
    return 0


def show_key(plan: Plan, folder: Path) -> None:
    """Print where the key of the deployment is, and how to make others."""
    from estiba.cli import write_files
    from estiba.deploy.plan.plan import API_KEY

    server = next(service.name for service in plan.services if service.models)
    directory = shlex.quote(str(write_files.shown(folder)))
    command = f"docker compose --project-directory {directory} exec {server} estiba keys create"
    write_files.about_key(str(write_files.shown(folder / "secrets" / API_KEY)), command)
