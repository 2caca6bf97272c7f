"""Render the pipeline of a project for GitHub Actions or GitLab CI: lint, test, build, scan, sign and deploy.

The pipelines are the YAML files in `ci_templates`. A word such as `__PYTHON__` is a placeholder. A line is repeated for
each value of its placeholder, and left out if there is none: `estiba verify __MODEL__` is one line for each model.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from estiba.core import installation
from estiba.core.errors import BadProject
from estiba.core.stores.disk import explained
from estiba.deploy.plan import image_options
from estiba.deploy.plan.image_options import ImageOptions

FILES = {"github": ".github/workflows/estiba.yml", "gitlab": ".gitlab-ci.yml"}
"""By host, the path of its pipeline in a project."""

TEMPLATES = Path(__file__).parent / "ci_templates"

_PLACEHOLDER = re.compile(r"__([A-Z]+)__")

TOOLS = ("pip-audit==2.10.1", "pytest==9.2.0", "ruff==0.17.5")
"""Programs that the jobs need beside Estiba."""

VENDOR = "vendor"
"""The folder of a project with the wheel of Estiba that its pipeline installs."""

_KEPT = "estiba"
"""The folder, in the home folder of the runner that deploys, of what a checkout must not remove."""

_GIT = re.compile(r"git\+(https|ssh)://\S+@[0-9a-f]{40}(#subdirectory=\S+)?")

_URL = re.compile(r"https://\S+\.whl#sha256=[0-9a-f]{64}")


class CiOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[ci]` of the project file: the pipeline that `estiba ci` writes.

    Args:
        estiba: where the pipeline installs Estiba from: a wheel in the project, the URL of a wheel with its digest
            (`https://.../estiba-0.1.0-py3-none-any.whl#sha256=...`), or a commit in Git (`git+https://...@COMMIT`). By
            default the commit or the URL that this Estiba was installed from; else `estiba ci` puts its wheel into
            `vendor/`.
    """

    estiba: str = ""


class Installed(NamedTuple):
    """The argument of pip that installs Estiba, and a line for `sha256sum` where pip itself checks no digest."""

    requirement: str
    checksum: str = ""


def check(options: CiOptions) -> None:
    """Raise BadProject where `estiba` does not name one file or one commit."""
    source = options.estiba
    is_wheel = source.endswith(".whl") and "://" not in source
    if not source or is_wheel or _GIT.fullmatch(source) or _URL.fullmatch(source):
        return
    hint = (
        "Name a wheel in the project, the URL of a wheel with #sha256= and its digest, or a commit in Git: "
        "git+https://...@COMMIT with all 40 digits."
    )
    raise BadProject(f"ci.estiba: {source!r} is not a file or a commit that cannot change.", hint=hint)


def installed(folder: Path, options: CiOptions) -> Installed | None:
    """Choose what the pipeline of a project installs; None where the wheel of this Estiba has to be vendored.

    Raises:
        BadProject: there is no wheel where the project names one.
    """
    recorded = installation.origin().location
    source = options.estiba or (recorded if _GIT.fullmatch(recorded) or _URL.fullmatch(recorded) else "")
    if not source:
        return None
    if "://" in source:
        return Installed(f"estiba[train,deploy] @ {source}")
    if not (folder / source).is_file():
        hint = "Put the wheel there, or remove the key."
        raise BadProject(f"ci.estiba: there is no {source} in {folder}.", hint=hint)
    return vendored(source, (folder / source).read_bytes())


def vendored(path: str, content: bytes) -> Installed:
    """Return the arguments for a wheel in the project, at a path relative to its folder."""
    return Installed(f"./{path}[train,deploy]", f"{hashlib.sha256(content).hexdigest()}  {path}")


@dataclass(frozen=True)
class Pipeline:
    """The variable parts of a pipeline.

    Args:
        project: its name in file names. python: the minor version. estiba: what to install.
        models: names of the models to verify. repository: the prefix of the images' names.
        target: `compose` or `kubernetes`. requirements: the project's own file of packages, or empty.
        tests: the folder of its tests, or empty.
    """

    project: str
    python: str
    estiba: Installed
    models: tuple[str, ...]
    repository: str
    target: str
    requirements: str = ""
    tests: str = ""

    @property
    def registry(self) -> str:
        """The host of the container registry."""
        return image_options.host(f"{self.repository}/")

    @property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """The values of each placeholder."""
        return {
            "PYTHON": (self.python,),
            "CHECKSUM": (self.estiba.checksum,) * bool(self.estiba.checksum),
            "ESTIBA": (self.estiba.requirement,),
            # The image of Python that GitLab's jobs run in has no Git.
            "GIT": ("git",) * self.estiba.requirement.partition(" @ ")[2].startswith("git+"),
            "TOOLS": (" ".join(TOOLS),),
            "REQUIREMENTS": (self.requirements,) * bool(self.requirements),
            # GitHub keys the cache by the file of requirements.
            "CACHE": ("pip",) * bool(self.requirements),
            "MODEL": self.models,
            "TESTS": (self.tests,) * bool(self.tests),
            "REGISTRY": (self.registry,),
            "KEPT": (f"{_KEPT}/{self.project}",),
            "LOGIN": (self.registry,) * (self.target == "compose"),
            "DEPLOY": self._deploy(),
        }

    def _deploy(self) -> tuple[str, ...]:
        if self.target == "compose":
            return (f'estiba deploy compose --yes --output "$HOME/{_KEPT}/{self.project}/compose"',)
        return ("estiba kubernetes --pin images.json", "estiba deploy kubernetes production --yes")


def of(
    folder: Path, name: str, options: ImageOptions, models: Iterable[str], target: str, estiba: Installed
) -> Pipeline:
    """The pipeline of a project: with its own packages and tests, if it has any."""
    requirements = "requirements.txt" if (folder / "requirements.txt").is_file() else ""
    tests = "tests" if (folder / "tests").is_dir() else ""
    python = options.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    slug = image_options.slug(name)
    return Pipeline(slug, python, estiba, tuple(models), options.repository, target, requirements, tests)


def render(pipeline: Pipeline, host: str) -> str:
    """The file for `github` or `gitlab`."""
    path = TEMPLATES / f"{host}.yml"
    with explained("read", path):
        lines = path.read_text().splitlines()
    return "".join(f"{filled}\n" for line in lines for filled in _filled(line, pipeline.values))


def _filled(line: str, values: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """The line once for each value of its placeholder; a line without one stays as it is."""
    placeholder = _PLACEHOLDER.search(line)
    if placeholder is None:
        yield line
        return
    for value in values[placeholder[1]]:
        yield line.replace(placeholder[0], value)
