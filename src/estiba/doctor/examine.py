"""Examine the folder of a project: find its files, read them, and run every rule."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path

from estiba.core.errors import MissingExtra, NotFound
from estiba.doctor.catalogue import RULES, check_container, ordered
from estiba.doctor.finding import Finding, Location, listed
from estiba.doctor.read import compose_file, compose_projects
from estiba.doctor.read.build_context import SKIPPED_FOLDERS, BuildContext, parse_ignore_file, text
from estiba.doctor.read.compose_file import Compose
from estiba.doctor.read.compose_projects import ComposeReader
from estiba.doctor.read.containers import Container, Image
from estiba.doctor.read.dockerfile_syntax import parse
from estiba.doctor.read.find_context import find_build_context
from estiba.doctor.read.pickled_models import SUFFIXES
from estiba.doctor.read.python_sources import MODEL_FILE
from estiba.doctor.read.requirement_files import installed, read_requirements
from estiba.doctor.rule import Dependencies
from estiba.doctor.rules.compose import ComposeInvalid
from estiba.doctor.rules.dockerfile import DockerfileSyntax

_DOCKERFILE = re.compile(r"(?:Dockerfile|Containerfile)(?:\.(?!dockerignore)[\w.-]+)?|[\w.-]+\.Dockerfile", re.I)
_NO_DOCKERFILE = re.compile(
    r"\.(?:md|markdown|rst|txt|html?|pdf|png|svg|j2|jinja2?|tmpl|tpl|template|in|erb|mustache|bak|orig|swp|diff|patch|"
    r"py|pyi|sh|go|js|ts|tsx|rs|rb|java|json|ya?ml|toml|lock|env)$",
    re.I,
)
"""Suffixes of notes about a Dockerfile, of templates for one, and of code that reads or writes one."""

_TEMPLATE = re.compile(r"^[ \t]*\{%|\{\{", re.M)
"""A block or a value that a program fills in before the build."""

_COMPOSE = re.compile(r"(?:docker-)?compose[\w.-]*\.ya?ml", re.I)
MAX_DEPTH = 12
"""Folders deeper than this are not searched."""

MAX_FOLDERS = 20_000
"""Folders after these are not searched."""

MAX_NAMED_MODELS = 20
"""More models of an image are examined but not listed."""


@dataclass(frozen=True)
class Report:
    """The names of the examined files or containers, and the findings, the main one first.

    Args:
        unread: files that could not be read on this machine. why: the extra that reading them needs.
        not_examined: templates, and compose files below the folder, that are only named.
    """

    looked_at: list[str]
    findings: list[Finding]
    unread: Sequence[str] = ()
    why: MissingExtra | None = None
    not_examined: Sequence[str] = ()

    @property
    def healthy(self) -> bool:
        """True if no finding is an error: none that keeps the project from working, or lets an attacker in."""
        return not any(finding.severity == "error" for finding in self.findings)


@dataclass
class _Project:
    """The files of a folder while they are examined."""

    folder: Path
    looked_at: list[str] = field(default_factory=list)
    images: dict[tuple[str, str], Image] = field(default_factory=dict)
    contexts: dict[tuple[Path, str], BuildContext] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    without_override: list[Container] = field(default_factory=list)
    """The containers that run where the override file, which is for development, is not used."""
    findings: list[Finding] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    not_examined: list[str] = field(default_factory=list)
    why: MissingExtra | None = None

    def name(self, path: Path) -> str:
        """Return a path as the user would write it: relative to the folder."""
        return Path(os.path.relpath(path, self.folder)).as_posix()


def examine(path: Path, today: date, others: Mapping[str, list[Finding]] | None = None) -> Report:
    """Read a project and report its faults; nothing of it is run.

    Args:
        path: its folder, or one Dockerfile or compose file in it.
        today: decides which versions have reached their end of life.
        others: by name, files that were examined elsewhere, with their findings.

    Raises:
        NotFound: the path does not exist, or holds nothing to examine.
    """
    if not path.exists():
        raise NotFound(f"There is no {path}.", hint="Name the folder of a project, or a Dockerfile or compose file.")
    project = _Project(path if path.is_dir() else path.parent)
    files = [path] if path.is_file() else list(_files(project.folder))
    composes = [file for file in files if _COMPOSE.fullmatch(file.name) or file.suffix in (".yml", ".yaml")]
    _read_compose_files([file.name for file in composes if file.parent == project.folder], project)
    for file in files:
        if file not in composes:
            _read_dockerfile(file, project)
    below = [project.name(file) for file in composes if file.parent != project.folder]
    project.not_examined += [name for name in below if name not in project.looked_at]
    for name, findings in (others or {}).items():
        project.looked_at.append(name)
        project.findings += findings
    project.findings += _check_files(project, today)
    if not project.looked_at and not project.unread:
        raise _nothing(path, project)
    for container in project.containers:
        project.findings += check_container(container, project.folder)
    for container in project.without_override:
        project.findings += check_container(container, None)
    looked_at = sorted(dict.fromkeys(project.looked_at))
    return Report(looked_at, ordered(project.findings), project.unread, project.why, project.not_examined)


def _nothing(path: Path, project: _Project) -> NotFound:
    hint = "It reads Dockerfiles, compose files, requirements.txt and pickled models. For what runs: --running."
    if project.not_examined:
        hint = f"Name one of the files below it: {listed(project.not_examined)}."
    return NotFound(f"There is nothing to examine in {path}.", hint=hint)


def _check_files(project: _Project, today: date) -> Iterator[Finding]:
    """Run the rules about images, packages and models."""
    for image in project.images.values():
        yield from (finding for rule in RULES for finding in rule.check_image(image, today))
        yield from _check_dependencies(_dependencies(image, project), project)
    if not project.images:
        yield from _check_dependencies(_loose_dependencies(project), project)


def _check_dependencies(dependencies: Dependencies, project: _Project) -> Iterator[Finding]:
    project.looked_at += [requirements.file for requirements in dependencies.requirements]
    project.looked_at += [dependencies.context.at(path).file for path in dependencies.models[:MAX_NAMED_MODELS]]
    return (finding for rule in RULES for finding in rule.check_dependencies(dependencies))


def _dependencies(image: Image, project: _Project) -> Dependencies:
    containers = [container for container in project.containers if container.image is image]
    models = [path for path in image.context.entries if MODEL_FILE.search(path)]
    return Dependencies(installed(image), models, image.context, image, containers)


def _loose_dependencies(project: _Project) -> Dependencies:
    """Return the requirements and models of a folder without a Dockerfile."""
    context = _build_context(project.folder, project.folder / "Dockerfile", project)
    names = [name for name in ("requirements.txt", "app/requirements.txt") if (project.folder / name).is_file()]
    models = [path for path in context.entries if path.endswith(SUFFIXES)]
    return Dependencies([read_requirements(name, context) for name in names], models, context)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the Dockerfiles and compose files of the folder and of those below it."""
    for inner in islice(_folders(folder, 0), MAX_FOLDERS):
        for path in _inside(inner):
            if (_is_dockerfile(path.name) or _COMPOSE.fullmatch(path.name)) and path.is_file():
                yield path


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    for path in _inside(folder) if depth < MAX_DEPTH else ():
        if _walked(path.name) and path.is_dir() and not path.is_symlink() and not (path / "pyvenv.cfg").exists():
            yield from _folders(path, depth + 1)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_dockerfile(name: str) -> bool:
    return bool(_DOCKERFILE.fullmatch(name)) and not _NO_DOCKERFILE.search(name)


def _walked(name: str) -> bool:
    return name not in SKIPPED_FOLDERS and not name.startswith(".") and name != "site-packages"


def _read_compose_files(names: Sequence[str], project: _Project) -> None:
    """Read the compose files, grouped as Compose reads them; of the later groups, only what they add is examined."""
    folder = project.folder
    variables = compose_file.parse_env_file(text(folder / ".env") or "")
    values = {name: value for name, (value, _) in variables.items()}
    main: tuple[str, ...] = ()
    for files in compose_projects.group_files(names, values):
        try:
            reader = ComposeReader(lambda name: text(folder / name), values)
            compose = reader.compose(files)
            if compose is not None and main and compose_projects.needs_base_file(compose):
                reader = ComposeReader(reader.read, values)
                compose = reader.compose([main[0], *files])
        except MissingExtra as error:
            project.unread += files
            project.why = error
            continue
        new = set(reader.files) - set(project.looked_at)
        project.looked_at += reader.files or files
        project.findings += [ComposeInvalid.finding(*problem) for problem in reader.problems]
        if compose is not None:
            _check_compose(compose, project, new if main else None)
            if not main and len(files) > 1 and files[-1] in compose_projects.OVERRIDES:
                _add_without_override(ComposeReader(reader.read, values).compose(files[:1]), project)
        main = main or files


def _add_without_override(compose: Compose | None, project: _Project) -> None:
    if compose is not None and not compose_projects.needs_base_file(compose):
        project.without_override += [_container(compose, name, project) for name in compose.services]


def _check_compose(compose: Compose, project: _Project, only: set[str] | None) -> None:
    """Run the rules about a compose file, and collect its containers.

    Args:
        only: files whose findings are reported; by default all.
    """
    containers = [_container(compose, name, project) for name in compose.services]
    findings = [finding for rule in RULES for finding in rule.check_compose(compose, containers)]
    if only is None:
        project.containers += containers
        project.findings += findings
    else:
        project.containers += [item for item in containers if item.service and item.service.node.at.file in only]
        project.findings += [finding for finding in findings if finding.file in only]


def _container(compose: Compose, name: str, project: _Project) -> Container:
    service = compose.services[name]
    build = service.build
    if build is None or "$" in build[0] + build[1] or "://" in build[0]:
        return Container(None, service, compose)
    root = project.folder / build[0]
    dockerfile = root / (build[1] or "Dockerfile")
    image = _image(dockerfile, root, project, service.arguments, build[2])
    if image is None and not dockerfile.exists():
        message = f"{name} is built from `{project.name(dockerfile)}`, which does not exist."
        fix = "Name the folder in build.context and the file in build.dockerfile."
        project.findings.append(ComposeInvalid.finding(service.node.get("build").at, message, fix))
    return Container(image, service, compose)


def _read_dockerfile(path: Path, project: _Project) -> None:
    """Read a Dockerfile that no compose file names."""
    name = project.name(path)
    real = path.resolve()
    if any((project.folder / image.file).resolve() == real for image in project.images.values()):
        return
    content = text(path)
    if content is None:
        project.looked_at.append(name)
        message = "The file cannot be read as text of up to a megabyte."
        finding = DockerfileSyntax.finding(Location(name), message, "Check its permissions and its content.")
        project.findings.append(finding)
        return
    if _TEMPLATE.search(_without_go_templates(content)):
        project.not_examined.append(name)
        return
    root = find_build_context(path, parse(content), project.folder)
    image = _image(path, root, project, {}, "")
    if image is not None:
        project.containers.append(Container(image, None))


def _without_go_templates(content: str) -> str:
    """Leave out the lines of commands, in which `{{` is an argument, such as of `docker inspect --format`."""
    lines = content.splitlines()
    return "\n".join(line for line in lines if not re.match(r"\s*(?:RUN|CMD|ENTRYPOINT|HEALTHCHECK)\b", line, re.I))


def _image(path: Path, root: Path | None, project: _Project, arguments: Mapping[str, str], target: str) -> Image | None:
    """Read a Dockerfile, once for each target and set of build arguments; None if it cannot be read."""
    key = (project.name(path), f"{target} {sorted(arguments.items())}".strip(" []"))
    if key not in project.images:
        content = text(path)
        if content is None:
            return None
        project.looked_at.append(project.name(path))
        context = _build_context(root, path, project)
        project.images[key] = Image(project.name(path), parse(content), context, arguments, target)
    return project.images[key]


def _build_context(root: Path | None, path: Path, project: _Project) -> BuildContext:
    """Return a folder with its .dockerignore, of which one named after the Dockerfile goes first. None is unknown."""
    if root is None:
        return BuildContext(path.parent, "", parse_ignore_file("", ""), known=False)
    own = path.with_name(f"{path.name}.dockerignore")
    file = own if own.is_file() else root / ".dockerignore"
    key = (root.resolve(), str(file))
    if key not in project.contexts:
        content = text(file)
        if content is not None:
            project.looked_at.append(project.name(file))
        name = project.name(root)
        prefix = "" if name == "." else f"{name}/"
        ignore_file = parse_ignore_file(content or "", "" if content is None else project.name(file))
        project.contexts[key] = BuildContext(root, prefix, ignore_file)
    return project.contexts[key]
