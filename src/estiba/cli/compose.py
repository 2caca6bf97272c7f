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
  estiba compose --check               whether what is there is up to date: exit code 1 if not
"""
)
@project_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help=f"By default {FOLDER}.")
@click.option("--check", is_flag=True, help="Write nothing; say what would change.")
@json_option
def compose(project: Path | None, output: Path | None, check: bool, as_json: bool) -> int:
    """Write the project as Docker Compose.

    Ports are published on this machine only, secrets are made up on first use and are in no file that git sees, and
    every container runs without rights that it does not need. Settings go to .env, which is written once and then
    yours.
    """
    import estiba.project
    from estiba import planning
    from estiba.cli import write_files
    from estiba.deploy.compose import render as target
    from estiba.deploy.plan import secrets

    found = estiba.project.load(project)
    plan = planning.lower(found)
    files = target.render(plan, found.compose)
    folder = output or found.folder / FOLDER
    if check:
        return write_files.stale(files, folder, as_json=as_json)
    secrets.hand_out(found.folder, plan.secrets, folder / "secrets", plan.given)
    place = shlex.quote(str(write_files.shown(folder)))
    steps = ["estiba build", f"docker compose --project-directory {place} up --detach --wait"]
    write_files.write(files, folder, services=len(plan.services), next_steps=steps, as_json=as_json)
    return 0
