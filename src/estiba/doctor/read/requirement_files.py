"""Read requirements files, and find those that the stages of an image install."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from posixpath import basename, dirname
from typing import NamedTuple

from estiba.doctor.finding import Location
from estiba.doctor.read.build_context import BuildContext
from estiba.doctor.read.containers import Image
from estiba.doctor.read.dockerfile_stages import Step
from estiba.doctor.read.dockerfile_syntax import split

_LINE = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*(@\s*\S+|[^;#\s][^;#]*)?")
_FILE = re.compile(r"(?:-r|--requirements?)[\s=]*([^\s;&|]+)")
PIP_INSTALL = re.compile(r"\bpip3?\s+install\s+([^&;|]*)")
OPTIONS_WITH_VALUE = frozenset(
    """
    -r --requirement -c --constraint -e --editable -i --index-url --extra-index-url --default-index --index -f
    --find-links -t --target --prefix --root --src --python -p --python-version --platform --python-platform
    --implementation --abi --only-binary --no-binary --progress-bar --index-strategy --python-preference --link-mode
    --resolution --prerelease --keyring-provider --upgrade-strategy --cache-dir --trusted-host --proxy --timeout
    --retries --cert --client-cert --exists-action --report --log --config-settings --config-setting -C
    --global-option --root-user-action --override --overrides --build-constraint --exclude-newer --torch-backend
    --extra --group --reinstall-package --upgrade-package -P --no-build-isolation-package --refresh-package
    --no-build-package --no-binary-package --directory --project --config-file --color --fork-strategy
    """.split()  # noqa: SIM905
)
"""Options of `pip install` and `uv pip install` that take the next argument as their value."""

MAX_INCLUDES = 5
"""The depth of files that include each other."""


class Requirement(NamedTuple):
    """A line of a requirements file. `name` is normalized; `rest` holds the version specifiers or the URL."""

    name: str
    written: str
    extras: str
    rest: str
    at: Location

    @property
    def version(self) -> str:
        """The version after `==`; empty if there is none."""
        found = re.fullmatch(r"={2,3}\s*([\w.!+-]+)", self.rest)
        return found[1] if found else ""

    @property
    def pinned(self) -> bool:
        """True if the next build gets the same version, or a fix of it: `==`, `~=` with three numbers, or a URL."""
        return bool(self.version) or self.rest.startswith("@") or bool(re.match(r"~=\s*\d+\.\d+\.\d+", self.rest))


@dataclass(frozen=True)
class Requirements:
    """A requirements file with those that it includes.

    Args:
        options: lines with options, such as an index.
    """

    file: str
    lines: tuple[Requirement, ...]
    options: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        return {line.name for line in self.lines}

    def version_of(self, name: str) -> Requirement | None:
        return next((line for line in self.lines if line.name == name and line.version), None)


def normal(name: str) -> str:
    """Normalize a name as PEP 503 does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_requirements(path: str, context: BuildContext, depth: int = 0) -> Requirements:
    """Read a requirements file of a build context; empty if it cannot be read."""
    text = context.text(path) or ""
    lines: list[Requirement] = []
    options: list[str] = []
    number = 0
    joined: list[str] = []
    for count, raw in enumerate(text.splitlines(), 1):
        number = number if joined else count
        bare = raw.strip()
        joined.append(bare.removesuffix("\\").strip())
        if bare.endswith("\\"):
            continue
        line, joined = " ".join(joined), []
        line = re.sub(r"(?:^|\s)#.*", "", line).strip()
        if line.startswith("-"):
            options.append(line)
            included = re.match(r"(?:-r|--requirement)[\s=]*(\S+)", line)
            if included and depth < MAX_INCLUDES:
                inner = read_requirements(f"{dirname(path)}/{included[1]}".lstrip("/"), context, depth + 1)
                lines, options = [*lines, *inner.lines], [*options, *inner.options]
        elif parsed := requirement(line, context.at(path, number)):
            lines.append(parsed)
    return Requirements(context.at(path).file, tuple(lines), tuple(options))


def requirement(text: str, at: Location) -> Requirement | None:
    """Parse one line; None for a path or a URL of a file, which names no package."""
    match = _LINE.match(re.sub(r"\s--hash=\S+", "", text))
    if match is None or "/" in text.partition("@")[0] or text.endswith((".whl", ".tar.gz")):
        return None
    return Requirement(normal(match[1]), match[1], match[2] or "", (match[3] or "").strip(), at)


def installed(image: Image) -> list[Requirements]:
    """Return the requirements files that the stages of an image install."""
    files: dict[str, Requirements] = {}
    for stage in image.used:
        for step in stage.steps:
            for name in _FILE.findall(step.text) if step.instruction.name == "RUN" else []:
                path = _path(name, image)
                if path and path not in files:
                    files[path] = read_requirements(path, image.context)
    return list(files.values())


def command_requirements(image: Image) -> list[Requirements]:
    """Return the packages that the RUN instructions of an image name in `pip install`, one entry for each command."""
    commands = []
    for stage in image.used:
        for step in stage.steps:
            for text in PIP_INSTALL.findall(step.text) if step.instruction.name == "RUN" else ():
                commands.append(_command(text, image, step))
    return commands


def _command(text: str, image: Image, step: Step) -> Requirements:
    arguments = split(text)
    lines, options = [], []
    for before, argument in pairwise(["", *arguments]):
        at = image.at(step.instruction.line_of(argument))
        if argument.startswith("-"):
            options.append(argument)
        elif before not in OPTIONS_WITH_VALUE and (line := requirement(argument, at)):
            lines.append(line)
    return Requirements(image.file, tuple(lines), tuple(options))


def _path(name: str, image: Image) -> str:
    """Return the file of the build context that a name inside a stage stands for."""
    same = [path for path in image.context.entries if basename(path) == basename(name)]
    copied = {
        word.strip("/").removeprefix("./")
        for stage in image.used
        for step in stage.steps
        if step.instruction.name in ("COPY", "ADD")
        for word in step.arguments[:-1]
    }
    wanted = name.removeprefix("./").lstrip("/")
    return min(same, key=lambda path: (path not in copied, path != wanted, len(path)), default="")
