"""Rules about the versions that wrote pickled models, and the packages that reading them needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from posixpath import basename
from typing import ClassVar

from estiba.doctor.finding import Finding
from estiba.doctor.read.build_context import relative_source
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.read.pickled_models import SUFFIXES, Pickled, look
from estiba.doctor.read.python_sources import loaded_files
from estiba.doctor.read.requirement_files import Requirement, Requirements, command_requirements
from estiba.doctor.rule import Dependencies, Rule

_DISTRIBUTION = {"sklearn": "scikit-learn"}
_BRING_SKLEARN = frozenset(
    """
    mlflow imbalanced-learn category-encoders pycaret skops shap autogluon flaml tpot eli5 yellowbrick
    feature-engine librosa sentence-transformers skl2onnx estiba lightgbm scikit-learn-intelex scikeras sktime
    tsfresh evidently h2o
    """.split()  # noqa: SIM905
)
"""Distributions that depend on scikit-learn or on boosters."""

_CONSTRAINTS = re.compile(r"-c|--constraint|--require-hashes")
"""Options with which another file may name the version."""

_OTHER_VERSION = re.compile(r"unpickle estimator (\w+) from version ([\w.]+) when using version ([\w.]+)")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named ['\"]([\w.]+)['\"]")


def _pickles(dependencies: Dependencies) -> Iterator[tuple[str, Pickled]]:
    """Yield each pickled model that the image may read, with its name for messages."""
    for path in dependencies.models:
        if path.endswith(SUFFIXES) and _may_be_read(path, dependencies):
            pickled = look(dependencies.context.folder / path)
            if pickled is not None:
                yield dependencies.context.at(path).file, pickled


def _may_be_read(path: str, dependencies: Dependencies) -> bool:
    """Return True unless no COPY brings a model, no folder with it is mounted, and no code names it."""
    image = dependencies.image
    if image is None:
        return True
    copies = (step for stage in image.used for step in stage.steps if step.instruction.name in ("COPY", "ADD"))
    sources = (source for step in copies if "from" not in step.instruction.flags for source in step.arguments[:-1])
    if any(path in image.context.matching(source) for source in sources if "$" not in source):
        return True
    for container in dependencies.containers:
        if any(f"/{path}".startswith(f"/{relative_source(mount.source)}/") for mount in container.mounts):
            return True
        used = (use.path for module in container.modules for use in loaded_files(module, container.code_environment))
        if basename(path) in map(basename, used) or container.mounts:
            return True
    return False


class PickleVersion(Rule):
    code = "pickle-version"
    severity = "error"
    title = "The model was pickled by another version of the library than is installed."
    reason = (
        "A pickle holds the private attributes of one version. Another one fails when it loads the model, or loads it "
        "and answers otherwise with only a warning in the log."
    )
    example: ClassVar = {
        "docker logs": "Trying to unpickle estimator Ridge from version 1.2.2 when using version 1.6.1\n"
    }
    remedy = (
        "Install the version that wrote the model, or train it again with the installed one. A model packed by "
        "`estiba pack` names its versions, and is checked when it is loaded."
    )
    shown_by = "test_a_model_of_another_scikit_learn"
    explains_exit = True

    @classmethod
    def check_dependencies(cls, dependencies: Dependencies) -> Iterator[Finding]:
        requirements = [*dependencies.requirements, *_commands(dependencies)]
        for name, pickled in _pickles(dependencies) if requirements else ():
            yield from cls._sklearn(name, pickled.sklearn, requirements)
            numpy = _pinned("numpy", requirements)
            if "numpy._core" in pickled.packages and numpy is not None and numpy.version.startswith(("1.", "0.")):
                message = f"`{name}` was pickled with NumPy 2 or newer, which NumPy {numpy.version} cannot read."
                yield cls.finding(numpy.at, message, "Install numpy 2, or train the model again.")

    @classmethod
    def _sklearn(cls, name: str, version: str, requirements: Sequence[Requirements]) -> Iterator[Finding]:
        if not version:
            return
        wrote = f"`{name}` was pickled by scikit-learn {version}"
        pin = _pinned("scikit-learn", requirements)
        if pin is None:
            yield from cls._unpinned(wrote, version, requirements)
        elif _minor(pin.version) != _minor(version):
            fix = f"Install scikit-learn=={version}, or train the model again with {pin.version}."
            yield cls.finding(pin.at, f"{wrote}, and {pin.version} is installed to read it.", fix)

    @classmethod
    def _unpinned(cls, wrote: str, version: str, requirements: Sequence[Requirements]) -> Iterator[Finding]:
        """Compare with a range of versions, which may be any."""
        lines = [line for file in requirements for line in file.lines if line.name == "scikit-learn"]
        constrained = any(_CONSTRAINTS.match(option) for file in requirements for option in file.options)
        for line in lines[:1]:
            if _refuses(line, version):
                message = f"{wrote}, which `scikit-learn{line.rest}` does not allow."
                yield cls.finding(line.at, message, f"Install scikit-learn=={version}, or train the model again.")
            elif not line.pinned and not constrained and _allows_next(line, version):
                message = f"{wrote}, and `{line.written}{line.rest}` probably installs another version to read it."
                fix = f"Pin it: scikit-learn=={version}; or train the model again with the version that is installed."
                yield cls.finding(line.at, message, fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        if match := _OTHER_VERSION.search(container.log):
            message = f"Its model was pickled by scikit-learn {match[2]}, and it has scikit-learn {match[3]}."
            fix = f"Install scikit-learn=={match[2]}, or train the model again."
            yield cls.finding(container.at, message, fix)


def _commands(dependencies: Dependencies) -> list[Requirements]:
    return command_requirements(dependencies.image) if dependencies.image is not None else []


def _pinned(name: str, requirements: Sequence[Requirements]) -> Requirement | None:
    lines = (file.version_of(name) for file in requirements)
    return next((line for line in lines if line is not None), None)


def _allows_next(line: Requirement, version: str) -> bool:
    """Return True if a range of versions also contains a later one, which may not read the pickle."""
    major, minor = (*_minor(version), 0)[:2]
    return not (_refuses(line, f"{major}.{minor + 1}.0") and _refuses(line, f"{major + 1}.0.0"))


def _refuses(line: Requirement, version: str) -> bool:
    """Return True if a range of versions does not contain a version."""
    for sign, bound_text in re.findall(r"(>=|<=|<|>|~=)\s*(\d+(?:\.\d+)*)", line.rest):
        numbers, bound = _numbers(version), _numbers(bound_text)
        below = numbers[: len(bound)] < bound
        above = numbers[: len(bound)] > bound
        compatible = numbers[: len(bound) - 1] == bound[:-1]  # ~=1.2.3 allows what begins with 1.2
        refused = {">=": below, ">": below, "<=": above, "<": not below, "~=": below or not compatible}
        if refused[sign]:
            return True
    return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:4])


def _minor(version: str) -> tuple[int, ...]:
    """Return the first two numbers: scikit-learn reads pickles of other versions with the same ones."""
    return _numbers(version)[:2]


class ModuleMissing(Rule):
    code = "module-missing"
    severity = "error"
    title = "A Python module that the program imports is not installed."
    reason = "The program exits when it starts, or fails when it reads the model that needs the module."
    example: ClassVar = {"docker logs": "ModuleNotFoundError: No module named 'xgboost.core'\n"}
    remedy = "Add the package to the requirements, in the version that the model was trained with."
    shown_by = "test_a_model_that_needs_what_is_not_installed"
    explains_exit = True

    @classmethod
    def check_dependencies(cls, dependencies: Dependencies) -> Iterator[Finding]:
        for requirements in dependencies.requirements:
            includes = any(re.match(r"-e|--editable|-r|--requirement", option) for option in requirements.options)
            if includes or not requirements.lines or requirements.names & _BRING_SKLEARN:
                continue
            for name, pickled in _pickles(dependencies):
                for package in sorted(pickled.packages - {"numpy._core"}):
                    yield from cls._package(package, name, pickled, requirements)

    @classmethod
    def _package(cls, package: str, name: str, pickled: Pickled, requirements: Requirements) -> Iterator[Finding]:
        distribution = _DISTRIBUTION.get(package, package)
        if any(other == distribution or other.startswith(f"{distribution}-") for other in requirements.names):
            return
        version = f"=={pickled.sklearn}" if package == "sklearn" and pickled.sklearn else ""
        message = f"`{name}` cannot be read without {distribution}, which probably is not installed."
        yield cls.finding(requirements.lines[0].at, message, f"Add {distribution}{version} to {requirements.file}.")

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        if match := _NO_MODULE.search(container.log):
            fix = f"Add {match[1].partition('.')[0]} to the requirements."
            yield cls.finding(container.at, f"It imports {match[1]}, which is not installed.", fix)
