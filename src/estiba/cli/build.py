"""estiba build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from estiba.cli import terminal
from estiba.cli.common_options import json_option, project_option
from estiba.cli.progress import Steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from estiba.deploy.image.build import Built, Event, Wish
    from estiba.deploy.image.size_report import Weight
    from estiba.deploy.image.verify import Verified
    from estiba.deploy.plan.plan import Plan


@click.command(
    epilog="""\b
Examples:
  estiba build                       images of all models and applications
  estiba build models --print        the Dockerfile, and nothing is built
  estiba build models --explain      what weighs how much, and what was left out
  estiba build models --style slim --builder podman
  estiba build models --oci layout   without Docker: an OCI layout
  estiba build --offline all.tar.gz  of what `estiba export` wrote
"""
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
@project_option
@click.option("--print", "show", is_flag=True, help="Print the Dockerfile and stop.")
@click.option("--style", type=click.Choice(["slim", "scratch"]), help="Instead of what the project says.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Also services of this profile.")
@click.option("--explain", is_flag=True, help="Say what each MB is of, and what was left out and why.")
@click.option("--no-verify", is_flag=True, help="Do not run the image before it gets its name.")
@click.option("--push", is_flag=True, help="Send it to the registry that its name says.")
@click.option(
    "--builder", type=click.Choice(["docker", "podman", "buildah"]), help="By default the first that works here."
)
@click.option("--oci", type=click.Path(path_type=Path), metavar="DIR", help="Write OCI layouts, without any engine.")
@click.option(
    "--base",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="For --oci: the base image as `docker save` writes it; by default scratch images take Python from here.",
)
@click.option(
    "--offline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="ARCHIVE",
    help="Use only what `estiba export` wrote; no project and no network is needed.",
)
@json_option
def build(services: tuple[str, ...], project: Path | None, show: bool, as_json: bool, **wish: Any) -> None:
    """Build container images of the project's services.

    Each image is run read-only, without privileges and as any user before it gets its name: it must become healthy,
    answer its models' golden rows as in training, end when told to, and write nothing outside /tmp. What it was made
    of is described in .estiba/images/SERVICE: Dockerfile, lock, bills of materials, provenance.
    """
    from estiba.deploy.image.build import Wish

    _check(wish)
    options = Wish(wish["style"], wish["builder"], not wish["no_verify"], wish["push"])
    if show:
        _show(project, services, wish)
        return
    every = []
    with Steps() as steps:
        if wish["offline"] is not None:
            found = _offline(services, wish, options, steps.tell)
        else:
            found = _from_project(planned(project, services), services, wish, options, steps.tell)
        for built in found:
            every.append(built)
            if not as_json:
                _say(built)
                if wish["explain"]:
                    explain(built.weight)
    if as_json:
        terminal.json([_facts(built) for built in every])


def _check(wish: dict[str, Any]) -> None:
    """Refuses options that the others leave without effect."""
    if wish["base"] is not None and wish["oci"] is None:
        raise click.UsageError("--base is for --oci: an engine takes the base image from its registry.")


def planned(project: Path | None, services: tuple[str, ...]) -> Plan:
    """The plan of a project; models need not be trained where only images for training are asked for."""
    import estiba.project
    from estiba.planning import lower, lower_applications

    found = estiba.project.load(project)
    asked = [found.services[name].kind if name in found.services else "" for name in services]
    return lower_applications(found) if asked and set(asked) == {"training"} else lower(found, canaries=True)


def _show(project: Path | None, services: tuple[str, ...], wish: dict[str, Any]) -> None:
    from estiba.deploy.image import build as building
    from estiba.deploy.image import dockerfile
    from estiba.deploy.image import spec as recipe

    plan = planned(project, services)
    found = building.chosen(plan, services, wish["profiles"])
    click.echo("\n".join(dockerfile.render(recipe.recipe(plan, service, wish["style"])) for service in found))


def _from_project(
    plan: Plan, services: tuple[str, ...], wish: dict[str, Any], options: Wish, tell: Event
) -> Iterator[Built]:
    from estiba.deploy.image import build as building
    from estiba.deploy.image import container_engine, push
    from estiba.deploy.image import spec as recipe

    found = building.chosen(plan, services, wish["profiles"])
    if options.push:
        push.check([recipe.recipe(plan, service, options.style).image for service in found], layout=bool(wish["oci"]))
    if wish["oci"] is None:
        engine = container_engine.find(options.engine)
        for made in building.prepared(plan, found, options, tell):
            yield building.build_one(engine, made, plan.folder, options, tell)
        return
    for made in building.prepared(plan, found, options, tell):
        place = wish["oci"] if len(found) == 1 else wish["oci"] / made.recipe.service
        yield building.write_layout(made, place, wish["base"], options, plan.folder, tell)


def _offline(services: tuple[str, ...], wish: dict[str, Any], options: Wish, tell: Event) -> Iterator[Built]:
    from estiba.core.errors import NotFound
    from estiba.deploy.image import build as building
    from estiba.deploy.image import bundle, container_engine, push

    with bundle.opened(wish["offline"]) as archive:
        known = {made.recipe.service: made for made in archive.contexts}
        for name in services:
            if name not in known:
                raise NotFound(f"The archive has no service {name!r}.", hint=f"It has: {', '.join(known)}.")
        found = [known[name] for name in services or known]
        if options.push:
            push.check([made.recipe.image for made in found], layout=bool(wish["oci"]))
        engine = container_engine.find(options.engine) if wish["oci"] is None else None
        for made in found:
            recipe = made.recipe
            if engine is not None:
                bundle.provide_base(engine, archive, recipe.base, lambda text: tell("base", text, ""))
                yield building.build_one(engine, made, Path.cwd(), options, tell)
                continue
            place = wish["oci"] if len(found) == 1 else wish["oci"] / recipe.service
            base = wish["base"] or archive.bases.get(recipe.base)
            yield building.write_layout(made, place, base, options, Path.cwd(), tell)


def _say(built: Built) -> None:
    layers = len(built.weight.layers)
    terminal.line(
        f"{built.image}  {built.weight.total / 1e6:.1f} MB in {layers} layers, {built.seconds:.0f} s", bold=True
    )
    if built.verified is None:
        terminal.warning(f"  not verified: {built.unverified}")
    else:
        _say_verified(built.verified)
    if built.pushed:
        terminal.line(f"  pushed: {built.pushed}")


def _say_verified(seen: Verified) -> None:
    healthy = "needs other services to be healthy" if seen.start is None else f"healthy after {seen.start:.1f} s"
    if seen.memory == 0:
        terminal.line(f"  verified: runs read-only as any user, {seen.start or 0:.1f} s")
        return
    ended = "" if seen.stop is None else f", ended in {seen.stop:.1f} s"
    rows = f", {seen.rows} golden rows equal over HTTP" if seen.rows else ""
    terminal.line(f"  verified: {healthy}{rows}, {seen.memory / 1e6:.0f} MB of memory{ended}")


def explain(weight: Weight) -> None:
    """Prints what an image consists of, heaviest first, and what was left out."""
    shown = [(name, size) for name, size in weight.packages.items() if size >= 50_000]
    rest = weight.bytes - sum(size for _, size in shown)
    rows = [(name, _mb(size)) for name, size in [*shown, ("all that is smaller", rest), ("together", weight.bytes)]]
    terminal.line()
    terminal.table(("what", "MB"), rows, right=["MB"])
    terminal.line()
    gone = [entry for entry in weight.left_out if entry.bytes >= 50_000]
    left = [(entry.package, _mb(entry.bytes), entry.reason) for entry in gone]
    terminal.table(("left out of", "MB", "because"), left, right=["MB"])


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _facts(built: Built) -> dict[str, Any]:
    return {
        "service": built.service,
        "image": built.image,
        "digest": built.digest,
        "pushed": built.pushed or None,
        "builder": built.engine,
        "bytes": built.weight.total,
        "layers": built.weight.layers,
        "packages": built.weight.packages,
        "left_out": [entry._asdict() for entry in built.weight.left_out],
        "verified": built.verified,
        "unverified": built.unverified,
        "seconds": round(built.seconds, 2),
        "folder": str(built.folder),
    }
