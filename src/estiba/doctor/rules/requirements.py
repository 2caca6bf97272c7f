"""What is installed: requirements without versions, tools for development, CUDA, and libraries of the system."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import basename, dirname
from typing import NamedTuple

from estiba.doctor.catalogue import Finding, Location, finding, listed, words
from estiba.doctor.read.build_context import BuildContext
from estiba.doctor.read.containers import Container, Image
from estiba.doctor.read.dockerfile_syntax import split
from estiba.doctor.rules.base_images import base

_LINE = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*(@\s*\S+|[^;#\s][^;#]*)?")
_FILE = re.compile(r"(?:-r|--requirements?)[\s=]*([^\s;&|]+)")
_INLINE = re.compile(r"\bpip3?\s+install\s+([^;&|]*)")

_TOOLS = frozenset(("pip", "setuptools", "wheel", "uv", "poetry", "pipenv", "build", "hatch", "pdm", "pip-tools"))
_DEV = words(
    """
    pytest pytest-cov pytest-asyncio pytest-mock pytest-xdist coverage hypothesis tox nox black flake8 ruff isort
    mypy pylint pre-commit bandit autopep8 yapf sphinx mkdocs mkdocs-material ipdb faker locust
    """
)
_NOTEBOOK = words(
    """
    jupyter jupyterlab notebook ipykernel ipython ipywidgets nbconvert nbformat jupyter-client jupyter-server
    papermill
    """
)
_CUDA = {
    "torch": "2.5 GB of CUDA libraries come with it",
    "torchvision": "it brings torch with its CUDA libraries",
    "tensorflow-gpu": "it is made for a GPU",
    "onnxruntime-gpu": "it is made for a GPU and holds 300 MB of kernels for it",
    "cupy-cuda11x": "it is made for a GPU",
    "cupy-cuda12x": "it is made for a GPU",
    "xgboost": "its wheel brings NVIDIA's NCCL, about 300 MB",
}
_CPU = {
    "torch": "Install it from https://download.pytorch.org/whl/cpu.",
    "torchvision": "Install it from https://download.pytorch.org/whl/cpu.",
    "tensorflow-gpu": "Take tensorflow-cpu.",
    "onnxruntime-gpu": "Take onnxruntime.",
    "xgboost": "Take xgboost-cpu of the same version: it predicts the same.",
}
_SYSTEM = {
    "lightgbm": ("libgomp", "libgomp.so.1", "libgomp1"),
    "opencv-python": ("libgl", "libGL.so.1", "libgl1 libglib2.0-0"),
    "opencv-contrib-python": ("libgl", "libGL.so.1", "libgl1 libglib2.0-0"),
}
"""By wheel: what a line that installs it says, the library that it asks for, and Debian's package."""


class Requirement(NamedTuple):
    """A line of a requirements file. `name` in its normal form; `rest` is what follows: versions or an address."""

    name: str
    written: str
    extras: str
    rest: str
    at: Location

    @property
    def version(self) -> str:
        """The one version that is named with `==`; empty where there is none."""
        found = re.fullmatch(r"={2,3}\s*([\w.!+-]+)", self.rest)
        return found[1] if found else ""

    @property
    def pinned(self) -> bool:
        """Whether the next build gets the same, but for fixes: `==`, `~=` with three numbers, or an address."""
        return bool(self.version) or self.rest.startswith("@") or bool(re.match(r"~=\s*\d+\.\d+\.\d+", self.rest))


@dataclass(frozen=True)
class Requirements:
    """A requirements file, with those that it includes.

    Args:
        options: its lines that are options, such as an index.
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
    return re.sub(r"[-_.]+", "-", name).lower()


def read(path: str, context: BuildContext, depth: int = 0) -> Requirements:
    """A requirements file of a context; empty where it cannot be read."""
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
            if included and depth < 5:
                inner = read(f"{dirname(path)}/{included[1]}".lstrip("/"), context, depth + 1)
                lines, options = [*lines, *inner.lines], [*options, *inner.options]
        elif found := requirement(line, context.at(path, number)):
            lines.append(found)
    return Requirements(context.at(path).file, tuple(lines), tuple(options))


def requirement(text: str, at: Location) -> Requirement | None:
    found = _LINE.match(re.sub(r"\s--hash=\S+", "", text))
    if found is None or "/" in text.partition("@")[0] or text.endswith((".whl", ".tar.gz")):
        return None
    return Requirement(normal(found[1]), found[1], found[2] or "", (found[3] or "").strip(), at)


def installed(image: Image) -> list[Requirements]:
    """The requirements files that the stages of an image install."""
    found: dict[str, Requirements] = {}
    for stage in image.used:
        for step in stage.steps:
            for name in _FILE.findall(step.text) if step.instruction.name == "RUN" else []:
                path = _path(name, image)
                if path and path not in found:
                    found[path] = read(path, image.context)
    return list(found.values())


def _path(name: str, image: Image) -> str:
    """The file of the context that a name inside a stage means."""
    same = [path for path in image.context.entries if basename(path) == basename(name)]
    copied = {
        word.strip("/").removeprefix("./")
        for stage in image.used
        for step in stage.steps
        if step.instruction.name in ("COPY", "ADD")
        for word in step.words[:-1]
    }
    wanted = name.removeprefix("./").lstrip("/")
    return min(same, key=lambda path: (path not in copied, path != wanted, len(path)), default="")


def check(image: Image, containers: list[Container]) -> Iterator[Finding]:
    """What is wrong with what an image installs.

    Args:
        containers: those that run it.
    """
    develops = bool(containers) and all(container.for_development for container in containers)
    for found in installed(image):
        yield from unpinned(found)
        if not develops:
            yield from _dev(found, containers)
            yield from _cuda(found, image, containers)
        yield from _system(found, image)
    yield from _inline(image)


def unpinned(found: Requirements) -> Iterator[Finding]:
    """Lines without a version, unless a constraints file may give them one."""
    if any(re.match(r"-c|--constraint|--require-hashes", option) for option in found.options):
        return
    loose = [line for line in found.lines if not line.pinned and line.name not in _TOOLS]
    if loose:
        names = listed(line.written for line in loose)
        message = (
            f"{names} {'have' if len(loose) > 1 else 'has'} no exact version, so the next build may install others."
        )
        fix = "Write the versions that you tested: pip freeze, or pip-compile, or uv pip compile."
        yield finding("unpinned-requirements", loose[0].at, message, fix)


def _dev(found: Requirements, containers: list[Container]) -> Iterator[Finding]:
    notebook = any(container.program[:1] == ["jupyter"] for container in containers)
    unneeded = _DEV | (frozenset() if notebook else _NOTEBOOK)
    lines = [line for line in found.lines if line.name in unneeded]
    if lines:
        names = listed(line.written for line in lines)
        message = (
            f"{names} {'are' if len(lines) > 1 else 'is'} installed in the image, where nothing runs {_them(lines)}."
        )
        yield finding(
            "dev-requirements", lines[0].at, message, "Move them to a file of their own: requirements-dev.txt."
        )


def _them(lines: list[Requirement]) -> str:
    return "them" if len(lines) > 1 else "it"


def _cuda(found: Requirements, image: Image, containers: list[Container]) -> Iterator[Finding]:
    if "whl/cpu" in " ".join(found.options) or _gpu(image, containers):
        return
    if any("whl/cpu" in step.text for stage in image.used for step in stage.steps):
        return
    for line in found.lines:
        cuda = "cuda" in line.extras or re.search(r"\+cu\d", line.rest)
        if line.name.startswith("nvidia-") or cuda:
            message = f"{line.name}{line.extras} brings CUDA, and nothing here asks for a GPU."
            yield finding("cuda-in-image", line.at, message, "Take the build for processors.")
            return
        if line.name in _CUDA and "+cpu" not in line.rest and not _old(line):
            fix = _CPU.get(line.name, "Take the build for processors.")
            yield finding("cuda-in-image", line.at, f"{line.name} is the build for GPUs: {_CUDA[line.name]}.", fix)
            return


def _old(line: Requirement) -> bool:
    """Whether it is an XGBoost from before NCCL came with the wheel."""
    return line.name == "xgboost" and bool(re.match(r"0\.|1\.|2\.0", line.version))


def _gpu(image: Image, containers: list[Container]) -> bool:
    bases = " ".join(stage.base for stage in image.used)
    asked = any(
        container.service is not None
        and (
            container.service.node.get("gpus")
            or container.service.node.get("deploy", "resources", "reservations", "devices")
            or container.service.text("runtime") == "nvidia"
        )
        for container in containers
    )
    return asked or bool(re.search(r"cuda|nvidia|gpu|rocm", bases))


def _system(found: Requirements, image: Image) -> Iterator[Finding]:
    final = image.final
    if final is None or not (
        base(final.base).lacks("curl") and base(final.base).name in ("python", "debian", "ubuntu")
    ):
        return
    for line in found.lines:
        if line.name not in _SYSTEM or "alpine" in final.base:
            continue
        says, library, package = _SYSTEM[line.name]
        texts = " ".join(step.text for step in final.all_steps if step.instruction.name in ("RUN", "COPY"))
        if not re.search(rf"{says}|gcc|g\+\+|build-essential|gfortran|/usr\b|/lib\b", texts):
            message = f"{line.name} needs {library}, which `{final.base}` does not have: importing it fails."
            fix = f"RUN apt-get update && apt-get install -y --no-install-recommends {package} in the final stage."
            yield finding("system-library-missing", line.at, message, fix)


def _inline(image: Image) -> Iterator[Finding]:
    """Packages that a RUN names itself, without versions."""
    for stage in image.used:
        for step in stage.steps:
            for part in _INLINE.findall(step.text) if step.instruction.name == "RUN" else []:
                names = [word for word in _packages(split(part)) if normal(word) not in _TOOLS]
                if names:
                    at = image.at(step.instruction.line_of(names[0]))
                    message = f"{listed(names)} {'are' if len(names) > 1 else 'is'} installed without an exact version."
                    yield finding("unpinned-requirements", at, message, f"Name it: {names[0]}==VERSION.")
                    return


def _packages(words: list[str]) -> Iterator[str]:
    """The bare names among the words behind `pip install`."""
    skip = False
    for word in words:
        bare = re.fullmatch(r"[A-Za-z][\w.-]*(?:\[[\w,-]+\])?", word)
        if not skip and bare and not word.endswith((".whl", ".txt", ".gz", ".toml")):
            yield word
        skip = word in (
            "-r",
            "-c",
            "-e",
            "-i",
            "-f",
            "--index-url",
            "--extra-index-url",
            "--target",
            "-t",
            "--find-links",
        )
