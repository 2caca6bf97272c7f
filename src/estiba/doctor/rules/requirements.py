"""Rules about versions, tools for development, CUDA and system libraries of installed packages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from estiba.doctor.finding import Finding, listed
from estiba.doctor.read.containers import Container, Image
from estiba.doctor.read.dockerfile_syntax import split
from estiba.doctor.read.image_names import parse_image_name
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.read.requirement_files import OPTIONS_WITH_VALUE, PIP_INSTALL, Requirement, Requirements, normal
from estiba.doctor.rule import Dependencies, Rule

_SUBSTITUTION = re.compile(r"[<$]\([^)]*\)|`[^`]*`")
_INSTALLERS = frozenset(("pip", "setuptools", "wheel", "uv", "poetry", "pipenv", "build", "hatch", "pdm", "pip-tools"))
_DEVELOPMENT = frozenset(
    """
    pytest pytest-cov pytest-asyncio pytest-mock pytest-xdist coverage hypothesis tox nox black flake8 ruff isort
    mypy pylint pre-commit bandit autopep8 yapf sphinx mkdocs mkdocs-material ipdb faker locust
    """.split()  # noqa: SIM905
)
_NOTEBOOK = frozenset(
    """
    jupyter jupyterlab notebook ipykernel ipython ipywidgets nbconvert nbformat jupyter-client jupyter-server
    papermill
    """.split()  # noqa: SIM905
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
_CUDA_PACKAGE = re.compile(
    r"nvidia-(?:cu|nccl|nvtx|nvjitlink|nvshmem|dali|tensorrt|npp|nvjpeg)|(?:cudf|cuml|cugraph)-cu\d|tensorrt"
)
"""Wheels with CUDA libraries; nvidia-ml-py and others only talk to the driver."""

_CPU = {
    "torch": "Install it from https://download.pytorch.org/whl/cpu.",
    "torchvision": "Install it from https://download.pytorch.org/whl/cpu.",
    "tensorflow-gpu": "Use tensorflow-cpu.",
    "onnxruntime-gpu": "Use onnxruntime.",
    "xgboost": "Use xgboost-cpu of the same version: it predicts the same.",
}
_SYSTEM = {
    "lightgbm": ("libgomp", "libgomp.so.1", "libgomp1"),
    "opencv-python": ("libgl", "libGL.so.1", "libgl1 libglib2.0-0"),
    "opencv-contrib-python": ("libgl", "libGL.so.1", "libgl1 libglib2.0-0"),
}
"""By wheel: a word of each command that installs its library, the library, and Debian's package."""

_NO_LIBRARY = re.compile(r"(?:OSError|ImportError): (\S+\.so[\w.]*): cannot open shared object file")


class UnpinnedRequirements(Rule):
    code = "unpinned-requirements"
    severity = "warning"
    title = "Requirements without versions: the next build may install others."
    reason = (
        "The image that was tested and the one that is built tomorrow hold other versions. A new scikit-learn may not "
        "load the model, or answer otherwise."
    )
    example: ClassVar = {"requirements.txt": "fastapi\njoblib\nscikit-learn\nuvicorn\n"}
    remedy = "Write the versions that you tested: `pip freeze`, `pip-compile` or `uv pip compile`."

    @classmethod
    def check_dependencies(cls, dependencies: Dependencies) -> Iterator[Finding]:
        for requirements in dependencies.requirements:
            yield from cls._file(requirements)
        if dependencies.image is not None:
            yield from cls._commands(dependencies.image)

    @classmethod
    def _file(cls, requirements: Requirements) -> Iterator[Finding]:
        """Check a file, unless a constraints file may give its packages a version."""
        if any(re.match(r"-c|--constraint|--require-hashes", option) for option in requirements.options):
            return
        loose = [line for line in requirements.lines if not line.pinned and line.name not in _INSTALLERS]
        if loose:
            names = listed(line.written for line in loose)
            have = "have" if len(loose) > 1 else "has"
            message = f"{names} {have} no exact version, so the next build may install others."
            fix = "Write the versions that you tested: pip freeze, or pip-compile, or uv pip compile."
            yield cls.finding(loose[0].at, message, fix)

    @classmethod
    def _commands(cls, image: Image) -> Iterator[Finding]:
        """Check the packages that a RUN names itself."""
        runs = (step for stage in image.used for step in stage.steps if step.instruction.name == "RUN")
        for step in runs:
            for arguments in PIP_INSTALL.findall(_SUBSTITUTION.sub("", step.text)):
                names = [name for name in _packages(split(arguments)) if normal(name) not in _INSTALLERS]
                if names:
                    at = image.at(step.instruction.line_of(names[0]))
                    message = f"{listed(names)} {'are' if len(names) > 1 else 'is'} installed without an exact version."
                    yield cls.finding(at, message, f"Name it: {names[0]}==VERSION.")
                    return


def _packages(arguments: list[str]) -> Iterator[str]:
    """Yield the arguments of `pip install` that are names of packages without a version."""
    is_value = False
    for argument in arguments:
        bare = re.fullmatch(r"[A-Za-z][\w.-]*(?:\[[\w,-]+\])?", argument)
        if not is_value and bare and not argument.endswith((".whl", ".txt", ".gz", ".toml")):
            yield argument
        is_value = argument in OPTIONS_WITH_VALUE


class DevRequirements(Rule):
    code = "dev-requirements"
    severity = "warning"
    title = "Image too big: tools for development or notebooks are installed."
    reason = "They and their dependencies add up to hundreds of megabytes, and more packages with vulnerabilities."
    example: ClassVar = {
        "requirements.txt": "fastapi==0.115.6\njoblib==1.4.2\nscikit-learn==1.6.1\nuvicorn==0.34.0\npytest==8.3.4\n",
    }
    remedy = "Move them to a file of their own, requirements-dev.txt, that the Dockerfile does not install."

    @classmethod
    def check_dependencies(cls, dependencies: Dependencies) -> Iterator[Finding]:
        containers = dependencies.containers
        if dependencies.image is None or _for_development(containers):
            return
        if not all(container.command_line[0] for container in containers) and not _plain(dependencies.image):
            return  # the base image decides what runs
        started = {word for container in containers for word in _started(container)}
        needed = started | (_NOTEBOOK if started & _NOTEBOOK else frozenset())
        unneeded = (_DEVELOPMENT | _NOTEBOOK) - needed
        for requirements in dependencies.requirements:
            lines = [line for line in requirements.lines if line.name in unneeded]
            if lines:
                names = listed(line.written for line in lines)
                are, them = ("are", "them") if len(lines) > 1 else ("is", "it")
                message = f"{names} {are} installed in the image, where nothing runs {them}."
                fix = "Move them to a file of their own: requirements-dev.txt."
                yield cls.finding(lines[0].at, message, fix)


def _plain(image: Image) -> bool:
    """Return True for a public base image, which starts no tool for development by itself."""
    final = image.final
    return final is not None and parse_image_name(final.base).known_root


def _started(container: Container) -> Iterator[str]:
    """Yield the words of the command, and of a script of the build context that it starts."""
    for argument in container.command_line[0]:
        yield from re.findall(r"[\w-]+", argument)
        source = container.source_of(argument)
        if source.endswith((".sh", ".bash")) and container.image is not None:
            yield from re.findall(r"[\w-]+", container.image.context.text(source) or "")


def _for_development(containers: Sequence[Container]) -> bool:
    return bool(containers) and all(container.for_development for container in containers)


class CudaInImage(Rule):
    code = "cuda-in-image"
    severity = "warning"
    title = "Image too big: the CUDA build of a library, where nothing asks for a GPU."
    reason = "Gigabytes of GPU libraries are pulled to every machine, and none of them is ever loaded."
    example: ClassVar = {
        "requirements.txt": "fastapi==0.115.6\njoblib==1.4.2\nscikit-learn==1.6.1\ntorch==2.5.1\nuvicorn==0.34.0\n",
    }
    remedy = "Install the build for CPUs; for PyTorch it is at https://download.pytorch.org/whl/cpu."

    @classmethod
    def check_dependencies(cls, dependencies: Dependencies) -> Iterator[Finding]:
        image, containers = dependencies.image, dependencies.containers
        if image is None or _for_development(containers) or _gpu(image, containers):
            return
        if any("whl/cpu" in step.text for stage in image.used for step in stage.steps):
            return
        for requirements in dependencies.requirements:
            if "whl/cpu" not in " ".join(requirements.options):
                yield from cls._file(requirements)

    @classmethod
    def _file(cls, requirements: Requirements) -> Iterator[Finding]:
        for line in requirements.lines:
            cuda = "cuda" in line.extras or re.search(r"\+cu\d", line.rest)
            if _CUDA_PACKAGE.match(line.name) or cuda:
                message = f"{line.name}{line.extras} brings CUDA, and nothing here asks for a GPU."
                yield cls.finding(line.at, message, "Use the build for CPUs.")
                return
            if line.name in _CUDA and "+cpu" not in line.rest and not _before_nccl(line):
                message = f"{line.name} is the build for GPUs: {_CUDA[line.name]}."
                yield cls.finding(line.at, message, _CPU.get(line.name, "Use the build for CPUs."))
                return


def _before_nccl(line: Requirement) -> bool:
    """Return True for an XGBoost from before NCCL came with the wheel."""
    return line.name == "xgboost" and bool(re.match(r"0\.|1\.|2\.0", line.version))


def _gpu(image: Image, containers: Sequence[Container]) -> bool:
    requested = any(
        container.service is not None
        and (
            container.service.node.get("gpus")
            or container.service.node.get("deploy", "resources", "reservations", "devices")
            or container.service.text("runtime") == "nvidia"
        )
        for container in containers
    )
    bases = " ".join(stage.base for stage in image.used)
    return requested or bool(re.search(r"cuda|nvidia|gpu|rocm", bases))


class SystemLibraryMissing(Rule):
    code = "system-library-missing"
    severity = "error"
    title = "A wheel needs a system library that the slim base does not have."
    reason = "`pip install` succeeds, and the program fails at the import, as the wheel does not contain the library."
    example: ClassVar = {
        "requirements.txt": "fastapi==0.115.6\njoblib==1.4.2\nlightgbm==4.5.0\nscikit-learn==1.6.1\nuvicorn==0.34.0\n",
    }
    remedy = "Install the package in the final stage: `apt-get install -y --no-install-recommends libgomp1`."
    explains_exit = True

    @classmethod
    def check_dependencies(cls, dependencies: Dependencies) -> Iterator[Finding]:
        final = dependencies.image.final if dependencies.image else None
        base = parse_image_name(final.base) if final else None
        if final is None or base is None or base.name not in ("python", "debian", "ubuntu") or not base.lacks("curl"):
            return
        commands = " ".join(step.text for step in final.all_steps if step.instruction.name in ("RUN", "COPY"))
        for requirements in dependencies.requirements:
            for line in requirements.lines if "alpine" not in final.base else ():
                if line.name not in _SYSTEM:
                    continue
                word, library, package = _SYSTEM[line.name]
                if not re.search(rf"{word}|gcc|g\+\+|build-essential|gfortran|/usr\b|/lib\b", commands):
                    message = f"{line.name} needs {library}, which `{final.base}` does not have: importing it fails."
                    install = f"RUN apt-get update && apt-get install -y --no-install-recommends {package}"
                    yield cls.finding(line.at, message, f"{install} in the final stage.")

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        if match := _NO_LIBRARY.search(container.log):
            message = f"It cannot load {match[1]}, which the image does not have."
            fix = "Install its package in the image (libgomp.so.1: libgomp1)."
            yield cls.finding(container.at, message, fix)
