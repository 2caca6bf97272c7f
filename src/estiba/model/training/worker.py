"""Run one training in a process: a model from its training function to the registry.

It reads a Job from standard input and writes Reports, one JSON object per line, to what was its standard output.
Everything that the training prints goes to standard error.
"""

from __future__ import annotations

import importlib
import inspect
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from estiba.core import child
from estiba.core.child import Failed
from estiba.core.errors import BadProject, EstibaError, MissingExtra, NotTrusted, Unavailable
from estiba.model.packing.pack import Packed, register
from estiba.model.packing.training_result import Trained
from estiba.model.training import fingerprints, mlflow
from estiba.model.training.fingerprints import Fingerprint, Reads
from estiba.model.training.runner import Done, Job, ModelOptions, Progress, Report

_EXPECTED = (
    "It must return estiba.Trained, or a tuple of model, sample, target and metrics (the last two may be left out)."
)


_OF_EXTRAS = {"sklearn": ("scikit-learn", "train"), "pandas": ("pandas", "train")}
"""Modules that training functions import and an extra brings: the library and the extra."""


def main() -> int:
    """Do the job on standard input; 0 where it is done, 1 where a failure was reported."""
    job = child.read_spec(Job)
    tell = child.open_reports()
    child.on_parent_exit(_end_session)
    try:
        tell(_do(job, tell))
        return 0
    except EstibaError as error:
        traceback.print_exc()
        tell(Failed.of(error))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if module in _OF_EXTRAS:
            tell(Failed.of(MissingExtra(*_OF_EXTRAS[module])))
            return 1
        tell(Failed(f"Training {job.name} failed: {type(error).__name__}: {error}", expected=False))
    return 1


def _end_session() -> None:
    """End this process, and all that the training started where it has a session of its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _do(job: Job, tell: Callable[[Report], None]) -> Done:
    folder = Path(job.folder)
    reads = Reads(fingerprints.roots(folder))
    data = {name: Path(path) if path else None for name, path in job.data.items()}
    before = {name: fingerprints.digest_file(path) if path else fingerprints.MISSING for name, path in data.items()}
    named = _named(job.options, folder)
    trained, notes = _trained(job, folder, data)
    reads.stop()
    tell(Progress("packing"))
    options, aliases = job.options, (job.options.alias,) if job.options.alias else ()
    packed = register(
        trained,
        job.name,
        options,
        registry=job.registry,
        aliases=aliases,
        on_built=lambda digest: fingerprints.claim(folder, job.name, digest),
    )
    notes += packed.notes + _track(job, packed, tell)
    fingerprint = Fingerprint(
        version=packed.version,
        digest=packed.artifact.digest,
        section=fingerprints.digest_options(options),
        data=before,
        files={**_without(reads.files(), data), **named},
        folders=reads.folders(),
        libraries=_libraries(trained.model),
        python=platform.python_version(),
    )
    return Done(fingerprint, notes)


def _trained(job: Job, folder: Path, data: Mapping[str, Path | None]) -> tuple[Trained, tuple[str, ...]]:
    options = job.options
    if options.file:
        from estiba.model.packing.from_file import from_file

        file, sample = folder / options.file, folder / options.sample
        if options.trust:  # it may hold classes of the project
            sys.path.insert(0, str(folder))
        try:
            return from_file(
                file,
                sample,
                target=options.target,
                trust=options.trust,
                csv_options=options.csv,
                sheet=options.sheet,
            )
        except NotTrusted as error:
            hint = f"If you trust its author, write trust = true in [models.{job.name}]"
            other = "or save the model with skops or as ONNX, which run no code."
            raise NotTrusted(error.message, hint=f"{hint}; {other}") from error
    sys.path.insert(0, str(folder))
    function = _function(options.train, folder)
    return _checked(function(**_arguments(function, options.train, data)), options.train), ()


def _function(reference: str, folder: Path) -> Callable[..., Any]:
    name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise BadProject(
            f"There is no module {name!r} in {folder}.",
            hint=f"It is named by train = {reference!r} in the project file.",
        ) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        raise BadProject(
            f"{module.__file__} has no function {attribute!r}.",
            hint=f"It is named by train = {reference!r} in the project file.",
        )
    result: Callable[..., Any] = function
    return result


def _arguments(function: Callable[..., Any], reference: str, data: Mapping[str, Path | None]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    required = [
        n for n, p in parameters.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if unknown := [name for name in required if name != "data"]:
        raise BadProject(
            f"The training function {reference} requires an argument {unknown[0]!r}, which Estiba does not pass.",
            hint="It may take one argument, `data`: the path of each data file by name.",
        )
    return {"data": data} if "data" in parameters else {}


def _checked(result: object, reference: str) -> Trained:
    if isinstance(result, tuple) and 2 <= len(result) <= 4:
        target, metrics = (*result[2:], None, None)[:2]
        result = Trained(model=result[0], sample=result[1], target=target, metrics=metrics or {})
    if not isinstance(result, Trained):
        raise BadProject(f"{reference} returned {_described(result)}.", hint=_EXPECTED)
    import pandas as pd

    arrays = isinstance(result.model, bytes) and isinstance(result.sample, Mapping)
    if not arrays and not isinstance(result.sample, pd.DataFrame):
        raise BadProject(
            f"{reference} returned a sample that is {_described(result.sample)}.",
            hint="The sample must be a pandas DataFrame of the features as in training.",
        )
    if not (result.holdout is None or isinstance(result.holdout, pd.DataFrame)):
        raise BadProject(
            f"{reference} returned held-out rows that are {_described(result.holdout)}.",
            hint="holdout must be a pandas DataFrame with the columns of the sample, or None.",
        )
    if not isinstance(result.metrics, Mapping):
        raise BadProject(f"{reference} returned metrics that are {_described(result.metrics)}.", hint=_EXPECTED)
    return result


def _described(value: object) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "nothing" if value is None else f"an object of type {type(value).__name__}"


def _track(job: Job, packed: Packed, tell: Callable[[Report], None]) -> tuple[str, ...]:
    """Log to MLflow. The model is registered by now, so an unreachable tracking server only causes a warning."""
    if not job.mlflow.tracking_uri:
        return ()
    tell(Progress("logging", job.mlflow.tracking_uri))
    try:
        mlflow.log(job.mlflow, packed)
    except Unavailable as error:
        tell(Progress("warning", str(error)))
        return (error.message,)
    return ()


def _without(files: dict[str, str], data: Mapping[str, Path | None]) -> dict[str, str]:
    """The files without the declared data files, which are compared by their own names."""
    declared = {f"data/{name}" for name in data} | {f"{fingerprints.DATA}/{name}" for name in data}
    return {key: digest for key, digest in files.items() if key not in declared}


def _named(options: ModelOptions, folder: Path) -> dict[str, str]:
    """The files that the section itself names; they may lie outside the project."""
    return {name: fingerprints.digest_file(folder / name) for name in (options.file, options.sample) if name}


def _libraries(model: object) -> dict[str, str]:
    if isinstance(model, bytes):
        names = {"numpy", "onnxruntime"}
    else:
        from estiba.model.estimators.saved_files import libraries

        names = set(libraries(model))
    return {name: fingerprints.version(name) for name in sorted(names | {"estiba", "onnx"})}


if __name__ == "__main__":
    sys.exit(main())
