"""estiba ci."""

from __future__ import annotations

from pathlib import Path

import click

from estiba.cli.common_options import project_option


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
    is no key to keep. The deploy job needs a runner labelled production on the machine that it deploys to.
    """
    import estiba.project
    from estiba.cli import terminal
    from estiba.core.errors import BadProject, Conflict
    from estiba.core.stores.disk import write_whole
    from estiba.deploy.output import ci_pipelines

    loaded = estiba.project.load(project)
    pipeline = ci_pipelines.of(loaded.folder, loaded.images, loaded.models, target)
    if not pipeline.registry:
        hint = 'Set the repository with its host in [images]: repository = "ghcr.io/OWNER/NAME".'
        raise BadProject("A pipeline needs a container registry, and images.repository names none.", hint=hint)
    text = ci_pipelines.render(pipeline, host)
    if show:
        click.echo(text, nl=False)
        return
    path = loaded.folder / ci_pipelines.FILES[host]
    if path.exists() and not force:
        raise Conflict(f"{path} exists already.", hint="See the new pipeline with --print, or overwrite with --force.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
    terminal.line(f"wrote {path}")
    terminal.line("It needs two secrets, REGISTRY_USER and REGISTRY_PASSWORD, and a runner labelled production.")
