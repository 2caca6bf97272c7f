"""estiba build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from estiba.cli import completion, terminal
from estiba.cli.common_options import json_option, project_option
from estiba.cli.progress import Steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from estiba.deploy.image.build import BuildOptions, Built, Event
    from estiba.deploy.image.build_context import BuildContext
    from estiba.deploy.image.size_report import Weight
    from estiba.deploy.image.verify import Verified
    from estiba.deploy.plan.plan import Plan, Service


@click.command(
    epilog="""\b
Examples:
  estiba build                       images of all models and applications
  estiba build models --print        print the Dockerfile, build nothing
  estiba build models --explain      list the size of each part, and what was left out
  estiba build models --style slim --builder podman
  estiba build models --oci layout   without Docker: an OCI layout
  estiba build --offline all.tar.gz  from an archive of `estiba export`
"""
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1, shell_complete=completion.services)
@project_option
@click.option("--print", "show", is_flag=True, help="Print the Dockerfile and stop.")
@click.option("--style", type=click.Choice(["slim", "scratch"]), help="Override the style in the project file.")
@completion.profile_option("Include services of this profile.")
@click.option(
    "--explain", is_flag=True, help="List the size of each part, and the files that were left out, with reasons."
)
@click.option("--no-verify", is_flag=True, help="Tag images without running them first.")
@click.option("--push", is_flag=True, help="Push the images to the registry that their names begin with.")
@click.option(
    "--builder",
    type=click.Choice(["docker", "podman", "buildah"]),
    help="Program that builds the images; by default the first that works on this machine.",
)
@click.option(
    "--oci", type=click.Path(path_type=Path), metavar="DIR", help="Write OCI layouts, without a container engine."
)
@click.option(
    "--base",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Base image for --oci, a file of `docker save`; without it, scratch images get Estiba's own Python.",
)
@click.option(
    "--offline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="ARCHIVE",
    help="Build from an archive of `estiba export`; needs neither the project nor a network.",
)
@json_option
def build(services: tuple[str, ...], project: Path | None, show: bool, as_json: bool, **options: Any) -> None:
    """Build container images of the project's services.

    Before an image is tagged, it runs read-only, without privileges and as an arbitrary user. It must become healthy,
    answer its models' golden rows as in training, end when it is stopped, and write nothing outside /tmp. The
    Dockerfile, lock file, bill of materials and provenance are written to .estiba/images/SERVICE.
    """
    request = _Request(services, project, **options)
    if request.base is not None and request.oci is None:
        raise click.UsageError("--base is for --oci: a container engine takes the base image from its registry.")
    if show:
        _print_dockerfiles(request)
        return
    images = []
    with Steps() as steps:
        for built in _from_archive(request, steps.tell) if request.offline else _from_project(request, steps.tell):
            images.append(built)
            if not as_json:
                _print_built(built)
                if request.explain:
                    explain(built.weight)
    if as_json:
        terminal.json([_facts(built) for built in images])


@dataclass(frozen=True)
class _Request:
    """Arguments and options of one `estiba build`."""

    services: tuple[str, ...]
    project: Path | None
    style: str | None
    profiles: tuple[str, ...]
    explain: bool
    no_verify: bool
    push: bool
    builder: str | None
    oci: Path | None
    base: Path | None
    offline: Path | None

    @property
    def build_options(self) -> BuildOptions:
        from estiba.deploy.image.build import BuildOptions

        return BuildOptions(self.style, self.builder, not self.no_verify, self.push)

    def layout(self, service: str, count: int) -> Path:
        """The folder of a service's OCI layout: --oci itself for a single image, else a folder below it."""
        assert self.oci is not None
        return self.oci if count == 1 else self.oci / service


def planned(project: Path | None, services: tuple[str, ...]) -> Plan:
    """The plan of a project; models need not be trained if only images for training are asked for."""
    import estiba.project
    from estiba.planning import lower, lower_applications

    loaded = estiba.project.load(project)
    kinds = {loaded.services[name].kind if name in loaded.services else "" for name in services}
    return lower_applications(loaded) if kinds == {"training"} else lower(loaded, canaries=True)


def _print_dockerfiles(request: _Request) -> None:
    from estiba.deploy.image.build import select
    from estiba.deploy.image.dockerfile import render
    from estiba.deploy.image.spec import image_spec

    plan = planned(request.project, request.services)
    selected = select(plan, request.services, request.profiles)
    click.echo("\n".join(render(image_spec(plan, service, request.style)) for service in selected))


def _from_project(request: _Request, tell: Event) -> Iterator[Built]:
    from estiba.deploy.image import push
    from estiba.deploy.image.build import build_each, build_one, select, temporary_context, write_layout
    from estiba.deploy.image.container_engine import find
    from estiba.deploy.image.spec import image_spec

    plan, options = planned(request.project, request.services), request.build_options
    selected = select(plan, request.services, request.profiles)
    if options.push:
        names = [image_spec(plan, service, options.style).image for service in selected]
        push.check(names, layout=request.oci is not None)
    engine = find(options.engine) if request.oci is None else None

    def build(service: Service) -> Built:
        with temporary_context(plan, service, options.style, tell) as context:
            if engine is not None:
                return build_one(engine, context, plan.folder, options, tell)
            layout = request.layout(service.name, len(selected))
            return write_layout(context, layout, request.base, options, plan.folder, tell)

    yield from build_each(selected, build, tell)


def _from_archive(request: _Request, tell: Event) -> Iterator[Built]:
    from estiba.deploy.image import bundle, push
    from estiba.deploy.image.build import build_one, write_layout
    from estiba.deploy.image.container_engine import find

    assert request.offline is not None
    options = request.build_options
    with bundle.opened(request.offline) as archive:
        selected = _in_archive(request.services, archive.contexts)
        if options.push:
            push.check([context.spec.image for context in selected], layout=request.oci is not None)
        engine = find(options.engine) if request.oci is None else None
        for context in selected:
            base = context.spec.contents.base
            if engine is not None:
                bundle.provide_base(engine, archive, base, lambda text: tell("base", text, ""))
                yield build_one(engine, context, Path.cwd(), options, tell)
                continue
            layout = request.layout(context.spec.service, len(selected))
            saved = request.base or archive.bases.get(base)
            yield write_layout(context, layout, saved, options, Path.cwd(), tell)


def _in_archive(names: tuple[str, ...], contexts: Sequence[BuildContext]) -> list[BuildContext]:
    """The contexts of the named services; of all, without a name."""
    from estiba.core.errors import NotFound

    known = {context.spec.service: context for context in contexts}
    for name in names:
        if name not in known:
            raise NotFound(f"The archive has no service {name!r}.", hint=f"It has: {', '.join(known)}.")
    return [known[name] for name in names or known]


def _print_built(built: Built) -> None:
    layers = len(built.weight.layers)
    terminal.line(
        f"{built.image}  {built.weight.total / 1e6:.1f} MB in {layers} layers, {built.seconds:.0f} s", bold=True
    )
    if built.verified is None:
        terminal.warning(f"  not verified: {built.unverified}")
    else:
        _print_verified(built.verified)
    if built.pushed:
        terminal.line(f"  pushed: {built.pushed}")


def _print_verified(seen: Verified) -> None:
    healthy = "needs other services to become healthy" if seen.start is None else f"healthy after {seen.start:.1f} s"
    if seen.memory == 0:
        terminal.line(f"  verified: runs read-only as any user, {seen.start or 0:.1f} s")
        return
    ended = "" if seen.stop is None else f", ended in {seen.stop:.1f} s"
    rows = f", {seen.rows} golden rows equal over HTTP" if seen.rows else ""
    terminal.line(f"  verified: {healthy}{rows}, {seen.memory / 1e6:.0f} MB of memory{ended}")


def explain(weight: Weight) -> None:
    """Print the parts of an image, the largest first, and what was left out."""
    shown = [(name, size) for name, size in weight.packages.items() if size >= 50_000]
    rest = weight.bytes - sum(size for _, size in shown)
    rows = [(name, _mb(size)) for name, size in [*shown, ("smaller parts", rest), ("total", weight.bytes)]]
    terminal.line()
    terminal.table(("part", "MB"), rows, right=["MB"])
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
