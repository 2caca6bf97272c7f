"""Run a project's training functions, each in a process of its own, and register the models that they return."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from estiba.core import shell
from estiba.core.child import Failed
from estiba.core.errors import BadArtifact, BadProject, EstibaError, NotFound
from estiba.core.stores.disk import explained, make_folder
from estiba.core.suggest import did_you_mean
from estiba.model.artifact.artifact import Manifest
from estiba.model.coding.csv_file import PLAIN_CSV, CsvOptions
from estiba.model.packing.pack import PackOptions
from estiba.model.registry.records import PRODUCTION, Version, check_alias, check_name
from estiba.model.registry.registry import open_registry
from estiba.model.training import fingerprints
from estiba.model.training import mlflow as tracking
from estiba.model.training.fingerprints import Fingerprint
from estiba.model.training.mlflow import MlflowOptions

MAX_OUTPUT_LINES = 40
"""Lines of a failed training's output that are shown at most."""


class ModelOptions(PackOptions, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[models.NAME]` of the project file: where a model comes from and how it is packed.

    Args:
        train: the training function as `module:function`, the module found in the project's folder. It returns
            `estiba.Trained`, or a tuple of model, sample, target and metrics.
        data: names of data files, looked for in the folder $ESTIBA_DATA and then in the project's `data` folder. A
            training function with a parameter `data` gets a mapping from name to path, or None where it is not there.
        file: instead of `train`, a saved model file.
        sample: with `file`, a file of rows like those of training, `.csv`, `.parquet` or `.xlsx`; of an ONNX file of
            tensors, `.npy` or `.npz` with an array for each input.
        target: with `file`, a column of the sample that is no input of the model.
        trust: with `file`, read it even if that can run code (a pickle).
        csv: with `file`, how a `.csv` sample is written.
        sheet: with `file`, the sheet of an `.xlsx` sample; by default the first.
        alias: set on each newly trained version; empty sets none.
        port: of its own, at which `POST /predict` asks this model; it is also served at the server's port.
        description: what the model is for, in a sentence or two.
        engine: `auto` takes onnx where the conversion holds and python otherwise; `onnx` fails instead; `python` does
            not convert.
        tolerance: largest accepted difference to the original, absolute below 1 and relative above.
        fields: by field name, what the sample does not tell.
        outputs: how answers are shown.
        rows: golden rows and background rows are whole rows of the `sample`, or `made` of its levels and quantiles.
        extra: `refuse` a record with a field that the model does not have, or `ignore` that field.
        keep: names of values that are no input of the model and are handed through to the answer, such as a key.
        batch: of an ONNX file of tensors, the meaning of the first axis of its inputs and outputs: `free` counts
            records, `one` takes one record at a time, `none` is part of a record; `auto` tries it out.
    """

    train: str = ""
    data: tuple[str, ...] = ()
    file: str = ""
    sample: str = ""
    target: str = ""
    trust: bool = False
    csv: CsvOptions = PLAIN_CSV
    sheet: str = ""
    alias: str = PRODUCTION
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None


@dataclass(frozen=True)
class Workshop:
    """The parts of a project that training needs: folder (absolute), registry, models, and where runs are logged."""

    folder: Path
    registry: str
    models: Mapping[str, ModelOptions]
    mlflow: MlflowOptions = MlflowOptions()  # noqa: RUF009 - it is frozen


Stage = Literal["unchanged", "reading", "training", "packing", "logging", "warning", "done"]


@dataclass(frozen=True)
class Event:
    """A step in the training of a model. `detail` is the reason to train, a warning, or the version that is done."""

    model: str
    stage: Stage
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """The result of `train` for one model.

    Args:
        why: the reason to train; empty where nothing had changed and it was not trained.
        seconds: duration of training and packing.
        notes: sentences for the operator.
    """

    version: Version
    manifest: Manifest
    why: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


class TrainingFailed(EstibaError):
    """A training failed; the registry is unchanged. `output` is the end of what it printed."""

    def __init__(self, message: str, *, hint: str | None, exit_code: int = 1, output: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.output = output


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The specification that the training process reads."""

    name: str
    folder: str
    registry: str
    options: ModelOptions
    mlflow: MlflowOptions
    data: dict[str, str | None]


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    stage: Stage
    detail: str = ""


class Done(msgspec.Struct, frozen=True, tag="done"):
    fingerprint: Fingerprint
    notes: tuple[str, ...]


Report = Failed | Progress | Done


def check(name: str, options: ModelOptions) -> None:
    """Raise BadProject where the section of a model contradicts itself."""
    path = f"models.{name}"
    for text, test in ((name, check_name), (options.alias or PRODUCTION, check_alias)):
        try:
            test(text)
        except EstibaError as error:
            raise BadProject(f"{path}: {error.message}", hint=error.hint) from None
    if bool(options.train) == bool(options.file):
        raise BadProject(
            f"{path}: needs either train or file{', not both' if options.train else ''}.",
            hint='Write train = "module:function", or file = "model.onnx" with sample = "rows.csv".',
        )
    module, _, function = options.train.partition(":")
    if options.train and not (all(map(str.isidentifier, module.split("."))) and function.isidentifier()):
        raise BadProject(f"{path}.train: {options.train!r} is not of the form module:function.")
    if options.file and not options.sample:
        raise BadProject(
            f"{path}.sample: this key is missing.", hint="Name a .csv, .parquet or .xlsx file of rows as in training."
        )
    try:
        options.csv.check()
    except EstibaError as error:
        raise BadProject(f"{path}.csv: {error.message}", hint=error.hint) from None
    given = {"sample": options.sample, "target": options.target, "trust": options.trust, "sheet": options.sheet}
    for key, value in {**given, "csv": options.csv != PLAIN_CSV}.items():
        if options.train and value:
            raise BadProject(f"{path}.{key}: belongs to a model from a file, and this one is trained.")


def _ignore(event: Event) -> None:
    """Default `on_event`: do nothing."""


def train(
    workshop: Workshop,
    names: Sequence[str] = (),
    *,
    force: bool = False,
    on_event: Callable[[Event], None] = _ignore,
) -> tuple[Outcome, ...]:
    """Train, pack and register models of a project, one after the other, where anything has changed since.

    Args:
        names: of the models; by default all of the project's, in its order.
        force: train also what has not changed.
        on_event: called at each step.

    Raises:
        TrainingFailed: a training failed; it and the models after it are not registered.
        NotFound: the project has no model of that name. BadProject: it has none at all.
        MissingExtra: MLflow is named and not installed.
    """
    if not workshop.models:
        hint = 'Add a section [models.NAME] with train = "module:function".'
        raise BadProject(f"The project in {workshop.folder} has no model.", hint=hint)
    chosen = [_named(workshop, name) for name in names] or list(workshop.models)
    tracking.check(workshop.mlflow)
    return tuple(_ensure(workshop, name, force, on_event) for name in dict.fromkeys(chosen))


def _named(workshop: Workshop, name: str) -> str:
    if name in workshop.models:
        return name
    known = ", ".join(workshop.models) or "none"
    meant = did_you_mean(name, workshop.models)
    raise NotFound(f"The project has no model {name!r}{meant}", hint=f"Its models are: {known}.")


def _ensure(workshop: Workshop, name: str, force: bool, on_event: Callable[[Event], None]) -> Outcome:
    fingerprint = fingerprints.read(workshop.folder, name)
    kept = _kept(workshop, fingerprint, name) if fingerprint else "it is not trained yet"
    why = "asked to" if force else (kept if isinstance(kept, str) else "")
    if not why and isinstance(kept, Outcome):
        on_event(Event(name, "unchanged", str(kept.version)))
        return kept
    return _run(workshop, name, why, on_event)


def _kept(workshop: Workshop, fingerprint: Fingerprint, name: str) -> Outcome | str:
    """The version of an earlier training, or the reason why it does not count any more."""
    options = workshop.models[name]
    if why := fingerprints.change(fingerprint, options, workshop.folder, options.data):
        return why
    try:
        return _fetched(workshop, fingerprint, name)
    except NotFound:
        return f"{name}@{fingerprint.version} is not in the registry"
    except BadArtifact as error:
        return error.message


def _fetched(workshop: Workshop, fingerprint: Fingerprint, name: str) -> Outcome:
    store = open_registry(workshop.registry)
    version = store.resolve(f"{name}@{fingerprint.version}")
    if version.digest != fingerprint.digest:
        raise NotFound(f"{version} is another artifact.")
    return Outcome(version, store.fetch(version).manifest)


def _run(workshop: Workshop, name: str, why: str, on_event: Callable[[Event], None]) -> Outcome:
    on_event(Event(name, "training", why))
    start, log = time.monotonic(), fingerprints.fingerprint_file(workshop.folder, name).with_suffix(".log")
    with explained("write", log):
        make_folder(log.parent)
    done = _finished(_reports(workshop, name, log, on_event), name, log)
    fingerprints.write(workshop.folder, name, done.fingerprint)
    made = _fetched(workshop, done.fingerprint, name)
    on_event(Event(name, "done", str(made.version)))
    return Outcome(made.version, made.manifest, why, time.monotonic() - start, done.notes)


def _reports(workshop: Workshop, name: str, log: Path, on_event: Callable[[Event], None]) -> list[Report]:
    """Run the training process; return its reports except for progress, or a failure if it ended without any."""
    options, kept = workshop.models[name], list[Report]()
    data_paths = {file: fingerprints.find_data(workshop.folder, file) for file in options.data}
    job = Job(
        name=name,
        folder=str(workshop.folder),
        registry=workshop.registry,
        options=options,
        mlflow=workshop.mlflow,
        data={file: str(path) if path else None for file, path in data_paths.items()},
    )

    def on_line(line: bytes) -> None:
        report = msgspec.json.decode(line, type=Report)
        if isinstance(report, Progress):
            on_event(Event(name, report.stage, report.detail))
        else:
            kept.append(report)

    code = shell.converse(
        [sys.executable, "-m", "estiba.model.training.worker"],
        msgspec.json.encode(job),
        on_line=on_line,
        folder=workshop.folder,
        environment=dict(_environment(workshop.folder)),
        errors=log,
    )
    return kept or [_silent(name, code)]


def _environment(folder: Path) -> Iterator[tuple[str, str]]:
    """The worker runs in the project's folder, where a relative $ESTIBA_DATA would mean another place."""
    yield "PYTHONUNBUFFERED", "1"
    if fingerprints.DATA in (places := fingerprints.roots(folder)):
        yield "ESTIBA_DATA", str(places[fingerprints.DATA])


def _silent(name: str, code: int) -> Failed:
    if code < 0:
        word = signal.Signals(-code).name
        hint = "SIGKILL usually means that the system had too little memory." if -code == signal.SIGKILL else None
        return Failed(f"Training {name} was ended by {word}.", hint)
    return Failed(f"Training {name} ended with exit code {code} and gave nothing back.", expected=False)


def _finished(reports: list[Report], name: str, log: Path) -> Done:
    last = reports[-1]
    if isinstance(last, Done):
        return last
    assert isinstance(last, Failed)
    lines = log.read_text(errors="replace").splitlines()
    hint = last.hint or (f"All of its output is in {log}." if lines else None)
    output = "" if last.expected else "\n".join(lines[-MAX_OUTPUT_LINES:])
    raise TrainingFailed(last.message, hint=hint, exit_code=last.exit_code, output=output)
