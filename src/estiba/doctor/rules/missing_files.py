"""Rules about files in a container: models that it does not have, and mounts over the files that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from posixpath import basename, dirname
from typing import ClassVar, NamedTuple

from estiba.doctor.finding import Finding, Location
from estiba.doctor.read.build_context import relative_source
from estiba.doctor.read.compose_file import Mount
from estiba.doctor.read.containers import Container, Image, for_development
from estiba.doctor.read.dockerfile_stages import resolve_path
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.read.python_sources import MODEL_FILE, loaded_files, written_files
from estiba.doctor.rule import Rule
from estiba.doctor.rules.copy_missing import missing_sources

_MODULE_OPTIONS = ("-m", "-A", "--app")
"""Options whose value is the name of a Python module."""

_VARIABLE = re.compile(r"MODEL|ARTIFACT|PICKLE|WEIGHTS", re.I)
_NOT_FOUND = re.compile(
    r"(?:No such file or directory: ['\"]([^'\"\n]+)['\"]|Load model from (\S+) failed.{0,40}(?:exist|No such file))"
)


class NeededModel(NamedTuple):
    """A model file that the program needs.

    Args:
        path: in the container.
        at: the line that names it.
        reason: a clause such as `app/main.py:5 loads`.
        certain: False if the code checks first whether the file exists.
    """

    path: str
    at: Location
    reason: str
    certain: bool = True


class ModelMissing(Rule):
    code = "model-missing"
    severity = "error"
    title = "The model is not in the container at the path that the program loads."
    reason = (
        "The program fails when it starts, or at the first request. On the machine of its author it works, as the "
        "file is there."
    )
    example: ClassVar = {
        "app/main.py": "import joblib\nfrom fastapi import FastAPI\n\napp = FastAPI()\n"
        'model = joblib.load("artifacts/model.joblib")\n',
    }
    remedy = (
        "COPY the model to the path that the program loads, or mount the folder that holds it. Check that "
        ".dockerignore does not keep it out."
    )
    explains_exit = True

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for missing in missing_sources(image):
            if missing.model:
                yield cls.finding(*missing.problem)

    @classmethod
    def check_mounts(cls, container: Container, folder: Path) -> Iterator[Finding]:
        checked: set[str] = set()
        for needed in _needed_models(container):
            if needed.path not in checked:
                checked.add(needed.path)
                yield from cls._missing(needed, container, folder)

    @classmethod
    def _missing(cls, needed: NeededModel, container: Container, folder: Path) -> Iterator[Finding]:
        mount = container.mount_of(needed.path)
        if mount is not None and container.service is not None:
            yield from cls._mounted(needed, mount, container, folder)
            return
        image = container.image
        if image is None or image.contents.has(needed.path) is not False or _copy_fails(needed, image):
            return
        probably = "" if needed.certain else "probably "
        reason = needed.reason.replace(f"{needed.at} ", "this line ")
        message = f"`{needed.path}`, which {reason}, is {probably}not in the image: {_cause(needed, image)}."
        yield cls.finding(needed.at, message, _fix(needed, image))

    @classmethod
    def _mounted(cls, needed: NeededModel, mount: Mount, container: Container, folder: Path) -> Iterator[Finding]:
        if mount.kind == "bind" and "$" not in mount.source and not mount.source.startswith(("/", "~")):
            inside = needed.path.removeprefix(resolve_path("/", mount.target)).lstrip("/")
            path = f"{mount.source.rstrip('/')}/{inside}" if inside else mount.source
            if not (folder / path).exists():
                message = f"`{mount.source}` is mounted where {needed.reason} a model, and `{path}` does not exist."
                yield cls.finding(mount.at, message, f"Put the model at {path}, or remove the volume.")
        elif mount.kind == "tmpfs" or (mount.kind == "volume" and _starts_empty(needed, mount, container)):
            message = (
                f"The volume over `{mount.target}` is empty, so it does not have `{needed.path}`, which "
                f"{needed.reason}."
            )
            fix = (
                f"Copy the model into the image and remove the volume, or mount its folder: ./models:{mount.target}:ro."
            )
            yield cls.finding(mount.at, message, fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        for match in _NOT_FOUND.finditer(container.log):
            path = match[1] or match[2]
            if MODEL_FILE.search(path):
                message = f"It looks for `{path}`, which is not in the container."
                fix = "COPY it to that path, or mount the folder that holds it; .dockerignore may keep it out."
                yield cls.finding(container.at, message, fix)
                return


def _needed_models(container: Container) -> Iterator[NeededModel]:
    """Yield the models that the code loads, as it has line numbers; then those of the command and the environment."""
    if container.image is not None:
        yield from _loaded_models(container, container.image)
    if container.final is None:
        return
    argv, at = container.command_line
    for before, argument in pairwise(["", *argv]):
        if before in _MODULE_OPTIONS or _is_module(argument, container):
            continue
        value = argument.partition("=")[2] if argument.startswith("-") else argument
        if MODEL_FILE.search(value) and not re.search(r"\s|://|\$|^-", value):
            yield NeededModel(resolve_path(container.folder, value), at, "the command names")
    for name, value in container.environment.items():
        if _VARIABLE.search(name) and MODEL_FILE.search(value) and not re.search(r"\s|://|\$", value):
            path = resolve_path(container.folder, value)
            yield NeededModel(path, container.variable_location(name), f"{name} names")


def _is_module(argument: str, container: Container) -> bool:
    """Return True if an argument such as `scorer.model` is the dotted name of a Python module of the build context."""
    path = argument.replace(".", "/")
    entries = container.image.context.entries if container.image is not None else {}
    return re.fullmatch(r"\w+(?:\.\w+)+", argument) is not None and any(
        f"/{entry}".endswith((f"/{path}.py", f"/{path}/__init__.py", f"/{path}/__main__.py")) for entry in entries
    )


def _loaded_models(container: Container, image: Image) -> Iterator[NeededModel]:
    """Yield what the code loads and does not write itself. With training code, a check before loading is enough."""
    modules, environment = container.modules, container.code_environment
    written = {use.path for module in modules for use in written_files(module, environment)}
    trains = any(name == "fit" for module in modules for _, name in module.calls())
    for module in modules:
        for use in loaded_files(module, environment):
            at = image.context.at(use.file, use.line)
            if use.path not in written and (use.sure or not trains):
                yield NeededModel(use.path, at, f"{at} loads", use.sure)


def _copy_fails(needed: NeededModel, image: Image) -> bool:
    """Return True if a COPY of the model's file fails: that is another finding, at the COPY."""
    file = _likely_file(needed, image)
    if file in image.context.included:
        return False
    sources = [
        source
        for stage in image.used
        for step in stage.steps
        if step.instruction.name in ("COPY", "ADD")
        for source in step.arguments[:-1]
        if relative_source(source)
    ]
    if not file:
        absent = [relative_source(source) for source in sources if not image.context.matching(source)]
        return any(basename(source) in (basename(needed.path), basename(dirname(needed.path))) for source in absent)
    return any(file in image.context.matching(source) for source in sources)


def _likely_file(needed: NeededModel, image: Image) -> str:
    """Return the file of the build context that is probably meant: with the same name, and a similar path."""
    same = [path for path in image.context.entries if basename(path) == basename(needed.path)]
    return max(same, key=lambda path: (needed.path.endswith("/" + path), -len(path)), default="")


def _cause(needed: NeededModel, image: Image) -> str:
    file = _likely_file(needed, image)
    if not file:
        return "nothing copies it there"
    pattern = image.context.ignored.excluding_pattern(file)
    if pattern is not None:
        return f"{image.context.ignored.name}:{pattern.line} keeps `{file}` out"
    target = next((path for path, copied in image.contents.files.items() if copied.source == file), "")
    return f"`{file}` is at `{target}`" if target else f"no COPY names `{file}`"


def _fix(needed: NeededModel, image: Image) -> str:
    file = _likely_file(needed, image)
    if file and image.context.ignored.excluding_pattern(file):
        return f"Add a line `!{file}` at the end of {image.context.ignored.name}."
    if file:
        return f"Add to the Dockerfile: COPY {file} {needed.path}"
    return "Put the file into the folder and COPY it, or mount the folder that holds it."


def _starts_empty(needed: NeededModel, mount: Mount, container: Container) -> bool:
    """Return True if a volume certainly starts without the file: new, not filled by the image, mounted only here."""
    image, compose = container.image, container.compose
    if image is None or image.contents.has(needed.path) is not False or compose is None:
        return False
    declared = compose.volumes.get(mount.source)
    if declared and (declared.get("external") or declared.get("driver_opts") or declared.get("name")):
        return False
    mounts = [other for service in compose.services.values() for other in service.mounts]
    return sum(bool(mount.source) and other.source == mount.source for other in mounts) <= 1


class BindHidesCode(Rule):
    code = "bind-hides-code"
    severity = "warning"
    title = "A folder of the host is mounted over the code in the image."
    reason = (
        "The container runs the code of the machine, not that of the image. On a server where the folder does not "
        "exist, Docker creates an empty one, and the program is gone."
    )
    example: ClassVar = {
        "compose.yaml": "services:\n  api:\n    build: .\n    restart: unless-stopped\n    mem_limit: 512m\n"
        "    volumes: ['./app:/app/app']\n",
    }
    remedy = "Remove the volume, or move it into `compose.override.yaml`, for development only."

    @classmethod
    def check_mounts(cls, container: Container, folder: Path) -> Iterator[Finding]:
        server = container.server
        develops = container.for_development or (server is not None and server.for_development)
        if container.service is None or container.image is None or develops:
            return
        files = container.image.contents.files
        for mount in container.mounts:
            target = resolve_path("/", mount.target)
            inside = [path for path in files if path.startswith(target.rstrip("/") + "/") and path.endswith(".py")]
            hidden = any(basename(path) != "__init__.py" for path in inside)  # a folder of data may be a package too
            if mount.kind != "bind" or not hidden or for_development(mount.at.file):
                continue
            exists = mount.source.startswith(("/", "~", "$")) or (folder / mount.source).exists()
            lost = "" if exists else ", and it does not exist, so Docker puts an empty folder there"
            message = f"`{mount.source}` of the host hides the code that the image has in `{target}`{lost}."
            fix = "Remove the volume, or keep it in a compose file for development."
            yield cls.finding(mount.at, message, fix)


class StaleVolume(Rule):
    code = "stale-volume"
    severity = "warning"
    title = "A volume keeps the files of the first image over those of every later one."
    reason = (
        "Docker fills a named volume from the image once. A new image with a new model is deployed, and the old model "
        "goes on answering."
    )
    example: ClassVar = {
        "compose.yaml": "services:\n  api:\n    build: .\n    restart: unless-stopped\n    mem_limit: 512m\n"
        "    volumes: ['models:/app/models']\nvolumes:\n  models: {}\n",
    }
    remedy = "Remove the volume, or mount the folder of the host read-only."

    @classmethod
    def check_mounts(cls, container: Container, folder: Path) -> Iterator[Finding]:
        if container.service is None or container.image is None:
            return
        for mount in container.mounts:
            prefix = resolve_path("/", mount.target).rstrip("/") + "/"
            inside = [path for path in container.image.contents.files if path.startswith(prefix)]
            kept = [path for path in inside if MODEL_FILE.search(path) or path.endswith(".py")]
            if mount.kind == "volume" and mount.source and kept:
                message = f"The volume {mount.source} keeps `{kept[0]}` of the first image over that of later images."
                fix = f"Remove the volume; or mount the folder {dirname(kept[0])} of the host, read-only."
                yield cls.finding(mount.at, message, fix)
