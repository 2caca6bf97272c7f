"""Whether what the program loads is in its container: by COPY, or by a volume that holds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import basename, dirname
from typing import NamedTuple

from estiba.doctor.catalogue import Finding, Location, finding
from estiba.doctor.read.build_context import relative_source
from estiba.doctor.read.compose_file import Mount
from estiba.doctor.read.containers import Container, Image, for_development
from estiba.doctor.read.dockerfile_stages import joined
from estiba.doctor.read.python_sources import MODEL_FILE, loads, writes

_VARIABLE = re.compile(r"MODEL|ARTIFACT|PICKLE|WEIGHTS", re.I)


class Wanted(NamedTuple):
    """A file that the program wants, where that is said, and by what. `sure` is false where the code looks first."""

    path: str
    at: Location
    who: str
    sure: bool = True


def check(container: Container, folder: Path) -> Iterator[Finding]:
    """Models that are not in the container, and volumes and folders mounted over what is.

    Args:
        folder: where the paths of the compose file begin.
    """
    done: set[str] = set()
    for wanted in _wanted(container):
        if wanted.path not in done:
            done.add(wanted.path)
            yield from _missing(wanted, container, folder)
    yield from _hidden(container, folder)
    yield from _stale(container)


def _wanted(container: Container) -> Iterator[Wanted]:
    """Code first, as it names a line; then what the command and the environment say."""
    if container.image is not None:
        written = {place.path for read in container.modules for place in writes(read, container.code_environment)}
        trains = any(name == "fit" for read in container.modules for _, name in read.calls())
        for read in container.modules:
            for place in loads(read, container.code_environment):
                at = container.image.context.at(place.file, place.line)
                if place.path not in written and (place.sure or not trains):
                    yield Wanted(place.path, at, f"{at} loads", place.sure)
    if container.final is None:
        return
    words, at = container.command_line
    for word in words:
        value = word.partition("=")[2] if word.startswith("-") else word
        if MODEL_FILE.search(value) and not re.search(r"\s|://|\$|^-", value):
            yield Wanted(joined(container.folder, value), at, "the command names")
    for name, value in container.environment.items():
        if _VARIABLE.search(name) and MODEL_FILE.search(value) and not re.search(r"\s|://|\$", value):
            yield Wanted(joined(container.folder, value), container.variable_location(name), f"{name} names")


def _missing(wanted: Wanted, container: Container, folder: Path) -> Iterator[Finding]:
    mount = container.mount_of(wanted.path)
    if mount is not None and container.service is not None:
        yield from _mounted(wanted, mount, container, folder)
        return
    image = container.image
    if image is None or image.contents.has(wanted.path) is not False:
        return
    if _copied(wanted, image):
        return
    probably = "" if wanted.sure else "probably "
    who = wanted.who.replace(f"{wanted.at} ", "this line ")
    message = f"`{wanted.path}`, which {who}, is {probably}not in the image: {_why(wanted, image)}."
    yield finding("model-missing", wanted.at, message, _fix(wanted, image))


def _copied(wanted: Wanted, image: Image) -> bool:
    """Whether a COPY names the file that is meant, and fails: that was said already."""
    found = _like(wanted, image)
    return (
        bool(found)
        and found not in image.context.included
        and any(
            found in image.context.matching(source)
            for stage in image.used
            for step in stage.steps
            if step.instruction.name in ("COPY", "ADD")
            for source in step.words[:-1]
            if relative_source(source)
        )
    )


def _why(wanted: Wanted, image: Image) -> str:
    found = _like(wanted, image)
    if not found:
        return "nothing copies it there"
    rule = image.context.ignored.excluding_pattern(found)
    if rule is not None:
        return f"{image.context.ignored.name}:{rule.line} keeps `{found}` out"
    lies = next((path for path, placed in image.contents.files.items() if placed.source == found), "")
    return f"`{found}` lies at `{lies}`" if lies else f"no COPY brings `{found}`"


def _like(wanted: Wanted, image: Image) -> str:
    """The file of the folder that is probably meant: of the same name, with most of the path in common."""
    same = [path for path in image.context.entries if basename(path) == basename(wanted.path)]
    return max(same, key=lambda path: (wanted.path.endswith("/" + path), -len(path)), default="")


def _fix(wanted: Wanted, image: Image) -> str:
    found = _like(wanted, image)
    if found and image.context.ignored.excluding_pattern(found):
        return f"Add a line `!{found}` at the end of {image.context.ignored.name}."
    if found:
        return f"Add to the Dockerfile: COPY {found} {wanted.path}"
    return "Put the file into the folder and COPY it, or mount the folder that holds it."


def _mounted(wanted: Wanted, mount: Mount, container: Container, folder: Path) -> Iterator[Finding]:
    assert container.service is not None
    at = mount.at
    if mount.kind == "bind" and "$" not in mount.source and not mount.source.startswith(("/", "~")):
        inside = wanted.path.removeprefix(joined("/", mount.target)).lstrip("/")
        there = folder / mount.source / inside if inside else folder / mount.source
        if not there.exists():
            shown = f"{mount.source.rstrip('/')}/{inside}" if inside else mount.source
            message = f"`{mount.source}` is mounted where {wanted.who} a model, and `{shown}` is not there."
            yield finding("model-missing", at, message, f"Put the model at {shown}, or take the volume out.")
    elif mount.kind == "tmpfs" or (mount.kind == "volume" and _empty(wanted, mount, container)):
        message = f"The volume over `{mount.target}` is empty, so `{wanted.path}`, which {wanted.who}, is not there."
        fix = f"Copy the model into the image and take the volume out, or mount its folder: ./models:{mount.target}:ro."
        yield finding("model-missing", at, message, fix)


def _empty(wanted: Wanted, mount: Mount, container: Container) -> bool:
    """Whether a volume certainly starts without the file: new, not filled by the image, mounted by nobody else."""
    if container.image is None or container.image.contents.has(wanted.path) is not False or container.compose is None:
        return False
    declared = container.compose.volumes.get(mount.source)
    if declared and (declared.get("external") or declared.get("driver_opts") or declared.get("name")):
        return False
    users = [
        one
        for one in container.compose.services.values()
        for m in one.mounts
        if mount.source and m.source == mount.source
    ]
    return len(users) <= 1


def _hidden(container: Container, folder: Path) -> Iterator[Finding]:
    """Folders of the host over the code of the image, where it is not for development."""
    server = container.server
    if (
        container.service is None
        or container.image is None
        or container.for_development
        or (server and server.for_development)
    ):
        return
    files = container.image.contents.files
    for mount in container.mounts:
        target = joined("/", mount.target)
        below = [path for path in files if path.startswith(target.rstrip("/") + "/") and path.endswith(".py")]
        if mount.kind != "bind" or not below or for_development(mount.at.file):
            continue
        there = mount.source.startswith(("/", "~", "$")) or (folder / mount.source).exists()
        lost = "" if there else ", and it does not exist, so Docker puts an empty folder there"
        message = f"`{mount.source}` of the host hides the code that the image has in `{target}`{lost}."
        fix = "Take the volume out, or keep it in a compose file for development."
        yield finding("bind-hides-code", mount.at, message, fix)


def _stale(container: Container) -> Iterator[Finding]:
    """A named volume over files of the image: it keeps those of the first image for ever."""
    if container.service is None or container.image is None:
        return
    for mount in container.mounts:
        target = joined("/", mount.target)
        inside = [path for path in container.image.contents.files if path.startswith(target.rstrip("/") + "/")]
        models = [path for path in inside if MODEL_FILE.search(path) or path.endswith(".py")]
        if mount.kind == "volume" and mount.source and models:
            message = f"The volume {mount.source} keeps the first image's `{models[0]}`, whatever later images bring."
            fix = f"Take the volume out; or mount the folder {dirname(models[0])} of the host, read-only."
            yield finding("stale-volume", mount.at, message, fix)
