"""estiba export."""

from __future__ import annotations

from pathlib import Path

import click

from estiba.cli import completion
from estiba.cli.common_options import project_option


@click.command(
    epilog="""\b
Examples:
  estiba export                        all images of the project, in PROJECT.tar.gz
  estiba export models -o /media/usb/models.tar.gz
  estiba build --offline models.tar.gz  on the other machine
"""
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1, shell_complete=completion.services)
@project_option
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Archive to write; by default PROJECT.tar.gz.",
)
@click.option("--style", type=click.Choice(["slim", "scratch"]), help="Override the style in the project file.")
@completion.profile_option("Include services of this profile.")
def export(
    services: tuple[str, ...], project: Path | None, output: Path | None, style: str | None, profiles: tuple[str, ...]
) -> None:
    """Write an archive from which images can be built without a network.

    The archive has wheels, models, applications, base images and bills of materials. `estiba build --offline` builds
    the images from it.
    """
    from estiba.cli import terminal
    from estiba.cli.build import planned
    from estiba.cli.progress import Steps
    from estiba.deploy.image import build
    from estiba.deploy.image.bundle import export as write
    from estiba.deploy.image.requirements import sha256

    plan = planned(project, services)
    target = output or Path(f"{plan.project}.tar.gz")
    with Steps() as steps:
        listed = write(plan, build.select(plan, services, profiles), target, style, steps.tell)
    size = target.stat().st_size / 1e6
    terminal.line(f"{target}: {len(listed.services)} services, {size:.1f} MB, sha256:{sha256(target)}", bold=True)
    if not listed.bases:
        terminal.warning("The archive has no base images, as no container engine works here: use --offline with --oci.")
    terminal.line(f"  estiba build --offline {target}")
