"""estiba deploy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from estiba.cli import completion, terminal
from estiba.cli.common_options import project_option
from estiba.cli.group import Group

if TYPE_CHECKING:
    from estiba.deploy.kubernetes.deploy import KubernetesTarget
    from estiba.deploy.target import DeployTarget, P, Proposal

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(
    cls=Group,
    epilog="""\b
Examples:
  estiba deploy compose --plan        show what would change on this machine's Docker
  estiba deploy kubernetes staging    show what changes in the cluster, ask, apply, wait""",
)
def deploy() -> None:
    """Deploy the project, and wait until all services are ready.

    The files are rendered, the changes are listed, and they are applied if you agree. If a service does not become
    ready, the previous deployment is restored.
    """


def _plan_options(command: Command) -> Command:
    for option in (
        click.option("--yes", is_flag=True, help="Apply without asking."),
        click.option("--plan", "only_plan", is_flag=True, help="Show what would change and stop; exit code 0."),
    ):
        command = option(command)
    return command


def _timeout_option(seconds: float, text: str) -> Callable[[Command], Command]:
    kind = click.FloatRange(0, min_open=True)
    return click.option("--timeout", type=kind, default=seconds, show_default=True, metavar="SECONDS", help=text)


@deploy.command(
    epilog="""\b
Examples:
  estiba deploy kubernetes staging            render, show what changes, ask, apply, wait
  estiba deploy kubernetes staging --plan     only show it; no file is written
  estiba deploy kubernetes production --yes --context live
  estiba deploy kubernetes production --pin images.json     name images by the digests that were pushed
  estiba deploy kubernetes production --no-render           apply manifests of another commit or pipeline unchanged
\b
Exit codes: 0 all is ready; 1 a workload did not become ready, and the previous deployment was restored; 4 kubectl,
an overlay or a secret is missing; 5 the manifests have digests that the project's images no longer have;
6 no cluster answers."""
)
@project_option
@click.argument("overlay")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the manifests; by default deploy/kubernetes.",
)
@click.option(
    "--pin",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Name images by their digests, read from FILE: the output of `estiba build --push --json`.",
)
@click.option("--no-render", is_flag=True, help="Apply the manifests as they are on disk.")
@click.option("--context", default="", metavar="NAME", help="Context of kubectl; by default the current one.")
@_plan_options
@click.option("--details", is_flag=True, help="Show each change line by line.")
@_timeout_option(600.0, "For each workload.")
def kubernetes(
    project: Path | None, overlay: str, context: str, timeout: float, only_plan: bool, **options: Any
) -> None:
    """Deploy an overlay to the cluster that kubectl is configured for, and wait until all of it is ready.

    OVERLAY is dev, staging, production or another folder of `overlays`: the manifests are rendered first, as
    `estiba kubernetes` does. The path of any other kustomization is applied as it is.
    """
    from dataclasses import replace

    from estiba.deploy.kubernetes.cluster import Cluster

    target = _kubernetes_target(
        project, overlay, options["output"], pin=options["pin"], render=not options["no_render"]
    )
    target = replace(target, cluster=Cluster(context), timeout_seconds=timeout)
    _deploy(target, only_plan=only_plan, yes=options["yes"], details=options["details"])


def _kubernetes_target(
    project: Path | None, overlay: str, output: Path | None, *, pin: Path | None, render: bool
) -> KubernetesTarget:
    import estiba.project
    from estiba.cli.kubernetes import FOLDER, rendered
    from estiba.core.errors import NotFound
    from estiba.deploy.kubernetes.cluster import Cluster
    from estiba.deploy.kubernetes.deploy import KubernetesTarget

    try:
        manifests = output or estiba.project.find(project).parent / FOLDER
    except NotFound:
        if "/" not in overlay:
            raise
        return KubernetesTarget(Cluster(), Path(overlay))  # a kustomization can be applied where there is no project
    if "/" in overlay:
        path, overlays = Path(overlay).resolve(), manifests.resolve() / "overlays"
        if not path.is_relative_to(overlays):
            return KubernetesTarget(Cluster(), Path(overlay))
        overlay = path.relative_to(overlays).as_posix()
    files = rendered(project, pin, manifests)[1] if render else None
    return KubernetesTarget(Cluster(), manifests, f"overlays/{overlay}", files)


@deploy.command(
    name="compose",
    epilog="""\b
Examples:
  estiba deploy compose                          render, show what changes, ask, apply, wait
  estiba deploy compose --plan                   only show it; no file is written
  estiba deploy compose --yes --profile monitoring
\b
Exit codes: 0 all is healthy; 1 a service did not become healthy, and the previous deployment was restored; 4 docker,
an image or a secret is missing; 5 a port is taken; 6 no Docker answers.""",
)
@project_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="By default deploy/compose.")
@completion.profile_option("Also deploy the services of this profile.")
@_plan_options
@_timeout_option(300.0, "Time limit for all services to become healthy.")
def on_compose(
    project: Path | None, output: Path | None, profiles: tuple[str, ...], timeout: float, only_plan: bool, yes: bool
) -> None:
    """Deploy the project to this machine's Docker with Compose, and wait until all services are healthy.

    The files of `estiba compose` are rendered first. With `front` in [compose], model servers are replaced without
    losing a request.
    """
    import estiba.project
    from estiba import planning
    from estiba.cli.compose import FOLDER, show_key
    from estiba.deploy.compose import render, reverse_proxy
    from estiba.deploy.compose.deploy import ComposeTarget
    from estiba.deploy.compose.project import ComposeProject

    loaded = estiba.project.load(project)
    plan = planning.lower_for_compose(loaded)
    files = render.render(plan, loaded.compose)
    behind_proxy = reverse_proxy.behind(plan) if loaded.compose.front else ()
    folder = (output or loaded.folder / FOLDER).absolute()
    target = ComposeTarget(
        ComposeProject(folder, profiles, timeout), plan, files, frozenset(service.name for service in behind_proxy)
    )
    _deploy(target, only_plan=only_plan, yes=yes)
    if plan.policies.needs_keys and not only_plan:
        show_key(plan, folder)


def _deploy(target: DeployTarget[P], *, only_plan: bool, yes: bool, details: bool = False) -> None:
    """Show a plan and, when the user agrees, apply it."""
    from estiba.deploy import target as deploying

    proposal = target.propose()
    changes = _show(proposal, target.parts, details=details)
    if only_plan:
        return
    if changes and not yes:
        _confirm()
    deploying.deploy(target, proposal, terminal.line)


def _show(proposal: Proposal, parts: str, *, details: bool) -> int:
    """Print a plan; return the number of changes."""
    changes = [change for change in proposal.changes if change.action != "same"]
    for change in changes:
        terminal.line(f"{change.action:8} {change.title}", fg="green" if change.action == "new" else "yellow")
        if details and change.details:
            terminal.line(change.details)
    for note in proposal.notes:
        terminal.line(note, fg="green")
    terminal.line(f"{len(changes)} of {len(proposal.changes)} {parts} change.", bold=True)
    for warning in proposal.warnings:
        terminal.warning(warning)
    return len(changes)


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "There is no terminal to ask for confirmation: pass --yes to apply, or --plan to only show the changes."
        )
    click.confirm("Apply?", abort=True)
