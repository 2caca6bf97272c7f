"""Render the pipeline of a project for GitHub Actions or GitLab CI: lint, test, build, scan, sign and deploy.

The pipelines are the YAML files in `ci_templates`. A word such as `__PYTHON__` is a placeholder. A line is repeated for
each value of its placeholder, and left out if there is none: `estiba verify __MODEL__` is one line for each model.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from estiba import __version__
from estiba.core.stores.disk import explained
from estiba.deploy.plan import image_options
from estiba.deploy.plan.image_options import ImageOptions

FILES = {"github": ".github/workflows/estiba.yml", "gitlab": ".gitlab-ci.yml"}
"""By host, the path of its pipeline in a project."""

TEMPLATES = Path(__file__).parent / "ci_templates"

_PLACEHOLDER = re.compile(r"__([A-Z]+)__")

_DEPLOY = {
    "compose": ("estiba deploy compose --yes",),
    "kubernetes": ("estiba kubernetes --pin images.json", "estiba deploy kubernetes production --yes"),
}


@dataclass(frozen=True)
class Pipeline:
    """The variable parts of a pipeline.

    Args:
        python: the minor version. estiba: the version to install.
        models: names of the models to verify. repository: the prefix of the images' names.
        target: `compose` or `kubernetes`. requirements: the project's own file of packages, or empty.
        tests: the folder of its tests, or empty.
    """

    python: str
    estiba: str
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
            "ESTIBA": (self.estiba,),
            "REQUIREMENTS": (self.requirements,) * bool(self.requirements),
            # GitHub keys the cache by the file of requirements.
            "CACHE": ("pip",) * bool(self.requirements),
            "MODEL": self.models,
            "TESTS": (self.tests,) * bool(self.tests),
            "REGISTRY": (self.registry,),
            "DEPLOY": _DEPLOY[self.target],
        }


def of(folder: Path, options: ImageOptions, models: Iterable[str], target: str) -> Pipeline:
    """The pipeline of a project: with its own packages and tests, if it has any."""
    requirements = "requirements.txt" if (folder / "requirements.txt").is_file() else ""
    tests = "tests" if (folder / "tests").is_dir() else ""
    python = options.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    return Pipeline(python, __version__, tuple(models), options.repository, target, requirements, tests)


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
