"""estiba compose."""

from __future__ import annotations

from pathlib import Path

import click

from estiba.cli.places import json_option, project_option

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
    from estiba import lowering
    from estiba.cli import terminal
    from estiba.deploy import compose as target
    from estiba.deploy import rendered, secrets

    found = estiba.project.load(project)
    plan = lowering.lower(found)
    files = target.render(plan, found.compose)
    folder = output or found.folder / FOLDER
    if check:
        stale = rendered.check(files, folder)
        terminal.json({"folder": str(folder), "stale": stale}) if as_json else _say_stale(folder, stale)
        return 1 if stale else 0
    written = rendered.write(files, folder)
    made = secrets.hand_out(found.folder, plan.secrets, folder / "secrets")
    if as_json:
        terminal.json({"folder": str(folder), "files": written, "secrets": made})
        return 0
    for file in written:
        if file.became != "same":
            terminal.line(f"{file.became:8} {file.path}")
    services = len(plan.services)
    terminal.line(f"{services} services, {len(written)} files in {folder}. Next:", bold=True)
    terminal.line(f"  estiba build && docker compose --project-directory {folder} up --detach --wait")
    return 0


def _say_stale(folder: Path, stale: list[str]) -> None:
    from estiba.cli import terminal

    for path in stale:
        terminal.line(f"out of date: {path}")
    if not stale:
        terminal.line(f"{folder} is up to date.")
