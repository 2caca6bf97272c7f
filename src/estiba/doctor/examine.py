"""Examines a project's folder: finds its files, reads them, and asks every check."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from estiba.core.errors import MissingExtra, NotFound
from estiba.doctor.catalogue import Finding, Location, finding, ordered
from estiba.doctor.read import compose_file, compose_projects
from estiba.doctor.read.build_context import SKIPPED_FOLDERS, BuildContext, ignored, text
from estiba.doctor.read.compose_file import Compose
from estiba.doctor.read.compose_projects import ComposeReader
from estiba.doctor.read.containers import Container, Image
from estiba.doctor.read.dockerfile_syntax import parse
from estiba.doctor.read.find_context import find_build_context
from estiba.doctor.read.python_sources import MODEL_FILE
from estiba.doctor.rules import (
    base_images,
    dockerfile,
    image_size,
    missing_files,
    permissions,
    pickles,
    ports_and_health,
    requirements,
    secrets,
)
from estiba.doctor.rules import compose as composed

_DOCKERFILE = re.compile(r"(?:Dockerfile|Containerfile)(?:\.(?!dockerignore)[\w.-]+)?|[\w.-]+\.Dockerfile", re.I)
_COMPOSE = re.compile(r"(?:docker-)?compose[\w.-]*\.ya?ml", re.I)
_DEPTH = 3


@dataclass(frozen=True)
class Report:
    """What was looked at, by the names of the files, and what was found, the main fault first.

    Args:
        unread: files that could not be looked at here. why: what it takes to read them.
    """

    looked_at: list[str]
    findings: list[Finding]
    unread: Sequence[str] = ()
    why: MissingExtra | None = None

    @property
    def healthy(self) -> bool:
        """Whether there is no fault that keeps the project from working or lets strangers in, as far as was looked."""
        return not any(found.severity == "error" for found in self.findings)


@dataclass
class _Project:
    """The files of a folder while they are examined."""

    folder: Path
    looked_at: list[str] = field(default_factory=list)
    images: dict[tuple[str, str], Image] = field(default_factory=dict)
    contexts: dict[tuple[Path, str], BuildContext] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    without: list[Container] = field(default_factory=list)
    """What runs where the override, which is for development, is not taken."""
    findings: list[Finding] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    why: MissingExtra | None = None

    def name(self, path: Path) -> str:
        """How a path is spelled to the user: from the folder on."""
        return Path(os.path.relpath(path, self.folder)).as_posix()


def examine(place: Path, today: date, others: Mapping[str, list[Finding]] | None = None) -> Report:
    """Reads a project and names its faults; nothing of it is run.

    Args:
        place: its folder, or one Dockerfile or compose file in it.
        today: decides which versions have reached their end.
        others: by name, files that were examined elsewhere, and what was found in them.

    Raises:
        NotFound: the place does not exist, or holds nothing to examine.
    """
    if not place.exists():
        raise NotFound(f"There is no {place}.", hint="Name the folder of a project, or a Dockerfile or compose file.")
    folder = place if place.is_dir() else place.parent
    project = _Project(folder)
    files = [place] if place.is_file() else list(_files(folder))
    composes = [path for path in files if _COMPOSE.fullmatch(path.name) or path.suffix in (".yml", ".yaml")]
    dockerfiles = [path for path in files if path not in composes]
    _composes([path.name for path in composes], folder, project)
    for path in dockerfiles:
        _dockerfile(path, project)
    _loose(project)
    for name, found in (others or {}).items():
        project.looked_at.append(name)
        project.findings += found
    if not project.looked_at and not project.unread:
        hint = "It reads Dockerfiles, compose files, requirements.txt and pickled models. For what runs: --running."
        raise NotFound(f"There is nothing to examine in {place}.", hint=hint)
    for image in project.images.values():
        project.findings += _of_image(image, project, today)
    for container in project.containers:
        project.findings += _of_container(container, project)
    for container in project.without:
        project.findings += [*ports_and_health.check(container), *permissions.check(container)]
    return Report(sorted(dict.fromkeys(project.looked_at)), ordered(project.findings), project.unread, project.why)


def _files(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Dockerfiles of the folder and a little below, and the compose files of the folder itself."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for path in inside:
        if path.is_file() and (_DOCKERFILE.fullmatch(path.name) or (depth == 0 and _COMPOSE.fullmatch(path.name))):
            yield path
        elif path.is_dir() and not path.is_symlink() and depth < _DEPTH and _walked(path.name):
            yield from _files(path, depth + 1)


def _walked(name: str) -> bool:
    return name not in SKIPPED_FOLDERS and not name.startswith(".") and name != "site-packages"


def _composes(names: Sequence[str], folder: Path, project: _Project) -> None:
    """Reads compose files; of those that only lie over the first ones, what they add."""
    beside = compose_file.settings(text(folder / ".env") or "")
    values = {name: value for name, (value, _) in beside.items()}
    main: tuple[str, ...] = ()
    for files in compose_projects.together(names, values):
        try:
            stack = ComposeReader(lambda name: text(folder / name), values)
            compose = stack.compose(files)
            if compose is not None and main and compose_projects.partial(compose):
                stack = ComposeReader(stack.read, values)
                compose = stack.compose([main[0], *files])
        except MissingExtra as error:
            project.unread += files
            project.why = error
            continue
        new = set(stack.files) - set(project.looked_at)
        project.looked_at += stack.files or files
        project.findings += stack.problems
        if compose is not None:
            _compose(compose, folder, project, new if main else None)
            if not main and len(files) > 1 and files[-1] in compose_projects.OVERRIDES:
                _without(ComposeReader(stack.read, values).compose(files[:1]), folder, project)
        main = main or files


def _without(compose: Compose | None, folder: Path, project: _Project) -> None:
    if compose is not None and not compose_projects.partial(compose):
        project.without += [_container(compose, name, folder, project) for name in compose.services]


def _compose(compose: Compose, folder: Path, project: _Project, only: set[str] | None) -> None:
    """Examines a stack.

    Args:
        only: files of which the faults are told; by default all.
    """
    containers = [_container(compose, name, folder, project) for name in compose.services]
    found = composed.check(compose, containers)
    if only is None:
        project.containers += containers
        project.findings += found
    else:
        project.containers += [one for one in containers if one.service and one.service.node.at.file in only]
        project.findings += [one for one in found if one.file in only]


def _unreadable(shown: str, code: str, project: _Project) -> None:
    message = "The file cannot be read as text of up to a megabyte."
    project.findings.append(finding(code, Location(shown), message, "Check its rights and what is in it."))


def _container(compose: Compose, name: str, folder: Path, project: _Project) -> Container:
    service = compose.services[name]
    build = service.build
    if build is None or "$" in build[0] + build[1] or "://" in build[0]:
        return Container(None, service, compose)
    root = folder / build[0]
    image = _image(root / (build[1] or "Dockerfile"), root, project, service.arguments, build[2])
    if image is None and not (root / (build[1] or "Dockerfile")).exists():
        shown = project.name(root / (build[1] or "Dockerfile"))
        message = f"{name} is built from `{shown}`, which does not exist."
        fix = "Name the folder in build.context and the file in build.dockerfile."
        project.findings.append(finding("compose-invalid", service.node.get("build").at, message, fix))
    return Container(image, service, compose)


def _dockerfile(path: Path, project: _Project) -> None:
    shown = project.name(path)
    if any(image.file == shown for image in project.images.values()):
        return
    content = text(path)
    if content is None:
        project.looked_at.append(shown)
        _unreadable(shown, "dockerfile-syntax", project)
        return
    image = _image(path, find_build_context(path, parse(content), project.folder), project, {}, "")
    if image is not None:
        project.containers.append(Container(image, None))


def _image(path: Path, root: Path | None, project: _Project, arguments: Mapping[str, str], target: str) -> Image | None:
    key = (project.name(path), f"{target} {sorted(arguments.items())}".strip(" []"))
    if key not in project.images:
        image = _new(path, root, project, arguments, target)
        if image is None:
            return None
        project.images[key] = image
    return project.images[key]


def _new(path: Path, root: Path | None, project: _Project, arguments: Mapping[str, str], target: str) -> Image | None:
    content = text(path)
    if content is None:
        return None
    project.looked_at.append(project.name(path))
    context = _context(root, path, project)
    return Image(project.name(path), parse(content), context, arguments, target)


def _context(root: Path | None, path: Path, project: _Project) -> BuildContext:
    """The folder with its .dockerignore; one named after the Dockerfile goes before it. None is one not known."""
    if root is None:
        return BuildContext(path.parent, "", ignored("", ""), known=False)
    own = path.with_name(f"{path.name}.dockerignore")
    rules = own if own.is_file() else root / ".dockerignore"
    key = (root.resolve(), str(rules))
    if key not in project.contexts:
        content = text(rules)
        shown = project.name(rules)
        if content is not None:
            project.looked_at.append(shown)
        name = project.name(root)
        prefix = "" if name == "." else f"{name}/"
        found = ignored("" if content is None else content, "" if content is None else shown)
        project.contexts[key] = BuildContext(root, prefix, found)
    return project.contexts[key]


def _loose(project: _Project) -> None:
    """Requirements and models of a folder without a Dockerfile."""
    if project.images:
        return
    context = _context(project.folder, project.folder / "Dockerfile", project)
    named = [path for path in ("requirements.txt", "app/requirements.txt") if (project.folder / path).is_file()]
    found = [requirements.read(path, context) for path in named]
    models = [path for path in context.entries if path.endswith(pickles.SUFFIXES)]
    project.looked_at += [*named, *models[:20]]
    for one in found:
        project.findings += requirements.unpinned(one)
    project.findings += pickles.check(context, models, found)


def _of_image(image: Image, project: _Project, today: date) -> Iterator[Finding]:
    containers = [container for container in project.containers if container.image is image]
    yield from dockerfile.check(image)
    yield from base_images.check(image, today)
    yield from image_size.check(image)
    yield from secrets.check_image(image)
    yield from requirements.check(image, containers)
    found = requirements.installed(image)
    project.looked_at += [one.file for one in found]
    models = [path for path in image.context.entries if MODEL_FILE.search(path)]
    project.looked_at += [image.context.at(path).file for path in models[:20]]
    yield from pickles.check(image.context, models, found)


def _of_container(container: Container, project: _Project) -> Iterator[Finding]:
    yield from ports_and_health.check(container)
    yield from permissions.check(container)
    yield from missing_files.check(container, project.folder)
