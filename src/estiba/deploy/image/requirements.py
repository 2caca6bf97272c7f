"""Resolve the packages of an image: exactly those that serving needs, at the versions installed here."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from estiba.core.errors import EstibaError, NotFound
from estiba.core.stores.disk import explained
from estiba.deploy.plan.plan import PlannedModel

_TABLES = "draws tables and colours in a terminal"
_READS = "ONNX Runtime reads and runs a model without it"

_NOT_SERVED = {
    ("estiba", "rich"): _TABLES,
    ("estiba", "urllib3"): "asks other servers; this one is asked",
    ("onnxruntime", "flatbuffers"): _READS,
    ("onnxruntime", "packaging"): _READS,
    ("onnxruntime", "protobuf"): _READS,
    ("onnxruntime", "sympy"): _READS,
    ("onnxruntime", "coloredlogs"): _READS,
}
"""By package and its dependency, the reason why a server does not need it."""

CPU_BUILDS = {"xgboost": "xgboost-cpu", "tensorflow": "tensorflow-cpu"}
"""By package, its build without the parts for graphics cards; the version numbers are equal."""

POSTGRES_DRIVER = ("psycopg", "psycopg-binary")
"""Packages of a state store in PostgreSQL."""

_GRAPHICS = re.compile(r"nvidia-.*|.*-cu1[0-9]|triton|cuda-.*|cupy.*")

_PINNED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?\s*(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Pin:
    """One package of an image.

    Args:
        name: normalised (PEP 503). why: the package that needs it.
    """

    name: str
    version: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Lock:
    """Packages of an image by name, and the reasons for those that are left out."""

    pins: tuple[Pin, ...]
    left_out: Mapping[str, str]


def serving(models: Sequence[PlannedModel], extra: Sequence[str] = ()) -> Lock:
    """Resolve the packages that a server of these models needs.

    A library that runs a model itself has the version that packed it; all others have the version installed here, which
    is the one that was tested.

    Args:
        extra: further packages, which have to be installed here.

    Raises:
        EstibaError: two models need different versions of one library. NotFound: a package is not installed here.
    """
    versions = _versions(models)
    pins: dict[str, Pin] = {}
    without = {} if "onnxruntime" in extra else _without_onnxruntime(models)
    unneeded: dict[str, str] = {}
    pending = [("estiba", "the server"), *((name, "a model's own library") for name in versions)]
    pending += [(normal(name), "asked for") for name in extra]
    while pending:
        asked, why = pending.pop()
        name = CPU_BUILDS.get(asked, asked)
        if name != asked:
            without[asked] = f"{name} is the same without what only graphics cards need"
        elif _GRAPHICS.fullmatch(name):
            without[name] = "only for graphics cards"
        if name in pins or name in without:
            continue
        version = versions.get(asked) or versions.get(name) or _installed(name, asked)
        pins[name] = Pin(name, version, why)
        for needed in _dependencies(asked if _is_installed(asked) else name):
            if reason := _NOT_SERVED.get((name, needed)):
                unneeded[needed] = reason
            else:
                pending.append((needed, name))
    del pins["estiba"]
    left_out = without | {name: reason for name, reason in unneeded.items() if name not in pins}
    return Lock(tuple(pins[name] for name in sorted(pins)), left_out)


def _without_onnxruntime(models: Sequence[PlannedModel]) -> dict[str, str]:
    """The reason not to install ONNX Runtime; empty if it is needed."""
    graphs = [model for model in models if model.engine == "onnx" or model.split]
    if not models:
        return {}
    if not graphs:
        return {"onnxruntime": "no model is in ONNX"}
    if all(_runs_in_kernel(model) for model in graphs):
        return {"onnxruntime": "Estiba's own kernel answers every model here, and faster"}
    return {}


def _runs_in_kernel(model: PlannedModel) -> bool:
    from estiba.model.artifact.artifact import read
    from estiba.model.engines import open_engine
    from estiba.model.engines.tail import open_tail

    if model.split:
        return open_tail(read(model.path, verify=False))[0] == "estiba kernel"
    return open_engine(read(model.path, verify=False)).runtime == "estiba kernel"


def training(folder: Path, include: Sequence[str]) -> Lock:
    """Resolve the packages for training: Estiba's extra `train`, and the imports of the project's code.

    Args:
        include: files and folders of the project.

    Raises:
        EstibaError: a file cannot be read. NotFound: a package is not installed here.
    """
    return serving((), extra=[*_extra("train"), "rich", "urllib3", *sorted(imported(folder, include))])


def _extra(name: str) -> list[str]:
    """Names of the packages in one of Estiba's extras."""
    lines = metadata.requires("estiba") or []
    matches = [re.match(r"[A-Za-z0-9._-]+", line) for line in lines if f'extra == "{name}"' in line.replace("'", '"')]
    return [match[0] for match in matches if match]


def imported(folder: Path, include: Sequence[str]) -> set[str]:
    """Installed distributions that Python files import, without Estiba itself."""
    installed = metadata.packages_distributions()
    names: set[str] = set()
    for name in include:
        for path in sorted([folder / name, *(folder / name).rglob("*.py")]):
            if path.suffix == ".py" and path.is_file():
                with explained("read", path):
                    tree = ast.parse(path.read_text())
                for top in _imports(tree):
                    names |= {normal(distribution) for distribution in installed.get(top, ())[:1]}
    return names - {"estiba"}


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _versions(models: Sequence[PlannedModel]) -> dict[str, str]:
    versions: dict[str, str] = {}
    for model in models:
        for name, version in model.libraries.items() if model.engine == "python" else ():
            known = versions.setdefault(normal(name), version)
            if known != version:
                message = f"{model.name} was packed with {name} {version}, another model with {known}."
                hint = "Train them again with the same versions, or give each model a port and thereby its own image."
                raise EstibaError(message, hint=hint)
    return versions


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _installed(name: str, asked: str) -> str:
    for candidate in (name, asked):
        if _is_installed(candidate):
            return metadata.version(candidate)
    raise NotFound(f"The image needs {name}, which is not installed here.", hint=f"Install it: pip install {name}")


def _dependencies(name: str) -> Iterator[str]:
    """Normalised names of the dependencies of a distribution on this system, without extras."""
    for line in metadata.requires(name) or () if _is_installed(name) else ():
        requirement, _, marker = line.partition(";")
        named = re.match(r"[A-Za-z0-9._-]+", requirement)
        if "extra" in marker or named is None:
            continue
        # A dependency whose marker excludes this system or version is not installed here.
        needed = normal(named[0])
        if not marker or _is_installed(needed):
            yield needed


def normal(name: str) -> str:
    """A package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def cpu_only(text: str) -> tuple[str, list[str]]:
    """Remove packages that only graphics cards need from a requirements file.

    Returns:
        The text, and packages to add without a hash: the CPU builds of removed packages.

    Raises:
        EstibaError: torch from the general index, which brings CUDA.
    """
    kept, added = [], []
    for line in _logical_lines(text):
        match = _PINNED.match(line.strip())
        if match is None or line.lstrip().startswith(("#", "-")):
            kept.append(line)
            continue
        name, rest = normal(match["name"]), match["rest"]
        pinned = re.match(r"==\s*([^\s;\\]+)", rest)
        if name == "torch" and not (pinned and "+cpu" in pinned[1]):
            hint = "Pin the CPU build, such as torch==2.5.1+cpu, with the --index-url of PyTorch's CPU wheels."
            raise EstibaError("torch from the general package index includes several GB of GPU libraries.", hint=hint)
        if name in CPU_BUILDS:
            added.append(f"{CPU_BUILDS[name]}=={pinned[1]}" if pinned else CPU_BUILDS[name])
        elif not _GRAPHICS.fullmatch(name):
            kept.append(line)
    return "\n".join(kept) + "\n", added


def _logical_lines(text: str) -> list[str]:
    """The lines of a text; a line that ends in a backslash is joined with the next one."""
    lines: list[str] = []
    continued = False
    for line in text.split("\n"):
        if continued:
            lines[-1] += "\n" + line
        else:
            lines.append(line)
        continued = line.endswith("\\")
    return lines


def locked(wheels: Path, reasons: Mapping[str, str]) -> str:
    """A requirements file that names each wheel of a folder by version and SHA-256.

    Args:
        reasons: by normalised name, the reason that is written into a comment.
    """
    lines = []
    with explained("read", wheels):
        for path in sorted(wheels.glob("*.whl"), key=lambda path: path.name.lower()):
            name, version = wheel_name(path)
            comment = f"# for {reasons[name]}\n" if reasons.get(name) else ""
            lines.append(f"{comment}{name}=={version} \\\n    --hash=sha256:{sha256(path)}\n")
    return "".join(lines)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def wheel_name(path: Path) -> tuple[str, str]:
    """The normalised name and the version in the file name of a wheel."""
    name, version, *_ = path.name.split("-")
    return normal(name), version


def is_graphics(name: str) -> bool:
    """True if only graphics cards need a package; `name` is normalised."""
    return _GRAPHICS.fullmatch(name) is not None
