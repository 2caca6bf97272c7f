"""Building: the images of a plan, each assembled, built, weighed, verified by running it, and only then named."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from estiba.core.errors import BadProject, EstibaError, NotFound
from estiba.core.stores.disk import explained, place, temporary, write_whole
from estiba.core.suggest import did_you_mean
from estiba.deploy.image import build_context, container_engine, oci_builder, oci_layout, push, sbom, size_report
from estiba.deploy.image.build_context import Context
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.image.size_report import Weight
from estiba.deploy.image.verify import Verified, verify
from estiba.deploy.plan.plan import Plan, Service

KEPT = ".estiba/images"
"""Where, below the project's folder, what was built is described: a folder for each service."""

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Wish:
    """How images are to be built.

    Args:
        style: instead of what the project says. engine: docker, podman or buildah; by default the first that works.
        verify: run each image before it gets its name. push: send it to the registry that its name says.
    """

    style: str | None = None
    engine: str | None = None
    verify: bool = True
    push: bool = False


@dataclass(frozen=True)
class Built:
    """An image that has its name.

    Args:
        digest: of the image, with its algorithm. seconds: from nothing to the name.
        verified: what was seen of it; None where it was not run, and `unverified` says why.
        folder: with its Dockerfile, lock, bills of materials and provenance.
        pushed: its name with the digest that the registry has it by; empty where it was not pushed.
    """

    service: str
    image: str
    digest: str
    engine: str
    weight: Weight
    verified: Verified | None
    unverified: str
    seconds: float
    folder: Path
    pushed: str = ""


Event = Callable[[str, str, str], None]
"""Is told the service, what is being done for it, and one line of detail or nothing."""


def chosen(plan: Plan, names: Sequence[str], profiles: Sequence[str] = ()) -> list[Service]:
    """The services whose images are to be built: those named, or all that are built without a profile.

    Args:
        profiles: whose services come too.

    Raises:
        BadProject: a name that is no service of the plan, or one whose image is not built.
    """
    by_name = {service.name: service for service in plan.services}
    for name in names:
        if name not in by_name:
            meant = did_you_mean(name, by_name)
            raise BadProject(f"There is no service {name!r}{meant}", hint=f"Services: {', '.join(by_name)}.")
        if by_name[name].build is None:
            hint = "Estiba builds images of services without `image`."
            raise BadProject(f"{name} runs {by_name[name].image}, which is not built here.", hint=hint)
    if names:
        return [by_name[name] for name in names]
    taken = {"", *profiles}
    profiles_of = {service.name: plan.profiles_of(service) or ("",) for service in plan.services}
    found = [service for service in plan.services if service.build is not None and taken & {*profiles_of[service.name]}]
    if not found:
        hint = "Images are made of models, and of services that have a command and no image."
        raise BadProject(f"{plan.project} has nothing to build an image of.", hint=hint)
    return found


def prepared(plan: Plan, services: Sequence[Service], wish: Wish, on_event: Event) -> Iterator[Context]:
    """What the images of services are built of, one after the other, each in a folder that is gone after its turn."""
    for service in services:
        with assembled(plan, service, wish.style, on_event) as made:
            yield made


@contextmanager
def assembled(plan: Plan, service: Service, style: str | None, on_event: Event) -> Iterator[Context]:
    """The context of a service's image in a temporary folder."""
    on_event(service.name, "gathering", "")
    with temporary("build") as folder:
        target = folder / service.name
        target.mkdir()
        yield build_context.assemble(plan, service, target, style=style)


def build_one(engine: Engine, made: Context, project: Path, wish: Wish, on_event: Event) -> Built:
    """Builds the image of a context; it gets its name when it has proven itself.

    Args:
        project: folder below which it is described.

    Raises:
        EstibaError: a step failed; no image got the name then, and none is left.
    """
    recipe, began = made.recipe, time.monotonic()
    on_event(recipe.service, "building", f"{recipe.style} with {engine.program}")
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        on_event(recipe.service, "", line)

    identity = engine.build(made.folder, network=bool(recipe.packages), on_line=hear)
    try:
        on_event(recipe.service, "weighing", "")
        saved = made.folder.parent / "image.tar"
        engine.save(identity, saved)
        contents = size_report.archive(saved)
        saved.unlink()
        weight = size_report.weigh(contents)
        size_report.check_budget(weight, recipe.budget, recipe.image)
        verified, unverified = None, _why_not_run(engine, wish)
        if not unverified:
            on_event(recipe.service, "running", "read-only, no privileges, any user")
            verified = verify(engine, identity, recipe, made.models)
        origin = sbom.base_image(recipe.base, _pulled(recipe.base, said) or engine.digest(recipe.base))
        folder = _describe(made, project, contents, sbom.Made(identity, engine.program, origin))
        engine.tag(identity, recipe.image)
    except BaseException:
        engine.remove(identity)
        raise
    seconds = time.monotonic() - began
    built = Built(recipe.service, recipe.image, identity, engine.program, weight, verified, unverified, seconds, folder)
    if wish.push:
        return _pushed(built, lambda on_line: push.push(engine, built.image, on_line), on_event)
    return built


def _pulled(base: str, said: Iterable[str]) -> str:
    """What a builder says it resolved the base image to, as in `FROM docker.io/library/python:3.12-slim@sha256:...`."""
    pattern = re.compile(rf"\bFROM \S*{re.escape(base)}@(sha256:[0-9a-f]{{64}})")
    return next((found[1] for line in said if (found := pattern.search(line))), "")


def _pushed(built: Built, send: Callable[[Callable[[str], None]], str], on_event: Event) -> Built:
    """Sends an image; its provenance is from then on that of the digest which the registry has it by."""
    on_event(built.service, "pushing", built.image)
    name = send(lambda line: on_event(built.service, "", line))
    path = built.folder / PROVENANCE
    with explained("read", path):
        text = sbom.pushed(path.read_text(), name.rpartition(":")[2])
    write_whole(path, text.encode())
    return replace(built, pushed=name)


def write_layout(made: Context, target: Path, base: Path | None, wish: Wish, project: Path, on_event: Event) -> Built:
    """Writes the image of a context as an OCI layout, without a container engine; where one works, it is run there.

    Raises:
        EstibaError: see `daemonless.write`; nothing is at `target` then.
    """
    recipe, began = made.recipe, time.monotonic()
    on_event(recipe.service, "writing", f"{recipe.style}, {target}")
    digest = oci_builder.write(made, target, base)
    try:
        contents = size_report.layout(target)
        weight = size_report.weigh(contents)
        size_report.check_budget(weight, recipe.budget, recipe.image)
        verified, unverified = _run_layout(made, target, wish, on_event)
        origin = (
            sbom.this_python() if base is None else sbom.base_image(recipe.base, oci_layout.base_image(base).digest)
        )
        folder = _describe(made, project, contents, sbom.Made(digest, "estiba", origin))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    seconds = time.monotonic() - began
    built = Built(recipe.service, recipe.image, digest, "estiba", weight, verified, unverified, seconds, folder)
    if wish.push:
        return _pushed(built, lambda on_line: push.push_layout(target, built.image, on_line), on_event)
    return built


def _run_layout(made: Context, layout: Path, wish: Wish, on_event: Event) -> tuple[Verified | None, str]:
    if not wish.verify:
        return None, "not asked for"
    try:
        engine = container_engine.find(wish.engine)
    except NotFound:
        return None, "no container engine works here to run it"
    if reason := _why_not_run(engine, wish):
        return None, reason
    on_event(made.recipe.service, "running", "read-only, no privileges, any user")
    name = f"estiba-verify/{made.recipe.service}:{made.recipe.image.rpartition(':')[2]}"
    oci_builder.load(engine, layout, name)
    try:
        return verify(engine, name, made.recipe, made.models), ""
    finally:
        engine.remove(name)


def _why_not_run(engine: Engine, wish: Wish) -> str:
    if not wish.verify:
        return "not asked for"
    return "" if engine.can_run else f"{engine.program} cannot run it as a deployment would"


def _describe(made: Context, project: Path, contents: size_report.Contents, how: sbom.Made) -> Path:
    """Writes what an image was made of beside the project; replaces what was there."""
    found = sbom.parts(made, contents)
    recipe = made.recipe
    texts = {
        "sbom.cdx.json": sbom.cyclonedx(recipe.image, found),
        "sbom.spdx.json": sbom.spdx(recipe.image, found),
        PROVENANCE: sbom.provenance(made, how),
        "weight.json": msgspec.json.format(msgspec.json.encode(size_report.weigh(contents)), indent=2).decode() + "\n",
    }
    target = project / KEPT / recipe.service

    def fill(folder: Path) -> None:
        for name in ("Dockerfile", ".dockerignore", "requirements.txt", build_context.RECIPE):
            shutil.copyfile(made.folder / name, folder / name)
        for name, text in texts.items():
            (folder / name).write_text(text)

    with explained("replace", target):
        shutil.rmtree(target, ignore_errors=True)
    if not place(target, fill):
        raise EstibaError(f"Somebody else is building {recipe.service} too: {target} appeared meanwhile.")
    return target
