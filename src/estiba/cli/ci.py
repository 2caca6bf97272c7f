"""estiba ci."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli.common_options import project_option

if TYPE_CHECKING:
    from estiba.deploy.output.ci_pipelines import Installed


@click.command(
    epilog="""\b
Examples:
  estiba ci github
  estiba ci gitlab --target kubernetes
  estiba ci github --print
"""
)
@click.argument("host", type=click.Choice(["github", "gitlab"]))
@project_option
@click.option(
    "--target",
    type=click.Choice(["compose", "kubernetes"]),
    default="compose",
    show_default=True,
    help="Where the pipeline deploys to.",
)
@click.option("--print", "show", is_flag=True, help="Print the pipeline and write nothing.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def ci(host: str, project: Path | None, target: str, show: bool, force: bool) -> None:
    """Write a pipeline that lints, tests, builds, scans, signs and deploys the project.

    The file is written once and then yours. Images are signed with cosign by the identity of the pipeline, so there
    is no key to keep. The deploy job needs a runner labelled production on the machine that it deploys to. The
    pipeline installs Estiba from where you got it: `estiba` in [ci], a commit in Git, or this wheel, in vendor/.
    """
    import estiba.project
    from estiba.cli import terminal
    from estiba.core.errors import BadProject, Conflict
    from estiba.core.stores.disk import explained, write_whole
    from estiba.deploy.output import ci_pipelines
    from estiba.deploy.plan import image_options

    loaded = estiba.project.load(project)
    if not image_options.host(f"{loaded.images.repository}/"):
        hint = 'Set the repository with its host in [images]: repository = "ghcr.io/OWNER/NAME".'
        raise BadProject("A pipeline needs a container registry, and images.repository names none.", hint=hint)
    path = loaded.folder / ci_pipelines.FILES[host]
    if path.exists() and not (force or show):
        raise Conflict(f"{path} exists already.", hint="See the new pipeline with --print, or overwrite with --force.")
    estiba_here = ci_pipelines.installed(loaded.folder, loaded.ci) or _vendor(loaded.folder, write=not show)
    pipeline = ci_pipelines.of(loaded.folder, loaded.name, loaded.images, loaded.models, target, estiba_here)
    text = ci_pipelines.render(pipeline, host)
    if show:
        click.echo(text, nl=False)
        return
    with explained("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
    terminal.line(f"wrote {path}")
    terminal.line("It needs two secrets, REGISTRY_USER and REGISTRY_PASSWORD, and a runner labelled production.")


def _vendor(folder: Path, *, write: bool) -> Installed:
    """Put the wheel of this Estiba into the project, for its pipeline to install."""
    from estiba.cli import terminal
    from estiba.core.stores.disk import explained, temporary
    from estiba.deploy.image import wheels
    from estiba.deploy.output import ci_pipelines

    with temporary("wheel") as folder_of_wheel:
        wheel = wheels.own(folder_of_wheel)
        content = wheel.read_bytes()
    path = f"{ci_pipelines.VENDOR}/{wheel.name}"
    if write:
        with explained("write", folder / path):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content)
        terminal.line(f"wrote {folder / path} ({len(content) / 1e6:.1f} MB): commit it with the pipeline")
    return ci_pipelines.vendored(path, content)
