"""Infer a fitted model's signature, convert the model, prove the conversion, write the artifact and register it."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

import msgspec

from estiba.core.errors import BadArtifact, BadProject, EstibaError
from estiba.core.stores.disk import temporary
from estiba.model.artifact import artifact, made_rows, model_card, profile
from estiba.model.artifact import golden_rows as golden
from estiba.model.artifact.artifact import Artifact, Manifest, SourceCard
from estiba.model.artifact.tail import Tail
from estiba.model.coding.coder import Coded
from estiba.model.inference.load import GOLDEN_FILE, load_artifact
from estiba.model.packing import pack_tensors
from estiba.model.packing.candidate import (
    Candidate,
    code_holdout,
    prepare,
    with_contract,
    with_examples,
    with_own_labels,
)
from estiba.model.packing.content import converted_parts, python_parts
from estiba.model.packing.converted import Converted
from estiba.model.packing.proof import Proof, Rows, choose, choose_made, composed, fast_runner
from estiba.model.packing.split import converted
from estiba.model.packing.training_result import Source, Trained, finite_metrics, frame_of
from estiba.model.packing.unseen_words import as_texts, word_readers
from estiba.model.registry.records import DEFAULT_REGISTRY, check_name
from estiba.model.registry.registry import open_registry
from estiba.model.schema.infer import FieldOptions
from estiba.model.schema.signature import Extra, Outputs, Scalar

_NATIVE = frozenset({"catboost", "lightgbm", "xgboost", "xgboost-cpu"})


class PackOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Options for packing a model: part of `[models.NAME]`.

    Args:
        engine: `auto` takes onnx where the conversion holds and python otherwise; `onnx` fails instead.
        tolerance: largest accepted difference to the original, absolute below 1 and relative above.
        fields: by field name, what the sample does not tell.
        outputs: how answers are shown.
        extra: `refuse` a record with a field that the model does not have, or `ignore` that field.
        keep: names of values that are no input of the model and are handed through to the answer.
        rows: golden and background rows are rows of the `sample`, or `made` of levels, quantiles and common words, so
            that no row of the sample is stored.
        batch: of an ONNX file of tensors, the meaning of the first axis of its inputs and outputs: `free` counts
            records, `one` takes one record at a time, `none` is part of a record; `auto` tries it out.
    """

    description: str = ""
    engine: Literal["auto", "onnx", "python"] = "auto"
    tolerance: float = golden.TOLERANCE
    fields: dict[str, FieldOptions] = {}
    outputs: Outputs = Outputs()
    extra: Extra = "refuse"
    keep: tuple[str, ...] = ()
    rows: Rows = "sample"
    batch: pack_tensors.BatchOption = "auto"


@dataclass(frozen=True)
class Packed:
    """A packed model. `str()` of it is `bankchurn@3 sha256:...`; `new` is False where the registry had it already.

    `report` is a few lines about it. `repr()`, which a notebook shows, is the report too, unless it was `shown` before.
    """

    artifact: Artifact
    version: int
    new: bool = True
    notes: tuple[str, ...] = field(default=())
    shown: bool = field(default=False, compare=False)

    @property
    def ref(self) -> str:
        return f"{self.artifact.manifest.name}@{self.version}"

    def __str__(self) -> str:
        return f"{self.ref} sha256:{self.artifact.digest}"

    def __repr__(self) -> str:
        return str(self) if self.shown else self.report

    def _repr_html_(self) -> str | None:
        """The report as a table, which a notebook shows instead of `repr()`, unless it was `shown` before."""
        if self.shown:
            return None
        title, *facts = self.report.splitlines()
        cells = (fact.partition(": ") for fact in facts)
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, _, value in cells)
        return f"<p>{escape(title)}</p><table>{rows}</table>"

    @property
    def report(self) -> str:
        """Engine, parity, the reason for the python engine, and notes, a line for each."""
        manifest = self.artifact.manifest
        parity, lines = (
            manifest.parity,
            [f"{self.ref} sha256:{self.artifact.digest[:12]}", f"engine: {manifest.engine_summary}"],
        )
        if parity is not None:
            worst = max(parity.max_abs_error.values(), default=0.0)
            labels = f", {parity.labels_equal} of {parity.labels_total} labels equal" if parity.labels_total else ""
            lines.append(f"parity: largest difference {worst:.2g}{labels} ({parity.note})")
        lines += [f"reason: {manifest.reason}"] * bool(manifest.reason) + [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def pack(  # noqa: PLR0913 - the one call of a notebook; every argument but three has a sensible default
    model: object,
    X: Any,
    *,
    name: str,
    y: Any = None,
    holdout: Any = None,
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
    extra: Extra = "refuse",
    keep: Sequence[str] = (),
    rows: Rows = "sample",
    batch: pack_tensors.BatchOption = "auto",
    registry: str | Path | None = None,
    aliases: Sequence[str] = (),
    quiet: bool = False,
) -> Packed:
    """Packs a fitted model right after `model.fit`, and registers it.

    Args:
        model: a fitted estimator or Pipeline, or the bytes of an ONNX file.
        X: rows that it was trained on, shape (rows, fields): a DataFrame, or an array whose columns become x0, x1, ...
            For an ONNX file of tensors a dict with one array for each input, as the file takes them.
            For a model of texts a list or Series of them, which becomes the field `text` or is named as the Series.
        name: what the model is called: lower case letters, digits, `.`, `_`, `-`.
        y: the training target, shape (rows,); kept out of the artifact.
        holdout: rows that it was not trained on, with the columns of X; the profile is made of them instead of X.
        metrics: held-out or cross-validated figures by name, finite.
        params: settings worth showing in the model card.
        threshold: the positive class is the label from this probability on; chosen on training data.
        source: where the data came from.
        engine: `auto` converts to ONNX where that holds and falls back to the original estimator; `onnx` fails instead;
            `python` does not convert.
        tolerance: largest accepted difference to the original, absolute below 1 and relative above.
        fields: by field name, overrides such as `{"age": {"minimum": 18}}`.
        outputs: how answers are shown, such as `{"label": "churn"}`.
        extra: `refuse` a record with a field that the model does not have, or `ignore` that field.
        keep: names of values that are no input of the model and are handed through to the answer, such as a key.
        rows: `made` stores no row of X: golden and background rows are composed of levels, quantiles and common words.
        batch: of an ONNX file of tensors, the meaning of the first axis of its inputs and outputs; see PackOptions.
        registry: folder or URL; by default $ESTIBA_REGISTRY, else `.estiba/registry` here.
        aliases: set on the new version, such as `["production"]`.
        quiet: do not write the report of the packed model, to standard error or, in a notebook, into the cell.

    Raises:
        BadProject: the sample or an override contradicts the model.
        ParityError: engine is `onnx` and the converted model answers differently.
        Conflict, EstibaError: the registry cannot be written.
    """
    if engine not in ("auto", "onnx", "python"):
        raise BadProject(f"engine is {engine!r}.", hint="It is 'auto', 'onnx' or 'python'.")
    if batch not in ("auto", "free", "one", "none"):
        raise BadProject(f"batch is {batch!r}.", hint="It is 'auto', 'free', 'one' or 'none'.")
    if rows not in ("sample", "made"):
        raise BadProject(f"rows is {rows!r}.", hint="It is 'sample' or 'made'.")
    if not tolerance >= 0:
        raise BadProject(f"tolerance is {tolerance!r}; it is a difference, and 0 or more.")
    try:
        options = PackOptions(
            description=description,
            engine=engine,
            tolerance=tolerance,
            fields=msgspec.convert(_plain(fields or {}), dict[str, FieldOptions]),
            outputs=msgspec.convert(_plain(outputs or {}), Outputs),
            extra=msgspec.convert(extra, Extra),
            keep=msgspec.convert(keep, tuple[str, ...]),
            rows=rows,
            batch=batch,
        )
    except msgspec.ValidationError as error:
        raise BadProject(f"{error}") from error
    arrays = pack_tensors.takes_arrays(model, X, options.fields)
    trained = Trained(
        model=model, sample=X if arrays else frame_of(X), target=y,
        holdout=None if holdout is None else frame_of(holdout),
        metrics=metrics or {}, params=params or {}, threshold=threshold, source=source, notes=notes,
    )  # fmt: skip
    where = registry or os.environ.get("ESTIBA_REGISTRY") or DEFAULT_REGISTRY
    packed = register(trained, name, options, registry=where, aliases=aliases)
    if quiet:
        return packed
    stream = sys.stdout if hasattr(sys, "ps1") else sys.stderr  # standard output of a script is the script's
    stream.write(f"{packed.report}\n")
    return dataclasses.replace(packed, shown=True)


def register(
    trained: Trained,
    name: str,
    options: PackOptions,
    *,
    registry: str | Path,
    aliases: Sequence[str] = (),
    on_built: Callable[[str], None] = lambda digest: None,
) -> Packed:
    """Packs a trained model into a registry; a failure leaves the registry as it was.

    Args:
        on_built: is told the artifact's digest before anybody can find it in the registry.
    """
    store = open_registry(registry)
    check_name(name)
    with temporary("pack") as folder:
        built, remarks = build(trained, name, options, folder)
        known = {v.version for v in store.versions(name)} if name in store.list() else set()
        on_built(built.digest)
        version = store.push(built, aliases=aliases)
        return Packed(store.fetch(version), version.version, version.version not in known, remarks)


def build(trained: Trained, name: str, options: PackOptions, folder: Path) -> tuple[Artifact, tuple[str, ...]]:
    """Packs a trained model into `folder`; returns its artifact, loaded once and proven, and what should be read."""
    if pack_tensors.takes_arrays(trained.model, trained.sample, options.fields):
        if options.keep or options.extra != "refuse":
            raise BadProject("A model of tensors has no keep and no extra.", hint="They are for rows of a table.")
        if options.rows != "sample":
            raise BadProject("A model of tensors has no rows = 'made'.", hint="Pass arrays that hold nobody's data.")
        settings = (options.fields, options.outputs, options.batch, options.tolerance)
        return pack_tensors.build(trained, name, settings, folder, options.description)
    candidate = _candidate(trained, options, options.fields)
    form, reason, proof = _prepared(candidate, trained, options)
    if readers := word_readers(candidate, max(options.tolerance, golden.TOLERANCE)):
        texts = as_texts(candidate.signature, readers, options.fields)
        candidate = _candidate(trained, options, texts)
        note = "The model reads the words of {!r} and answers unseen ones differently, such as {!r}: the field is text."
        notes = tuple(note.format(name, level) for name, level in readers.items())
        candidate = dataclasses.replace(candidate, notes=(*candidate.notes, *notes))
        form, reason, proof = _prepared(candidate, trained, options)
    if note := proof.contradiction():
        candidate = dataclasses.replace(with_own_labels(candidate), notes=(*candidate.notes, note))
        form, reason, proof = _prepared(candidate, trained, options)
    parity = proof.of_original()
    if form is not None:
        parity, failure = proof.of_converted(form, parity, must_hold=options.engine == "onnx")
        form, reason = (None, failure) if failure else (form, reason)
    if form is not None and form.tail is not None and options.rows == "made":
        candidate = _with_rare_levels_behind(candidate, form, form.tail)
    content = python_parts(trained.model, reason) if form is None else converted_parts(trained.model, form)
    manifest = Manifest(
        name=name,
        signature=candidate.signature,
        metrics=finite_metrics(trained.metrics),
        params=dict(trained.params),
        parity=parity,
        python=platform.python_version(),
        source=SourceCard(**vars(trained.source)) if trained.source else None,
        reason=reason,
        description=options.description,
        notes="\n\n".join(note for note in (trained.notes, *candidate.notes) if note),
        **content.described,
    )
    files = {
        manifest.model_file: content.model,
        GOLDEN_FILE: golden.seal(candidate.coder, proof.golden, proof.answers),
        profile.FILE: profile.encode(_profile(candidate, trained, form, proof.base)),
        **content.files,
    }
    files[model_card.FILE] = model_card.render(manifest, content.code_files).encode()
    written = artifact.write(folder, manifest, files)
    del proof, form, content, files  # a large model is in memory often enough
    _load_once(written)
    return written, candidate.notes


def _candidate(trained: Trained, options: PackOptions, fields: Mapping[str, FieldOptions]) -> Candidate:
    """The model with its contract; with examples of no row of the sample, where none is to be stored."""
    candidate = with_contract(prepare(trained, fields, options.outputs), trained, options.extra, options.keep)
    if options.rows == "sample":
        return candidate
    candidate = with_examples(candidate, made_rows.examples(candidate.coder, composed(candidate)), fields)
    note = made_rows.rare_levels(candidate.signature.fields, candidate.coded)
    return dataclasses.replace(candidate, notes=(*candidate.notes, note)) if note else candidate


def _with_rare_levels_behind(candidate: Candidate, form: Converted, tail: Tail) -> Candidate:
    """The candidate with a note of rare levels that only the steps in Python make, and the artifact names."""
    assert form.handed is not None
    note = made_rows.rare_levels(tail.fields, form.handed, tail.python_steps[-1])
    return dataclasses.replace(candidate, notes=(*candidate.notes, note)) if note else candidate


def _load_once(written: Artifact) -> None:
    """Load an artifact and prove it, as a server does: what cannot be loaded here is never registered.

    A library that ends the process with its own native code does so in a process of its own.
    """
    native = written.manifest.engine == "python" and bool(_NATIVE & written.manifest.libraries.keys())
    try:
        load_artifact(written, trust=True, threads=1, isolated=native).engine.close()
    except (BadArtifact, RuntimeError) as error:
        if not written.manifest.code_files:
            raise
        raise EstibaError(
            f"The model does not run with the code that was packed with it ({written.manifest.code_summary}): {error}",
            hint="Only modules that are named in import statements are packed, and no other files: what the code reads "
            "belongs into an attribute of the model, set while it is fitted.",
        ) from error


def _prepared(candidate: Candidate, trained: Trained, options: PackOptions) -> tuple[Converted | None, str, Proof]:
    """The converted model (or None, and why it is none), and what is to be proven of it."""
    rows = golden.proof_rows(candidate.coder.fields, candidate.coded)
    direct = candidate.direct(rows)  # first: a sample that the model does not take is no fault of the conversion
    form, reason = converted(candidate, options.engine, options.tolerance, fast_runner)
    whole = form if form and not form.tail else None
    predict, apart = (whole.predict, _apart(whole.onnx)) if whole else (None, 0.0)
    if options.rows == "made":
        chosen = choose_made(candidate, predict, apart, _holdout(candidate, trained))
    else:
        chosen = choose(candidate, predict, apart)
    proof = Proof(candidate, chosen, (rows, direct), options.tolerance)
    return form, reason, proof


def _apart(onnx: bytes) -> float:
    """The distance of golden rows from the model's jumps."""
    from estiba.model.convert.near_ties import decides_between_rounded

    return golden.NEAR if decides_between_rounded(onnx) else 0.0


def _profile(
    candidate: Candidate, trained: Trained, form: Converted | None, background: Coded | None
) -> profile.Profile:
    """The profile of held-out rows where there are some, else of the sample, as the packed model answers them."""
    predict = form.predict if form else candidate.original
    rows = _holdout(candidate, trained)
    if rows is None:
        return profile.build(candidate.signature, candidate.coded, predict, "sample", background=background)
    return profile.build(candidate.signature, rows, predict, "holdout", background=background)


def _holdout(candidate: Candidate, trained: Trained) -> Coded | None:
    """The held-out rows in coded form, where there are some."""
    return None if trained.holdout is None else code_holdout(candidate.coder, trained.holdout)


def _plain(value: Any) -> Any:
    """Structs inside a mapping as plain objects, so that one conversion checks both spellings."""
    if isinstance(value, msgspec.Struct):
        return {k: v for k, v in msgspec.structs.asdict(value).items() if v is not None}
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value
