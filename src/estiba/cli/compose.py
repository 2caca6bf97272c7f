"""estiba compose."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from estiba.cli.common_options import json_option, project_option

FOLDER = "deploy/compose"


@click.command(
    epilog="""\b
Examples:
  estiba compose                       into deploy/compose
  estiba compose -o /srv/portfolio     elsewhere
  estiba compose --check               list the files that are out of date: exit code 1 if there are any
"""
)
@project_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help=f"By default {FOLDER}.")
@click.option("--check", is_flag=True, help="Write nothing; list the files that would change.")
@json_option
def compose(project: Path | None, output: Path | None, check: bool, as_json: bool) -> int:
    """Render the project for Docker Compose.

    Ports are published on this machine only, secrets are generated on first use and are in no file that git sees, and
    every container runs without privileges that it does not need. Settings go to .env, which is written once and is
    yours to edit.
    """
    import estiba.project
    from estiba import planning
    from estiba.cli import write_files
    from estiba.deploy.compose.render import render
    from estiba.deploy.plan import secrets

    loaded = estiba.project.load(project)
    plan = planning.lower(loaded)
    files = render(plan, loaded.compose)
    folder = output or loaded.folder / FOLDER
    if check:
        return write_files.stale(files, folder, as_json=as_json)
    secrets.copy_to(loaded.folder, plan.secrets, folder / "secrets", plan.external_secrets)
    directory = shlex.quote(str(write_files.shown(folder)))
    steps = ["estiba build", f"docker compose --project-directory {directory} up --detach --wait"]
    write_files.write(files, folder, services=len(plan.services), next_steps=steps, as_json=as_json)
    return 0
