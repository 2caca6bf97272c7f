"""Load an artifact as a model that answers: verified, proven on its golden rows, and warm."""

from __future__ import annotations

import os
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, cast

from estiba.core import cpus
from estiba.core.errors import BadArtifact, BadInput, EstibaError, ParityError, Unavailable
from estiba.core.suggest import shortened
from estiba.model.artifact import golden_rows, golden_tensors, profile
from estiba.model.artifact.artifact import Artifact, Parity, read
from estiba.model.artifact.profile import Profile
from estiba.model.coding.coder import Coded, Coder, Matrix
from estiba.model.coding.predictions import Predictions, with_kept
from estiba.model.coding.tensor_coder import CodedTensors, TensorCoder, max_request_elements, tensors_of
from estiba.model.engines import Engine, open_engine
from estiba.model.engines.exact import ExactEngine
from estiba.model.engines.tensor_engine import TensorEngine
from estiba.model.registry.records import DEFAULT_REGISTRY
from estiba.model.registry.registry import open_registry
from estiba.model.schema.rows import Prediction, Rows, records_of, warn_not_finite
from estiba.model.schema.values import expected

GOLDEN_FILE = "golden.json"


class Model:
    """A loaded model. `name`, `version` and `digest` identify it; safe to share between threads.

    `runtime` names what executes its engine; `parity` is the result of asking its golden rows; `notes` are sentences
    for the operator.
    """

    def __init__(self, artifact: Artifact, engine: Engine, version: str = "") -> None:
        self.artifact = artifact
        self.manifest = artifact.manifest
        self.signature = artifact.manifest.signature
        self.name = artifact.manifest.name
        self.version = version or artifact.digest[:12]
        self.digest = artifact.digest
        self.engine = engine
        self.runtime = engine.runtime
        self.notes: tuple[str, ...] = ()
        self.parity: Parity | None = None
        self._prepare(artifact.file(GOLDEN_FILE).read_bytes())

    def _prepare(self, golden: bytes) -> None:
        self.coder = Coder(self.signature)
        self.predictions = Predictions(self.signature)
        self.golden = golden_rows.unseal(golden)

    def __repr__(self) -> str:
        fields = self.signature.names
        shown = ", ".join(fields[:6]) + (f", and {len(fields) - 6} more" if len(fields) > 6 else "")
        return f"{self.name}@{self.version} ({self.manifest.engine}), fields: {shown}"

    def _repr_html_(self) -> str:
        """The model as a notebook shows it: a table of its fields."""
        rows = [(f.name, expected(f), "" if f.nullable else "required") for f in self.signature.fields]
        lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        title = escape(f"{self.name}@{self.version} ({self.manifest.engine}, {self.runtime})")
        return f"<p>{title}</p><table><tr><th>field</th><th>value</th><th></th></tr>{body}</table>"

    def predict(self, rows: Rows) -> list[Prediction]:
        """One prediction per row, as the server would answer.

        Args:
            rows: records by field name, one such record, or a DataFrame with the fields as columns, in any order. Also
                a Series (one record), tables of polars and Arrow, and arrays and lists with the fields in their order.
                Columns that the model did not read in training, and its target, are left out.

        A number that is not finite is None, with a RuntimeWarning.

        Raises:
            BadInput: values that do not match the signature, each named. BadRequest: `rows` holds no records.
        """
        records = records_of(rows, lambda: self.signature.names)
        coded = self.coder.check(self.coder.names.without_unread(records))
        if not len(coded):
            return []
        predictions, nulls = self.predictions.with_warnings(self.answer(coded))
        warn_not_finite([(warning.row, warning.field) for warning in nulls])
        return with_kept(coded.kept, predictions) if coded.kept else predictions

    @property
    def golden_count(self) -> int:
        """The number of golden rows."""
        return len(self.golden.records)

    @property
    def example(self) -> dict[str, Any]:
        """A golden record, complete where there is one."""
        records = self.golden.records
        return next((record for record in records if None not in record.values()), records[0])

    @cached_property
    def profile(self) -> Profile | None:
        """The training profile; None where the model was packed before there were profiles. Read on first use.

        Raises:
            BadArtifact: the file is not a profile, or one of a newer Estiba.
        """
        return profile.read(self.artifact)

    def answer(self, coded: Coded) -> Matrix:
        """Raw answers, float64 (rows, width), with the meaning that the signature's head defines."""
        return self.engine.predict(coded)

    def prove(self) -> Parity:
        """Ask the golden rows again. Raises ParityError where an answer differs. Also warms the engine."""
        recorded = self.manifest.parity
        tolerance = recorded.tolerance if recorded else golden_rows.TOLERANCE
        self.parity = golden_rows.prove(self.coder, self.golden, self.answer, tolerance)
        return self.parity


class TensorModel(Model):
    """A loaded model of tensors. It has `tensors` in place of a coder and of predictions."""

    def _prepare(self, golden: bytes) -> None:
        self.golden_tensors = golden_tensors.unseal(golden)
        least = sum(array.size for record in self.golden_tensors.arrays() for array in record.values())
        self.tensors = TensorCoder(self.signature, max_request_elements(self.signature.fields, least))

    @property
    def golden_count(self) -> int:
        return len(self.golden_tensors.records)

    def predict(self, rows: Rows) -> list[Prediction]:
        """One prediction per record: an array by name of each output.

        Args:
            rows: records by field name (one, or a list), with arrays, nested lists, or the bytes of an image as values.
                Or arrays for many records at once, whose first axis counts them: by field name, or of the only field.

        Raises:
            BadInput: values that do not match the signature, each named with the type and shape that was expected.
        """
        return self.run(tensors_of(self.tensors, rows))

    def run(self, coded: CodedTensors) -> list[Prediction]:
        """One prediction per record. Raises BadInput where the graph refuses the values."""
        engine = cast(TensorEngine, self.engine)
        return engine.run(coded)

    @property
    def example(self) -> dict[str, Any]:
        """The first golden record as nested lists."""
        return {name: array.tolist() for name, array in self.golden_tensors.arrays()[0].items()}

    def prove(self) -> Parity:
        recorded = self.manifest.parity
        tolerance = recorded.tolerance if recorded else golden_tensors.TOLERANCE
        self.parity = golden_tensors.prove(self.tensors, self.golden_tensors, self.run, tolerance)
        return self.parity


def load(
    ref: str | Path,
    *,
    registry: str | Path | None = None,
    trust: bool = False,
    threads: int | None = None,
) -> Model:
    """Load a model, ready to answer.

    Args:
        ref: `name`, `name@3` or `name@production` in the registry, or the path of an artifact directory.
        registry: folder or URL; by default $ESTIBA_REGISTRY, else `.estiba/registry` here.
        trust: allow a model whose file can run code when it is read (a pickle, or types unknown to skops).
        threads: threads of native libraries for one call; by default the processors that this process may use.

    Raises:
        NotFound, BadArtifact, NotTrusted: it is not there, damaged, or needs trust.
        ParityError: it does not answer as it did in training.
    """
    version = ""
    if isinstance(ref, Path) or os.sep in str(ref):
        artifact = read(Path(ref))
    else:
        store = open_registry(registry or os.environ.get("ESTIBA_REGISTRY") or DEFAULT_REGISTRY)
        record = store.resolve(str(ref))
        artifact, version = store.fetch(record), str(record.version)
    return load_artifact(artifact, version=version, trust=trust, threads=threads)


def load_artifact(
    artifact: Artifact, *, version: str = "", trust: bool = False, threads: int | None = None, isolated: bool = False
) -> Model:
    """Load an artifact that is at hand and verified; `isolated` gives a slow engine a process of its own."""
    threads = threads or cpus.available()
    skew = _skew(artifact)
    try:
        engine = open_engine(artifact, threads=threads, trust=trust, isolated=isolated)
        model = _proven(artifact, engine, version, threads)
    except ParityError as error:
        if skew:
            raise ParityError(
                f"{'; '.join(skew)}. With that, {error.message[0].lower()}{error.message[1:]}",
                hint="Install the versions it was packed with, or pack it again with these.",
            ) from error
        raise
    except Exception as error:  # of whatever library reads the model file, or of a content that somebody changed
        if isinstance(error, EstibaError) and not isinstance(error, BadInput):  # golden rows are no caller's
            raise
        if isinstance(error, OSError | MemoryError) or (isinstance(error, ModuleNotFoundError) and not skew):
            raise _of_machine(artifact.manifest.name, error) from error
        if skew:
            raise BadArtifact(
                f"{artifact.manifest.name} cannot be loaded: {'; '.join(skew)} ({_named(error)}).",
                hint="Install the versions it was packed with, or pack it again with these.",
            ) from error
        raise BadArtifact(
            f"{artifact.manifest.name} (sha256:{artifact.digest[:12]}) cannot be loaded: its files do not fit "
            f"together ({_named(error)}).",
            hint="Pack the model again.",
        ) from error
    if skew:
        rows = model.golden_count
        model.notes += tuple(f"{sentence}; all {rows} golden rows still agree" for sentence in skew)
    return model


def _of_machine(name: str, error: OSError | MemoryError | ModuleNotFoundError) -> EstibaError:
    """The sentence for an error that is no fault of the artifact's files."""
    if isinstance(error, ModuleNotFoundError):
        return BadArtifact(
            f"{name} cannot be loaded: it needs the module {error.name!r}, which is not installed.",
            hint="Install the library that provides it, in the version of training.",
        )
    if isinstance(error, MemoryError):
        return Unavailable(
            f"{name} cannot be loaded: there is not enough memory.",
            hint="Give the process more of it, or fewer models.",
        )
    file = f" ({error.filename})" if error.filename else ""
    return Unavailable(f"{name} cannot be loaded: {error.strerror or error}{file}.", hint="Check this machine's files.")


def _named(error: Exception) -> str:
    """An error with the name of its class, on one line."""
    return shortened(" ".join(f"{type(error).__name__}: {error}".split()))


def _proven(artifact: Artifact, engine: Engine, version: str, threads: int) -> Model:
    """A model that has proved itself; with ONNX Runtime where the kernel fails the proof."""
    model = (TensorModel if artifact.manifest.signature.is_tensors else Model)(artifact, engine, version)
    try:
        model.prove()
    except (ParityError, ValueError) as error:
        if not isinstance(engine, ExactEngine):
            raise
        engine.close()
        model = Model(artifact, open_engine(artifact, threads=threads, kernel=False), version)
        model.prove()
        model.notes = (f"the kernel does not answer as in training, so ONNX Runtime does ({error})",)
    return model


def _skew(artifact: Artifact) -> list[str]:
    """Differences between the library versions at packing time and those installed; the onnx engine depends on none."""
    if artifact.manifest.engine != "python":
        return []
    from estiba.model.engines.python import skew

    return skew(artifact.manifest)
