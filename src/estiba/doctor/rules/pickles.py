"""Rules about the versions that wrote pickled models, and the packages that reading them needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from estiba.doctor.finding import Finding
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.read.pickled_models import SUFFIXES, Pickled, look
from estiba.doctor.read.requirement_files import Requirement, Requirements
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

_OTHER_VERSION = re.compile(r"unpickle estimator (\w+) from version ([\w.]+) when using version ([\w.]+)")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named ['\"]([\w.]+)['\"]")


def _pickles(dependencies: Dependencies) -> Iterator[tuple[str, Pickled, Requirements]]:
    """Yield each pickled model, by its name for messages, with each requirements file that is installed beside it."""
    for path in dependencies.models:
        pickled = look(dependencies.context.folder / path) if path.endswith(SUFFIXES) else None
        for requirements in dependencies.requirements if pickled is not None else ():
            assert pickled is not None
            yield dependencies.context.at(path).file, pickled, requirements


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
        for name, pickled, requirements in _pickles(dependencies):
            yield from cls._sklearn(name, pickled.sklearn, requirements)
            numpy = requirements.version_of("numpy")
            if "numpy._core" in pickled.packages and numpy is not None and numpy.version.startswith(("1.", "0.")):
                message = f"`{name}` was pickled with NumPy 2 or newer, which NumPy {numpy.version} cannot read."
                yield cls.finding(numpy.at, message, "Install numpy 2, or train the model again.")

    @classmethod
    def _sklearn(cls, name: str, version: str, requirements: Requirements) -> Iterator[Finding]:
        if not version:
            return
        wrote = f"`{name}` was pickled by scikit-learn {version}"
        pin = requirements.version_of("scikit-learn")
        line = next((line for line in requirements.lines if line.name == "scikit-learn"), None)
        if pin is not None and _minor(pin.version) != _minor(version):
            fix = f"Install scikit-learn=={version}, or train the model again with {pin.version}."
            yield cls.finding(pin.at, f"{wrote}, and {pin.version} is installed to read it.", fix)
        elif pin is None and line is not None and _refuses(line, version):
            fix = f"Install scikit-learn=={version}, or train the model again."
            yield cls.finding(line.at, f"{wrote}, which `scikit-learn{line.rest}` does not allow.", fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        if match := _OTHER_VERSION.search(container.log):
            message = f"Its model was pickled by scikit-learn {match[2]}, and it has scikit-learn {match[3]}."
            fix = f"Install scikit-learn=={match[2]}, or train the model again."
            yield cls.finding(container.at, message, fix)


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
        for name, pickled, requirements in _pickles(dependencies):
            includes = any(re.match(r"-e|--editable|-r|--requirement", option) for option in requirements.options)
            if includes or not requirements.lines or requirements.names & _BRING_SKLEARN:
                continue
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
