"""estiba kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli.common_options import json_option, project_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from estiba.deploy.plan.plan import Plan

FOLDER = "deploy/kubernetes"


@click.command(
    epilog="""\b
Examples:
  estiba kubernetes                        into deploy/kubernetes
  estiba kubernetes -o /srv/manifests      elsewhere
  estiba kubernetes --pin images.json      images by the digests that were pushed
  estiba kubernetes --check                whether what is there is up to date: exit code 1 if not
  estiba deploy kubernetes staging         apply an overlay, and wait until all is ready
"""
)
@project_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help=f"By default {FOLDER}.")
@click.option("--check", is_flag=True, help="Write nothing; say what would change.")
@click.option(
    "--pin",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Images by the digests in what `estiba build --push --json` printed.",
)
@json_option
def kubernetes(project: Path | None, output: Path | None, check: bool, pin: Path | None, as_json: bool) -> int:
    """Write the project as Kubernetes manifests.

    A kustomize base with what has no profile, a component for each profile, and overlays for dev, staging and
    production, which are written once and then yours. Secrets are only referred to: make them in the cluster.
    """
    import estiba.project
    from estiba import planning
    from estiba.cli import write_files
    from estiba.deploy.image import push
    from estiba.deploy.kubernetes.render import namespace, render
    from estiba.deploy.plan import secrets

    found = estiba.project.load(project)
    plan = planning.lower(found, canaries=True)
    if pin is not None:
        plan = push.pinned(plan, pin)
    files = render(plan, found.kubernetes)
    folder = output or found.folder / FOLDER
    if check:
        return write_files.stale(files, folder, as_json=as_json)
    # Where a store of secrets is named, they come from there.
    named = [] if found.kubernetes.external_secrets else plan.secrets
    made = secrets.ensure(found.folder, (name for name in named if name not in plan.given))
    made |= {name: secrets.place(found.folder, name) for name in named if name in plan.given}
    space = namespace(plan, found.kubernetes, "staging")
    steps = ["estiba build --push"] if pin is None else []
    if made:
        steps.append(f"kubectl apply -f {write_files.shown(folder / 'overlays' / 'staging' / 'namespace.yaml')}")
    secret_steps = _secrets(plan, made, space)
    steps += [*secret_steps.pop("", ()), "estiba deploy kubernetes staging"]
    for profile, commands in secret_steps.items():
        steps += [f"# before that, where the overlay names components/{profile}:", *commands]
    write_files.write(files, folder, services=len(plan.services), next_steps=steps, as_json=as_json)
    return 0


def _secrets(plan: Plan, made: Mapping[str, Path], namespace: str) -> dict[str, list[str]]:
    """Commands that bring secrets into the cluster, by the profile that needs them; "" is what always takes part."""
    from estiba.cli.write_files import shown
    from estiba.deploy.kubernetes.workloads import secret_name

    found: dict[str, list[str]] = {}
    for name, file in made.items():
        users = [plan.profiles_of(service) for service in plan.services if name in service.secrets]
        command = f"kubectl create secret generic {secret_name(name)} -n {namespace} --from-file=value={shown(file)}"
        for profile in [""] if () in users else sorted({profile for profiles in users for profile in profiles}):
            found.setdefault(profile, []).append(command)
    return found
