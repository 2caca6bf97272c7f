"""Build images of a plan: assemble, build, measure and verify each one, and only then give it its name."""

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
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.image.size_report import Weight
from estiba.deploy.image.verify import NeedsOthers, Verified, verify
from estiba.deploy.plan.plan import Plan, Service

KEPT = ".estiba/images"
"""The folder, below the project's, with a description of each image that was built: a folder for each service."""

PROVENANCE = "provenance.json"

_VERIFYING = "read-only, no privileges, any user"


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    Args:
        style: instead of the project's. engine: docker, podman or buildah; by default the first that works.
        verify: run each image before it is tagged. push: send it to the registry that its name begins with.
    """

    style: str | None = None
    engine: str | None = None
    verify: bool = True
    push: bool = False


@dataclass(frozen=True)
class Built:
    """An image that has its name.

    Args:
        digest: of the image, with its algorithm. seconds: that the build took, verification included.
        verified: the result of verification; None where the image was not run, for the reason in `unverified`.
        folder: with its Dockerfile, lock, bill of materials and provenance.
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
"""A callback that gets the service, the step, and one line of detail or nothing."""


def select(plan: Plan, names: Sequence[str], profiles: Sequence[str] = ()) -> list[Service]:
    """The services to build images of: those named, or all that are built and have no profile.

    Args:
        profiles: their services are selected too.

    Raises:
        BadProject: a name that is no service of the plan, or one whose image is not built.
    """
    by_name = {service.name: service for service in plan.services}
    for name in names:
        if name not in by_name:
            message = f"There is no service {name!r}{did_you_mean(name, by_name)}"
            raise BadProject(message, hint=f"Services: {', '.join(by_name)}.")
        if by_name[name].build is None:
            hint = "Estiba builds images of services without `image`."
            raise BadProject(f"{name} uses the image {by_name[name].image}, so there is nothing to build.", hint=hint)
    if names:
        return [by_name[name] for name in names]
    active = {"", *profiles}
    selected = [
        service
        for service in plan.services
        if service.build is not None and active & {*(plan.profiles_of(service) or ("",))}
    ]
    if not selected:
        hint = "Images are built for models, and for services that have a command and no image."
        raise BadProject(f"{plan.project} has no service that needs an image.", hint=hint)
    return selected


@contextmanager
def temporary_context(plan: Plan, service: Service, style: str | None, on_event: Event) -> Iterator[BuildContext]:
    """Assemble the build context of a service in a temporary folder."""
    on_event(service.name, "gathering", "")
    with temporary("build") as folder:
        target = folder / service.name
        target.mkdir()
        yield build_context.assemble(plan, service, target, style=style)


def build_each(services: Sequence[Service], build: Callable[[Service], Built], on_event: Event) -> Iterator[Built]:
    """Yield the image of each service; one that cannot be built does not keep the others from it.

    Raises:
        EstibaError: some could not be built, after all others have been.
    """
    failures: dict[str, EstibaError] = {}
    for service in services:
        try:
            built = build(service)
        except EstibaError as error:
            failures.setdefault(error.message, error)
            if len(services) > 1:
                on_event(service.name, "failed", error.message.partition("\n")[0])
        else:
            yield built
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        first = next(iter(failures.values()))
        summary = EstibaError("\n\n".join(failures), hint=first.hint)
        summary.exit_code = first.exit_code
        raise summary


def build_one(engine: Engine, context: BuildContext, project: Path, options: BuildOptions, on_event: Event) -> Built:
    """Build the image of a context, measure and verify it, and then give it its name.

    Args:
        project: the folder below which it is described.

    Raises:
        EstibaError: a step failed; no image got the name then, and none is left.
    """
    spec, began = context.spec, time.monotonic()
    on_event(spec.service, "building", f"{spec.style} with {engine.program}")
    output: list[str] = []

    def on_line(line: str) -> None:
        output.append(line)
        on_event(spec.service, "", line)

    identity = engine.build(context.folder, network=bool(spec.contents.packages), on_line=on_line)
    try:
        on_event(spec.service, "weighing", "")
        contents = _read_saved(engine, identity, context.folder.parent / "image.tar")
        weight = size_report.weigh(contents)
        size_report.check_budget(weight, spec.budget, spec.image)
        verified, unverified = None, _reason_not_to_run(engine, options)
        if not unverified:
            verified, unverified = _verify(engine, identity, context, on_event)
        base = spec.contents.base
        origin = sbom.base_image(base, _resolved_digest(base, output) or engine.digest(base))
        folder = _describe(context, project, contents, sbom.BuildRecord(identity, engine.program, origin))
        engine.tag(identity, spec.image)
    except BaseException:
        engine.remove(identity)
        raise
    seconds = time.monotonic() - began
    built = Built(spec.service, spec.image, identity, engine.program, weight, verified, unverified, seconds, folder)
    if options.push:
        return _push(built, lambda on_line: push.push(engine, built.image, on_line), on_event)
    return built


def _read_saved(engine: Engine, identity: str, path: Path) -> size_report.Contents:
    engine.save(identity, path)
    contents = size_report.archive(path)
    path.unlink()
    return contents


def _resolved_digest(base: str, output: Iterable[str]) -> str:
    """The digest of the base image in the builder's output: `FROM docker.io/library/python:3.12-slim@sha256:...`."""
    pattern = re.compile(rf"\bFROM \S*{re.escape(base)}@(sha256:[0-9a-f]{{64}})")
    return next((match[1] for line in output if (match := pattern.search(line))), "")


def _push(built: Built, send: Callable[[Callable[[str], None]], str], on_event: Event) -> Built:
    """Push an image, and write the digest that the registry has it by into its provenance."""
    on_event(built.service, "pushing", built.image)
    name = send(lambda line: on_event(built.service, "", line))
    path = built.folder / PROVENANCE
    with explained("read", path):
        text = sbom.pushed(path.read_text(), name.rpartition(":")[2])
    write_whole(path, text.encode())
    return replace(built, pushed=name)


def write_layout(
    context: BuildContext, target: Path, base: Path | None, options: BuildOptions, project: Path, on_event: Event
) -> Built:
    """Write the image of a context as an OCI layout, without a container engine; if one works, verify the image there.

    Raises:
        EstibaError: see `oci_builder.write`; nothing is at `target` then.
    """
    spec, began = context.spec, time.monotonic()
    on_event(spec.service, "writing", f"{spec.style}, {target}")
    digest = oci_builder.write(context, target, base)
    try:
        contents = size_report.layout(target)
        weight = size_report.weigh(contents)
        size_report.check_budget(weight, spec.budget, spec.image)
        verified, unverified = _verify_layout(context, target, options, on_event)
        origin = sbom.this_python()
        if base is not None:
            origin = sbom.base_image(spec.contents.base, oci_layout.base_image(base).digest)
        folder = _describe(context, project, contents, sbom.BuildRecord(digest, "estiba", origin))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    seconds = time.monotonic() - began
    built = Built(spec.service, spec.image, digest, "estiba", weight, verified, unverified, seconds, folder)
    if options.push:
        return _push(built, lambda on_line: push.push_layout(target, built.image, on_line), on_event)
    return built


def _verify_layout(
    context: BuildContext, layout: Path, options: BuildOptions, on_event: Event
) -> tuple[Verified | None, str]:
    """Load a layout into a container engine under a temporary name and verify it; else the reason why not."""
    if not options.verify:
        return None, "not asked for"
    try:
        engine = container_engine.find(options.engine)
    except NotFound:
        return None, "no container engine works here to run it"
    if reason := _reason_not_to_run(engine, options):
        return None, reason
    spec = context.spec
    name = f"estiba-verify/{spec.service}:{spec.image.rpartition(':')[2]}"
    oci_builder.load(engine, layout, name)
    try:
        return _verify(engine, name, context, on_event)
    finally:
        engine.remove(name)


def _verify(engine: Engine, image: str, context: BuildContext, on_event: Event) -> tuple[Verified | None, str]:
    """Verify an image; return the reason instead where that would need other services beside it."""
    on_event(context.spec.service, "running", _VERIFYING)
    try:
        return verify(engine, image, context.spec, context.models), ""
    except NeedsOthers as error:
        return None, error.message


def _reason_not_to_run(engine: Engine, options: BuildOptions) -> str:
    if not options.verify:
        return "not asked for"
    return "" if engine.can_run else f"{engine.program} cannot run it as a deployment would"


def _describe(context: BuildContext, project: Path, contents: size_report.Contents, record: sbom.BuildRecord) -> Path:
    """Write the description of an image below the project's folder, in place of an older one."""
    spec = context.spec
    texts = {
        "sbom.cdx.json": sbom.cyclonedx(spec.image, sbom.parts(context, contents)),
        PROVENANCE: sbom.provenance(context, record),
        "weight.json": msgspec.json.format(msgspec.json.encode(size_report.weigh(contents)), indent=2).decode() + "\n",
    }
    target = project / KEPT / spec.service

    def fill(folder: Path) -> None:
        for name in ("Dockerfile", ".dockerignore", "requirements.txt", build_context.SPEC):
            shutil.copyfile(context.folder / name, folder / name)
        for name, text in texts.items():
            (folder / name).write_text(text)

    with explained("replace", target):
        shutil.rmtree(target, ignore_errors=True)
    if not place(target, fill):
        hint = "Wait until the other build has ended, then build again."
        raise EstibaError(f"Another build of {spec.service} runs: {target} appeared meanwhile.", hint=hint)
    return target
