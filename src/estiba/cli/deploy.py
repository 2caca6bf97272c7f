"""estiba deploy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli import terminal
from estiba.cli.common_options import project_option

if TYPE_CHECKING:
    from estiba.deploy.compose.deploy import Change
    from estiba.deploy.kubernetes.deploy import Proposal


@click.group(
    epilog="""\b
Examples:
  estiba deploy compose --plan        what would change on this machine's Docker
  estiba deploy kubernetes staging    show what changes in the cluster, ask, apply, wait"""
)
def deploy() -> None:
    """Bring what was written to where it runs, and wait until it is ready.

    A plan is shown and applied when you agree. What does not become ready is taken back.
    """


@deploy.command(
    epilog="""\b
Examples:
  estiba deploy kubernetes staging            show what changes, ask, apply, wait
  estiba deploy kubernetes staging --plan     only show it
  estiba deploy kubernetes production --yes --context live
\b
Exit codes: 0 all is ready; 1 it did not get ready, and what was there before was applied again; 4 something is
missing (kubectl, manifests, a secret); 6 no cluster answers."""
)
@project_option
@click.argument("overlay")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Where `estiba kubernetes` wrote.")
@click.option("--context", default="", metavar="NAME", help="Of kubectl's settings; by default the current one.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would change and stop; exit code 0.")
@click.option("--details", is_flag=True, help="Show each change line by line.")
@click.option("--yes", is_flag=True, help="Do not ask before applying.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="For each workload.",
)
def kubernetes(project: Path | None, overlay: str, output: Path | None, context: str, **flags: bool | float) -> None:
    """Apply an overlay to the cluster that kubectl knows, and wait until all of it is ready.

    OVERLAY is dev, staging, production or another folder of overlays, or the path of any kustomization.
    """
    import estiba.project
    from estiba.cli.kubernetes import FOLDER
    from estiba.deploy.kubernetes import deploy as rollout

    if "/" in overlay:
        folder = Path(overlay)
    else:
        folder = (output or estiba.project.load(project).folder / FOLDER) / "overlays" / overlay
    target = rollout.Target(folder, context, flags["timeout"])
    proposal = rollout.propose(target)
    _show(proposal, details=bool(flags["details"]))
    if flags["only_plan"]:
        return
    if not flags["yes"] and not proposal.nothing:
        _confirm()
    rollout.carry_out(target, proposal, terminal.line)


def _show(proposal: Proposal, *, details: bool) -> None:
    for change in proposal.changes:
        if change.became == "same":
            continue
        terminal.line(
            f"{change.became:8} {change.kind} {change.name}", fg="green" if change.became == "new" else "yellow"
        )
        if details and change.difference:
            terminal.line(change.difference)
    same = sum(change.became == "same" for change in proposal.changes)
    terminal.line(f"{len(proposal.changes) - same} of {len(proposal.changes)} objects change.", bold=True)
    for name in proposal.missing:
        terminal.warning(f"secret {name} is not in the cluster yet")
    for name in proposal.abandoned:
        terminal.warning(f"{name} is in the cluster, but no longer in the manifests; nothing removes it")


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("There is nobody to ask: say --yes to apply, or --plan to stop here.")
    click.confirm("Apply?", abort=True)


@deploy.command(
    name="compose",
    epilog="""\b
Examples:
  estiba deploy compose                          show what changes, ask, apply, wait
  estiba deploy compose --plan                   only show it
  estiba deploy compose --yes --profile monitoring
\b
Exit codes: 0 all is healthy; 1 it did not become healthy, and what ran before was brought back; 4 something is
missing (docker, an image); 5 somebody else has a port; 6 no Docker answers.""",
)
@project_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="By default deploy/compose.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Also services of this profile.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would change and stop; exit code 0.")
@click.option("--yes", is_flag=True, help="Do not ask before applying.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="In which all must become healthy.",
)
def on_compose(project: Path | None, output: Path | None, profiles: tuple[str, ...], **flags: bool | float) -> None:
    """Bring the project to this machine's Docker with Compose, and wait until all of it is healthy.

    What `estiba compose` writes is written first. Where [compose] has a front, what serves models is replaced
    without losing a request.
    """
    import estiba.project
    from estiba import planning
    from estiba.cli.compose import FOLDER
    from estiba.deploy.compose import deploy as delivery
    from estiba.deploy.compose import render, reverse_proxy
    from estiba.deploy.compose.project import Stack
    from estiba.deploy.plan import secrets

    found = estiba.project.load(project)
    plan = planning.lower(found)
    files = render.render(plan, found.compose)
    rolling = frozenset(service.name for service in reverse_proxy.behind(plan)) if found.compose.front else frozenset()
    folder = (output or found.folder / FOLDER).absolute()
    stack = Stack(folder, profiles, rolling, float(flags["timeout"]))
    changes = delivery.propose(stack, files)
    _show_services(changes)
    if flags["only_plan"]:
        return
    if not flags["yes"] and any(change.became != "same" for change in changes):
        _confirm()
    secrets.hand_out(found.folder, plan.secrets, folder / "secrets", plan.given)
    delivery.carry_out(stack, files, changes, terminal.line)


def _show_services(changes: list[Change]) -> None:
    for change in changes:
        if change.became == "same":
            continue
        images = " -> ".join(dict.fromkeys(image for image in (change.before, change.after) if image))
        terminal.line(
            f"{change.became:8} {change.service}  {images}", fg="green" if change.became == "new" else "yellow"
        )
    same = sum(change.became == "same" for change in changes)
    terminal.line(f"{len(changes) - same} of {len(changes)} services change.", bold=True)
