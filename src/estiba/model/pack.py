"""Pack a fitted model: infer its signature, convert it, prove the conversion, write the artifact, register it."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from estiba.core.errors import BadInput, BadProject, EstibaError, MissingExtra, ParityError
from estiba.model import artifact, card, golden
from estiba.model.artifact import Artifact, Manifest, Parity, SourceCard
from estiba.model.coding import Coded, Coder, Matrix
from estiba.model.engines.onnx import session
from estiba.model.infer import FieldOptions, infer
from estiba.model.load import GOLDEN_FILE, load_artifact
from estiba.model.records import DEFAULT_REGISTRY, check_name
from estiba.model.registry import open_registry
from estiba.model.signature import Head, Outputs, Scalar, Signature
from estiba.model.trained import Source, Trained

if TYPE_CHECKING:
    import pandas as pd

PROVEN_ROWS = 10_000
"""Sample rows compared besides the golden ones: a conversion can be wrong on one row in two hundred."""


class PackOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a model is packed: part of `[models.NAME]`.

    Args:
        engine: `auto` takes onnx where the conversion holds and python otherwise; `onnx` fails instead.
        tolerance: largest accepted difference to the original, absolute below 1 and relative above.
        fields: by field name, what the sample does not tell.
        outputs: how answers are shown.
    """

    description: str = ""
    engine: Literal["auto", "onnx", "python"] = "auto"
    tolerance: float = golden.TOLERANCE
    fields: dict[str, FieldOptions] = {}
    outputs: Outputs = Outputs()


@dataclass(frozen=True)
class Packed:
    """A packed model. `str()` of it is `bankchurn@3 sha256:...`; `new` is False where the registry had it already."""

    artifact: Artifact
    version: int
    new: bool = True
    notes: tuple[str, ...] = field(default=())

    @property
    def ref(self) -> str:
        return f"{self.artifact.manifest.name}@{self.version}"

    def __str__(self) -> str:
        return f"{self.ref} sha256:{self.artifact.digest}"


def pack(  # noqa: PLR0913 - the one call of a notebook; every argument but three has a sensible default
    model: object,
    X: Any,
    *,
    name: str,
    y: Any = None,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, Scalar] | None = None,
    threshold: float | None = None,
    source: Source | None = None,
    notes: str = "",
    description: str = "",
    engine: Literal["auto", "onnx", "python"] = "auto",
    tolerance: float = golden.TOLERANCE,
    fields: Mapping[str, FieldOptions | Mapping[str, Any]] | None = None,
    outputs: Outputs | Mapping[str, Any] | None = None,
    registry: str | Path | None = None,
    aliases: Sequence[str] = (),
) -> Packed:
    """Packs a fitted model right after `model.fit`, and registers it.

    Args:
        model: a fitted estimator or Pipeline.
        X: rows that it was trained on, shape (rows, fields): a DataFrame, or an array whose columns become x0, x1, ...
        name: what the model is called: lower case letters, digits, `.`, `_`, `-`.
        y: the training target, shape (rows,); kept out of the artifact.
        metrics: held-out or cross-validated figures by name, finite.
        params: settings worth showing in the model card.
        threshold: the positive class is the label from this probability on; chosen on training data.
        source: where the data came from.
        engine: `auto` converts to ONNX where that holds and falls back to the original estimator; `onnx` fails instead;
            `python` does not convert.
        tolerance: largest accepted difference to the original, absolute below 1 and relative above.
        fields: by field name, overrides such as `{"age": {"minimum": 18}}`.
        outputs: how answers are shown, such as `{"label": "churn"}`.
        registry: folder or URL; by default $ESTIBA_REGISTRY, else `.estiba/registry` here.
        aliases: set on the new version, such as `["production"]`.

    Raises:
        BadProject: the sample or an override contradicts the model.
        ParityError: engine is `onnx` and the converted model answers differently.
        Conflict, EstibaError: the registry cannot be written.
    """
    try:
        options = PackOptions(
            description=description,
            engine=engine,
            tolerance=tolerance,
            fields=msgspec.convert(_plain(fields or {}), dict[str, FieldOptions]),
            outputs=msgspec.convert(_plain(outputs or {}), Outputs),
        )
    except msgspec.ValidationError as error:
        raise BadProject(f"{error}") from error
    sample = _frame(X)
    trained = Trained(
        model=model, sample=sample, target=y, metrics=metrics or {}, params=params or {}, threshold=threshold,
        source=source, notes=notes,
    )  # fmt: skip
    place = registry or os.environ.get("ESTIBA_REGISTRY") or DEFAULT_REGISTRY
    return register(trained, name, options, registry=place, aliases=aliases)


def register(
    trained: Trained, name: str, options: PackOptions, *, registry: str | Path, aliases: Sequence[str] = ()
) -> Packed:
    """Packs a trained model into a registry; a failure leaves the registry as it was."""
    store = open_registry(registry)
    check_name(name)
    with tempfile.TemporaryDirectory(prefix="estiba-") as folder:
        made = build(trained, name, options, Path(folder))
        known = {v.version for v in store.versions(name)} if name in store.list() else set()
        version = store.push(made, aliases=aliases)
        return Packed(store.fetch(version), version.version, version.version not in known)


def build(trained: Trained, name: str, options: PackOptions, folder: Path) -> Artifact:
    """Packs a trained model into `folder` and returns its artifact, loaded once and proven."""
    draft = _draft(trained, options)
    onnx, reason = (None, "") if options.engine == "python" else _converted(draft, options)
    if options.engine == "python":
        reason = "The project asks for the python engine."
    golden_rows = golden.choose(draft.coder, draft.coded, _runner(onnx) if onnx else None)
    answers = draft.original(golden_rows)
    if onnx is not None:
        parity, reason = _prove(draft, golden_rows, answers, _runner(onnx), options)
        if reason:
            onnx = None
    if onnx is None:
        content = _python_parts(draft, reason)
        parity = golden.compare(draft.signature, answers, answers, tolerance=options.tolerance)[0]
    else:
        content = _onnx_parts(draft, onnx)
    manifest = Manifest(
        name=name,
        signature=draft.signature,
        metrics={k: float(v) for k, v in trained.metrics.items()},
        params=dict(trained.params),
        parity=parity,
        python=platform.python_version(),
        source=SourceCard(**vars(trained.source)) if trained.source else None,
        reason=reason if onnx is None else "",
        description=options.description,
        notes=trained.notes,
        **content.described,
    )
    files = {
        manifest.model_file: content.model,
        GOLDEN_FILE: golden.seal(draft.coder, golden_rows, answers),
        card.FILE: card.render(manifest).encode(),
    }
    made = artifact.write(folder, manifest, files)
    load_artifact(made, trust=True, threads=1)  # what cannot be loaded and proven here is never registered
    return made


@dataclass(frozen=True)
class _Draft:
    """A model on its way: its signature, and its sample in coded form."""

    trained: Trained
    signature: Signature
    coder: Coder
    coded: Coded

    @property
    def head(self) -> Head:
        return self.signature.head

    def original(self, coded: Coded) -> Matrix:
        """The original estimator's raw answers to coded rows."""
        from estiba.model.answers import answer

        frame = self.coder.frame(coded)
        try:
            return answer(self.trained.model, frame, self.head)
        except Exception as error:
            raise BadProject(
                f"The model fails on rows that its signature allows: {type(error).__name__}: {error}",
                hint="If a field may be missing or unseen only in the signature, narrow nullable, unseen or the range.",
            ) from error


@dataclass(frozen=True)
class _Content:
    model: bytes
    described: dict[str, Any]


def _draft(trained: Trained, options: PackOptions) -> _Draft:
    from estiba.model.answers import head_of

    sample = trained.sample
    if not len(sample):
        raise BadProject("The sample has no rows.", hint="Pass rows that the model was trained on.")
    outputs = options.outputs
    if trained.threshold is not None and outputs.threshold is None:
        outputs = msgspec.structs.replace(outputs, threshold=float(trained.threshold))
    signature = infer(trained.model, sample, head_of(trained.model), fields=options.fields, outputs=outputs)
    coder = Coder(signature)
    try:
        coded = coder.check_columns(_columns(sample), len(sample))
    except BadInput as error:
        raise BadProject(
            f"The sample itself does not match the signature: {error.message}",
            hint="The numbers after /records/ count the sample's rows from 0. Widen the field in the project file.",
        ) from error
    draft = _Draft(trained, signature, coder, coded)
    _same_input(draft)
    return draft


def _same_input(draft: _Draft) -> None:
    """Rows rebuilt from their coded form must be answered as the sample itself is."""
    from estiba.model.answers import answer

    some = np.unique(np.linspace(0, len(draft.coded) - 1, 200).astype(int))
    direct = answer(draft.trained.model, draft.trained.sample.iloc[some], draft.head)
    texts = {n: [v[i] for i in some.tolist()] for n, v in draft.coded.texts.items()}
    rebuilt = draft.original(Coded(draft.coded.matrix[some], texts))
    if not np.array_equal(direct, rebuilt, equal_nan=True):
        worst = float(np.nanmax(np.abs(direct - rebuilt)))
        if worst > 1e-12:
            raise ParityError(
                f"The model answers rows rebuilt from the signature differently from the sample (by {worst:.3g}).",
                hint="A field's kind is probably wrong: set it in the project file.",
            )


def _converted(draft: _Draft, options: PackOptions) -> tuple[bytes | None, str]:
    from estiba.model.convert import NotConvertible, convert

    try:
        return convert(draft.trained.model, draft.signature.fields, draft.trained.sample).onnx, ""
    except NotConvertible as error:
        if options.engine == "onnx":
            raise
        return None, error.message


def _runner(onnx: bytes) -> golden.Predict:
    running = session(onnx)
    return lambda coded: running.run(["y"], {"x": coded.matrix})[0]


def _prove(
    draft: _Draft, golden_rows: Coded, answers: Matrix, predict: golden.Predict, options: PackOptions
) -> tuple[Parity, str]:
    """The proof over golden rows and up to 10,000 sample rows, and why it fails (empty where it holds)."""
    some = np.unique(np.linspace(0, len(draft.coded) - 1, min(PROVEN_ROWS, len(draft.coded))).astype(int))
    rows = Coded(np.concatenate([golden_rows.matrix, draft.coded.matrix[some]]))
    expected = np.concatenate([answers, draft.original(Coded(draft.coded.matrix[some]))])
    note = f"{len(golden_rows)} golden rows and {len(some)} rows of the sample"
    parity, broken = golden.compare(draft.signature, expected, predict(rows), tolerance=options.tolerance, note=note)
    if broken is None:
        return parity, ""
    where = draft.coder.rows(Coded(rows.matrix[broken : broken + 1]))[0]
    reason = (
        f"The converted model is off by up to {max(parity.max_abs_error.values()):.3g} and agrees on "
        f"{parity.labels_equal} of {parity.labels_total} labels; first on {msgspec.json.encode(where).decode()}."
    )
    if options.engine == "onnx":
        raise ParityError(reason, hint="Raise tolerance if that is acceptable, or use engine = 'auto'.")
    return parity, reason


def _onnx_parts(draft: _Draft, onnx: bytes) -> _Content:
    from estiba.model.formats import framework

    libraries = {name: version(name) for name in ("numpy", "onnxruntime")}
    described = {"engine": "onnx", "format": "onnx", "model_file": "model.onnx", "libraries": libraries}
    return _Content(onnx, {**described, "framework": framework(draft.trained.model)})


def _python_parts(draft: _Draft, reason: str) -> _Content:
    from estiba.model.formats import dumps, framework, libraries, local_modules

    local = local_modules(draft.trained.model)
    if local:
        raise EstibaError(
            f"The model needs the python engine ({reason.rstrip('.')}) and uses code of your own from "
            f"{', '.join(sorted(local))}, which a server would not find.",
            hint="Install that code as a package, or replace it with library transformers that convert to ONNX.",
        )
    kind, file, content = dumps(draft.trained.model)
    described = {
        "engine": "python",
        "format": kind,
        "model_file": file,
        "libraries": libraries(draft.trained.model),
    }
    return _Content(content, {**described, "framework": framework(draft.trained.model)})


def _columns(sample: pd.DataFrame) -> dict[str, Any]:
    """Columns as the coder takes them: numeric ones as arrays, others as lists of plain values."""
    columns: dict[str, Any] = {}
    for name in sample.columns:
        column = sample[name]
        plain = column.dtype.kind in "fiub" and isinstance(column.dtype, np.dtype)
        columns[str(name)] = column.to_numpy() if plain else column.astype(object).tolist()
    return columns


def _frame(X: Any) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtra("pandas", "train") from None
    if isinstance(X, pd.DataFrame):
        frame = X.reset_index(drop=True)
        frame.columns = [str(c) for c in frame.columns]
        return frame
    array = np.asarray(X)
    if array.ndim != 2:
        raise BadProject(f"The sample must have rows and columns; its shape is {array.shape}.")
    return pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])


def _plain(value: Any) -> Any:
    """Structs inside a mapping as plain objects, so that one conversion checks both spellings."""
    if isinstance(value, msgspec.Struct):
        return {k: v for k, v in msgspec.structs.asdict(value).items() if v is not None}
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value
