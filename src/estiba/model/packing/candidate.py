"""A model on its way into an artifact: what it takes, what it answers, and how it becomes ONNX."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadInput, BadProject, EstibaError, ParityError
from estiba.model.coding.coder import Coded, Coder, Matrix
from estiba.model.coding.predictions import positions
from estiba.model.packing.model_columns import imputed_fields, plain_columns, read_part
from estiba.model.packing.training_result import Trained, target_names
from estiba.model.schema.estimator_columns import read_columns
from estiba.model.schema.infer import FieldOptions, infer, override
from estiba.model.schema.rows import field_name
from estiba.model.schema.signature import Extra, Head, Outputs, Scalar, Signature, renamed
from estiba.model.schema.signature_checks import validated

if TYPE_CHECKING:
    import pandas as pd

_CULPRIT_ROWS = 200
"""Rows with which the column is looked for that is rebuilt wrongly."""


@dataclass(frozen=True)
class Candidate:
    """A fitted estimator, or an ONNX file, with its signature and its sample in coded form.

    Args:
        sample: rows of the caller, one for each coded row.
        answer: the original's raw answers to the rows of a DataFrame, as a head says.
        convert_as: the ONNX graph of the onnx engine, with answers as a head says; raises NotConvertible.
        labels: what the original's own predict says of the rows of a DataFrame, as positions in the classes, of shape
            (rows, outputs); None where it says no labels.
        own_rule: the label is to be the one of predict, and not of a threshold of the user's.
        notes: sentences that whoever packs the model should read.
        estimator: the original itself; None for a function and for an ONNX file.
    """

    signature: Signature
    coder: Coder
    coded: Coded
    sample: pd.DataFrame
    answer: Callable[[pd.DataFrame, Head], Matrix]
    convert_as: Callable[[Head], bytes]
    labels: Callable[[pd.DataFrame], npt.NDArray[np.int_] | None] = lambda frame: None
    own_rule: bool = False
    notes: tuple[str, ...] = ()
    estimator: Any = None

    def ask(self, frame: pd.DataFrame) -> Matrix:
        return self.answer(frame, self.signature.head)

    def convert(self) -> bytes:
        return self.convert_as(self.signature.head)

    def original(self, coded: Coded) -> Matrix:
        """The original's raw answers to coded rows."""
        frame = self.coder.frame(coded)
        try:
            return self.ask(frame)
        except EstibaError:
            raise
        except Exception as error:
            raise BadProject(
                f"The model fails on rows that its signature allows: {type(error).__name__}: {error}",
                hint="If a field may be missing or unseen only in the signature, narrow nullable, unseen or the range.",
            ) from error

    def direct(self, rows: npt.NDArray[np.int_]) -> Matrix:
        """The original's raw answers to rows of the caller's own sample, untouched."""
        return _asked(self, self.sample.iloc[rows])


def prepare(trained: Trained, fields: Mapping[str, FieldOptions], outputs: Outputs) -> Candidate:
    """Prepare what a training function returned for packing.

    Args:
        fields, outputs: what the project file says of the model.

    Raises:
        BadProject: the sample or an override contradicts the model.
        ParityError: rows rebuilt from their coded form are answered differently from the sample.
    """
    if not len(trained.sample):
        raise BadProject("The sample has no rows.", hint="Pass rows that the model was trained on.")
    if trained.threshold is not None and outputs.threshold is None:
        outputs = msgspec.structs.replace(outputs, threshold=float(trained.threshold))
    sample = trained.sample.set_axis([field_name(label) for label in trained.sample.columns], axis=1)
    if isinstance(trained.model, bytes):
        return _of_file(trained.model, sample, fields, outputs)
    return _of_estimator(trained, sample, fields, outputs)


def _of_estimator(
    trained: Trained, sample: pd.DataFrame, fields: Mapping[str, FieldOptions], outputs: Outputs
) -> Candidate:
    from estiba.model.convert import convert
    from estiba.model.estimators import own_answers
    from estiba.model.estimators.outputs import answer, follows, own_labels, own_threshold, with_labels

    model = trained.model
    names = [str(name) for name in sample.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadProject(f"The sample has two columns of the name {twice!r}.", hint="Rename one before training.")
    if own_answers.is_own(model):
        return _of_function(model, sample, fields, outputs)
    own = own_threshold(model)
    own_rule = outputs.threshold is None or (own is not None and own[0] == outputs.threshold)
    if own is not None and outputs.threshold is None:
        positive = outputs.positive if outputs.positive is not None else own[1]
        outputs = msgspec.structs.replace(outputs, threshold=own[0], positive=positive)
    head = _head(model, sample, outputs, target_names(trained.target))
    head = with_labels(head, own_rule and not follows(model), _ruled(outputs))
    if head.heads or len(head.names) > 1:
        outputs = msgspec.structs.replace(outputs, names=())
    sample, notes = read_part(model, sample, head, keep=fields)
    signature = infer(model, sample, head, fields=fields, outputs=outputs)
    if imputed := imputed_fields(model, sample, signature, fields):
        signature = infer(model, sample, head, fields=fields, outputs=outputs, imputed=imputed)
    coder = Coder(signature)
    notes += tuple(
        f"The column {field.column!r} is the field {field.name!r} in requests."
        for field in signature.fields
        if field.column is not None
    )
    return Candidate(
        signature,
        coder,
        _code(coder, sample),
        sample,
        lambda frame, head: answer(model, frame, head),
        lambda head: convert(model, signature.fields, sample, head, exact_first=decides_by_first(signature)).onnx,
        lambda frame: own_labels(model, frame, head),
        own_rule,
        notes,
        model,
    )


def _of_function(model: Any, sample: pd.DataFrame, fields: Mapping[str, FieldOptions], outputs: Outputs) -> Candidate:
    """A function, or an object of a class of the user's own: its answers to the sample show what it answers."""
    from estiba.model.convert import NotConvertible
    from estiba.model.estimators import own_answers

    head, name = own_answers.head_from(model, sample)
    name = "" if name in sample.columns else name  # arithmetic on a column has its name
    if outputs.names and len(head.heads or head.names) > 1:
        head, outputs = own_answers.with_names(head, outputs.names), msgspec.structs.replace(outputs, names=())
    if name and outputs.value == Outputs().value:
        outputs = msgspec.structs.replace(outputs, value=name)
    if head.classes:  # a label has no score
        label = name if name and outputs.label == Outputs().label else outputs.label
        outputs = msgspec.structs.replace(outputs, score="", label=label)
    signature = infer(model, sample, head, fields=fields, outputs=outputs)
    coder = Coder(signature)

    def refuse(head: Head) -> bytes:
        raise NotConvertible("It is Python code of your own, which only Python can run.")

    return Candidate(
        signature,
        coder,
        _code(coder, sample),
        sample,
        lambda frame, head: own_answers.answer(model, frame, head),
        refuse,
        notes=own_answers.asked_alone(model, sample, head),
    )


def _head(model: object, sample: pd.DataFrame, outputs: Outputs, targets: Sequence[str]) -> Head:
    """The head of an estimator, with the names of its outputs from the settings, or else from its target."""
    from estiba.model.estimators.outputs import head_of

    read = read_columns(model, [str(name) for name in sample.columns])
    part = sample[[name for name in sample.columns if str(name) in read]]
    if len(part.columns) < len(sample.columns):
        with suppress(Exception):  # what a model says of columns that it does not know
            return _named(head_of(model, part), outputs, targets)
    with _on_own_sample():
        return _named(head_of(model, sample), outputs, targets)


def _named(head: Head, outputs: Outputs, targets: Sequence[str]) -> Head:
    count = len(head.heads or head.names)
    if head.kind != "several" and count < 2:
        return msgspec.structs.replace(head, name=targets[0] if len(targets) == 1 else "")
    if outputs.names:
        return renamed(head, outputs.names)
    return renamed(head, targets) if len(targets) == count else head


def decides_by_first(signature: Signature) -> bool:
    """Tell whether a threshold or a band is about the probability of the first of two classes."""
    outputs = signature.outputs
    return len(signature.head.classes) == 2 and signature.positive == 0 and bool(outputs.threshold or outputs.bands)


def _ruled(outputs: Outputs) -> frozenset[str]:
    """The outputs of several whose label follows from a threshold of their own, not from the estimator's predict."""
    return frozenset(name for name, options in outputs.each.items() if options.threshold is not None)


def with_own_labels(candidate: Candidate) -> Candidate:
    """The same model with a head that carries the labels of the estimator's own `predict`."""
    from estiba.model.estimators.outputs import with_labels

    head = with_labels(candidate.signature.head, True, _ruled(candidate.signature.outputs))
    signature = msgspec.structs.replace(candidate.signature, head=head)
    return dataclasses.replace(candidate, signature=signature, coder=Coder(signature))


def with_contract(candidate: Candidate, trained: Trained, extra: Extra, keep: tuple[str, ...]) -> Candidate:
    """The same model with what becomes of the values of a record that are not its fields."""
    own = {*keep, *candidate.signature.names, *candidate.coder.names.aliases}
    unread = () if extra == "ignore" else tuple(name for name in _unread(candidate, trained) if name not in own)
    signature = validated(msgspec.structs.replace(candidate.signature, extra=extra, keep=keep, unread=unread))
    return dataclasses.replace(candidate, signature=signature, coder=Coder(signature))


def _unread(candidate: Candidate, trained: Trained) -> tuple[str, ...]:
    """The columns of the sample that the model does not read, and the names of its target."""
    sample = [field_name(label) for label in trained.sample.columns]
    fewer = len(candidate.sample.columns) < len(sample)
    left = [name for name in sample if fewer and name not in candidate.sample.columns]
    return tuple(dict.fromkeys((*left, *target_names(trained.target))))


def with_examples(
    candidate: Candidate, examples: Mapping[str, Scalar], options: Mapping[str, FieldOptions]
) -> Candidate:
    """The same model with other examples of its fields, but for those that the user has chosen."""
    own = {name for name, option in options.items() if option.example is not None}
    fields = tuple(
        field if {field.name, field.source} & own else msgspec.structs.replace(field, example=examples.get(field.name))
        for field in candidate.signature.fields
    )
    signature = msgspec.structs.replace(candidate.signature, fields=fields)
    return dataclasses.replace(candidate, signature=signature, coder=Coder(signature))


def contradiction(candidate: Candidate, frame: pd.DataFrame, answers: Matrix) -> str:
    """A sentence where the estimator's own `predict` says another label than follows from its answers; else empty.

    Empty as well where the label is not the estimator's own: with a threshold of the user's, and for ONNX files.
    """
    each, ruled = candidate.signature.each, _ruled(candidate.signature.outputs)
    heads = [output.signature.head for output in each]
    open_question = [bool(head.classes) and not head.says_label and head.name not in ruled for head in heads]
    if not candidate.own_rule or not any(open_question) or (own := candidate.labels(frame)) is None:
        return ""
    off = np.zeros(len(frame), bool)
    for i, output in enumerate(each):
        if open_question[i]:
            off |= positions(output, answers) != own[:, i]
    if not off.any():
        return ""
    return (
        f"The model's own predict says another class than its probabilities or scores on {off.sum()} of {len(frame)} "
        "rows; Estiba's label is that of predict."
    )


def _of_file(model: bytes, sample: pd.DataFrame, fields: Mapping[str, FieldOptions], outputs: Outputs) -> Candidate:
    """An ONNX file of the user's own: its graph is kept, and one that takes coded rows is built around it."""
    from estiba.model.onnx_import.wrap import ask, wrap

    chosen = outputs.tensors
    wrapped, head, inferred = wrap(model, sample, chosen=chosen)
    signature = validated(Signature(fields=override(inferred, fields), head=head, outputs=outputs))
    coder = Coder(signature)
    named = sample if set(signature.names) <= set(sample.columns) else sample.set_axis(list(signature.names), axis=1)
    rows = named[list(signature.names)]
    return Candidate(
        signature,
        coder,
        _code(coder, rows),
        rows,
        lambda frame, head: ask(model, frame, head, chosen),
        lambda head: wrapped,
    )


def _code(coder: Coder, sample: pd.DataFrame) -> Coded:
    try:
        return coder.check_columns(plain_columns(sample), len(sample))
    except BadInput as error:
        raise BadProject(
            f"The sample itself does not match the signature: {error.message}",
            hint="The number after /records/ counts the sample's rows from 0. Widen the field: fields= of estiba.pack, "
            "or [models.NAME.fields] of estiba.toml. Whole numbers beyond 2**53 are better as text.",
        ) from error


def check_rebuilt(candidate: Candidate, rows: npt.NDArray[np.int_], direct: Matrix) -> Matrix:
    """The original's answers to sample rows that were rebuilt from their coded form, as a server rebuilds them.

    Args:
        rows: positions in the sample.
        direct: the original's answers to the caller's own rows at these positions.

    Raises:
        ParityError: an answer differs, so a server would hand the model something else than the caller did. Names the
            column and both values.
    """
    rebuilt = candidate.original(candidate.coded.take(rows))
    differs = ~((direct == rebuilt) | (np.isnan(direct) & np.isnan(rebuilt)) | (np.abs(direct - rebuilt) <= 1e-12))
    broken = np.flatnonzero(differs.any(axis=1))
    if not len(broken):
        return rebuilt
    if not np.array_equal(candidate.direct(rows), direct, equal_nan=True):
        raise ParityError(
            "The model answers the same rows of the sample differently when it is asked again.",
            hint="What it answers is random, or depends on what it was asked before: nothing can be proven of it.",
        )
    worst = float(np.max(np.nan_to_num(np.abs(direct - rebuilt), nan=math.inf)[broken]))
    raise ParityError(
        f"The model answers {len(broken)} of {len(rows)} rows of the sample differently (by up to {worst:.3g}) when "
        f"they are rebuilt from what a caller can send. {_culprit(candidate, rows[broken[:_CULPRIT_ROWS]])}",
        hint="Give that column one type and one missing value before training, or set the field's kind.",
    )


def _culprit(candidate: Candidate, rows: npt.NDArray[np.int_]) -> str:
    """A sentence about the first column that alone changes an answer when it is rebuilt."""
    own, rebuilt = candidate.sample.iloc[rows].reset_index(drop=True), candidate.coder.frame(candidate.coded.take(rows))
    expected = candidate.ask(own)
    for i, name in enumerate(own.columns):
        mixed = own.copy()
        mixed[name] = rebuilt.iloc[:, i]
        try:
            same = np.isclose(expected, candidate.ask(mixed), rtol=0, atol=1e-12, equal_nan=True).all(axis=1)
        except Exception:  # a library's own error for a column of another type is an answer too
            same = np.zeros(len(rows), bool)
        if not same.all():
            first = int(np.argmin(same))
            return (
                f"The column {name!r} makes the difference: the sample has {own[name].iloc[first]!r} "
                f"({own[name].dtype}), and a server would hand over {rebuilt.iloc[first, i]!r} "
                f"({rebuilt.iloc[:, i].dtype})."
            )
    return "No single column makes the difference."


def _asked(candidate: Candidate, rows: pd.DataFrame) -> Matrix:
    with _on_own_sample():
        return candidate.ask(rows)


@contextmanager
def _on_own_sample() -> Iterator[None]:
    try:
        yield
    except EstibaError:
        raise
    except Exception as error:  # every library has its own errors for rows that are not its own
        raise BadProject(
            f"The model fails on its own sample: {type(error).__name__}: {error}",
            hint="The sample must be what the model's own predict takes: the columns, types and order of training.",
        ) from error


def code_holdout(coder: Coder, holdout: pd.DataFrame) -> Coded:
    """Held-out rows in coded form; columns that the model does not have are left out.

    Raises:
        BadProject: there is no row, a column is missing, or a value does not match the signature.
    """
    names = coder.signature.names
    aliases = coder.names.aliases
    labels = (field_name(label) for label in holdout.columns)
    holdout = holdout.set_axis([aliases.get(label, label) for label in labels], axis=1)
    if not set(names) <= set(holdout.columns) and len(holdout.columns) == len(names):
        holdout = holdout.set_axis(list(names), axis=1)  # an ONNX file names its inputs, an array does not
    if missing := [name for name in names if name not in holdout.columns]:
        raise BadProject(f"The held-out rows have no column {missing[0]!r}.", hint="Pass the columns of the sample.")
    if not len(holdout):
        raise BadProject("There are no held-out rows.", hint="Leave holdout away, or pass rows as in training.")
    try:
        return coder.check_columns(plain_columns(holdout[list(names)]), len(holdout))
    except BadInput as error:
        raise BadProject(
            f"The held-out rows do not match the signature: {error.message}",
            hint="A server would refuse such a row, too: leave it out, or widen the field. The number after /records/ "
            "counts the held-out rows from 0.",
        ) from error
