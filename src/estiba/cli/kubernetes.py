"""estiba kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli.common_options import json_option, project_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from estiba.deploy.kubernetes.options import KubernetesOptions
    from estiba.deploy.output.files import Rendered
    from estiba.deploy.plan.plan import Plan
    from estiba.project import Project

FOLDER = "deploy/kubernetes"


@click.command(
    epilog="""\b
Examples:
  estiba kubernetes                        into deploy/kubernetes
  estiba kubernetes -o /srv/manifests      elsewhere
  estiba kubernetes --pin images.json      name images by the digests that were pushed
  estiba kubernetes --check                list the files that are out of date: exit code 1 if there are any
  estiba deploy kubernetes staging         render, apply an overlay, and wait until all is ready
"""
)
@project_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help=f"By default {FOLDER}.")
@click.option("--check", is_flag=True, help="Write nothing; list the files that would change.")
@click.option(
    "--pin",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Name images by their digests, read from FILE: the output of `estiba build --push --json`.",
)
@json_option
def kubernetes(project: Path | None, output: Path | None, check: bool, pin: Path | None, as_json: bool) -> int:
    """Render the project as Kubernetes manifests.

    A kustomize base with the services that have no profile, a component for each profile, and overlays for dev,
    staging and production, which are written once and are yours to edit. Secrets are only referred to: create them in
    the cluster.
    """
    import estiba.project
    from estiba.cli import write_files

    loaded = estiba.project.load(project)
    plan, files = rendered(project, pin)
    folder = output or loaded.folder / FOLDER
    if check:
        return write_files.stale(files, folder, as_json=as_json)
    steps = _next_steps(loaded, plan, folder, pinned=pin is not None)
    write_files.write(files, folder, services=len(plan.services), next_steps=steps, as_json=as_json)
    if plan.policies.needs_keys and not as_json:
        _show_key(loaded, plan)
    _warn_without_registry(plan)
    return 0


def _show_key(project: Project, plan: Plan) -> None:
    from estiba.cli import write_files
    from estiba.deploy.kubernetes.render import namespace
    from estiba.deploy.plan import secrets
    from estiba.deploy.plan.plan import API_KEY

    server = next(service for service in plan.services if service.models)
    kind = "statefulset" if server.volumes else "deployment"
    staging = namespace(plan, project.kubernetes, "staging")
    path = str(write_files.shown(secrets.path_of(project.folder, API_KEY)))
    if project.kubernetes.external_secrets:
        path = f"the secret {API_KEY} of the cluster"
    write_files.about_key(path, f"kubectl exec -n {staging} {kind}/{server.name} -- estiba keys create")


def _warn_without_registry(plan: Plan) -> None:
    """Say where a cluster would look for images whose names have no registry."""
    from estiba.cli import terminal
    from estiba.deploy.plan import image_options

    images = [service.image for service in plan.services if service.build and not image_options.host(service.image)]
    if images:
        terminal.warning(
            f"The cluster will look for {images[0]} on Docker Hub, where the name may be somebody else's: set "
            'repository in [images] to a registry that the cluster reads, such as "ghcr.io/OWNER/NAME".'
        )


def rendered(project: Path | None, pin: Path | None, keep_digests_of: Path | None = None) -> tuple[Plan, Rendered]:
    """Render the manifests of a project.

    Args:
        pin: a file with the digests of images. keep_digests_of: without one, a folder of manifests whose digests are
            kept.
    """
    import estiba.project
    from estiba import planning
    from estiba.deploy.image import push
    from estiba.deploy.kubernetes.image_digests import keep_digests
    from estiba.deploy.kubernetes.render import render

    loaded = estiba.project.load(project)
    plan = planning.lower_for_kubernetes(loaded)
    if pin is not None:
        plan = push.pinned(plan, pin)
    elif keep_digests_of is not None:
        plan = keep_digests(plan, keep_digests_of)
    return plan, render(plan, loaded.kubernetes)


def _next_steps(project: Project, plan: Plan, folder: Path, *, pinned: bool) -> list[str]:
    """Return the commands that deploy the manifests to staging, with those that create its secrets."""
    from estiba.cli.write_files import shown

    files = _secret_files(project.folder, plan, project.kubernetes)
    steps = [] if pinned else ["estiba build --push"]
    if files:
        steps.append(f"kubectl apply -f {shown(folder / 'overlays' / 'staging' / 'namespace.yaml')}")
    commands = _secret_commands(plan, files, project.kubernetes)
    steps += [*commands.pop("", ()), "estiba deploy kubernetes staging"]
    for profile, lines in commands.items():
        steps += [f"# before that, where the overlay names components/{profile}:", *lines]
    return steps


def _secret_files(project: Path, plan: Plan, options: KubernetesOptions) -> dict[str, Path]:
    """Return the file of each secret, generated if need be; none where the cluster takes them from a secret store."""
    from estiba.deploy.plan import secrets

    names = () if options.external_secrets else plan.secrets
    generated = secrets.ensure(project, (name for name in names if name not in plan.external_secrets))
    return generated | {name: secrets.path_of(project, name) for name in names if name in plan.external_secrets}


def _secret_commands(plan: Plan, files: Mapping[str, Path], options: KubernetesOptions) -> dict[str, list[str]]:
    """Return commands that create secrets in the cluster, by the profile that needs them; "" is for all profiles."""
    from estiba.cli.write_files import shown
    from estiba.deploy.kubernetes.render import namespace
    from estiba.deploy.kubernetes.workloads import secret_name

    create = f"kubectl create secret generic {{}} -n {namespace(plan, options, 'staging')} --from-file=value={{}}"
    commands: dict[str, list[str]] = {}
    for name, file in files.items():
        users = [plan.profiles_of(service) for service in plan.services if name in service.secrets]
        for profile in [""] if () in users else sorted({profile for profiles in users for profile in profiles}):
            commands.setdefault(profile, []).append(create.format(secret_name(name), shown(file)))
    return commands
