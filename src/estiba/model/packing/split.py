"""Split a pipeline at the last step that has no exact form: the steps up to it run in Python, the others are converted.

The converted steps are a model of their own, whose sample is what the step before them hands over. They are proven as
such: on rows of that sample, and on golden rows of theirs with unseen, missing and infinite values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from estiba.core.errors import EstibaError
from estiba.model.artifact import golden_rows as golden
from estiba.model.artifact.tail import Tail
from estiba.model.coding.coder import Coded, Coder, Matrix
from estiba.model.packing.candidate import Candidate, check_rebuilt, decides_by_first
from estiba.model.packing.converted import Converted
from estiba.model.packing.model_columns import read_part
from estiba.model.packing.split_probe import Handed, Probe
from estiba.model.packing.training_result import frame_of
from estiba.model.packing.unseen_words import word_readers
from estiba.model.schema.infer import infer
from estiba.model.schema.signature import Field, Signature

if TYPE_CHECKING:
    import pandas as pd

EngineChoice = Literal["auto", "onnx", "python"]
Steps = list[tuple[str, Any]]


def converted(
    candidate: Candidate, engine: EngineChoice, tolerance: float, run: Callable[[bytes, Candidate], golden.Predict]
) -> tuple[Converted | None, str]:
    """The model as ONNX, or with some steps in Python, or why not.

    Args:
        run: makes a function that answers coded rows of a graph.
        tolerance: largest accepted difference, absolute below 1 and relative above.
    """
    from estiba.model.convert import NotConvertible

    if engine == "python":
        return None, "The project asks for the python engine."
    try:
        onnx = candidate.convert()
        return Converted(onnx, run(onnx, candidate)), ""
    except NotConvertible as error:
        if engine == "onnx":
            raise
        reason = error.message
    except EstibaError:
        raise
    except Exception as error:  # a fault of a rule of ours must not keep a model from being packed
        reason = f"A rule of Estiba's failed on this model, which is a fault of Estiba: {type(error).__name__}: {error}"
        if engine == "onnx":
            raise NotConvertible(reason) from error
    try:
        form = split(candidate, tolerance)
    except NotConvertible as error:
        return None, with_tail(reason, error.message)
    except Exception as error:  # a transformer of the user's own fails in ways of its own; Python runs the whole then
        return None, with_tail(reason, f"{type(error).__name__}: {error}")
    return form, reason if form is None else form.reason


def with_tail(reason: str, tail: str) -> str:
    """The reason for the python engine with the reason why no step behind it was converted."""
    return f"{reason.removesuffix('.')}; the steps behind it are not converted either: {tail.removesuffix('.')}"


def split(candidate: Candidate, tolerance: float) -> Converted | None:
    """The candidate's pipeline with its last steps converted; None where it has no step that could be split off.

    Args:
        tolerance: largest accepted difference, absolute below 1 and relative above.

    Raises:
        NotConvertible: the steps behind the last one that runs in Python have no exact form either.
    """
    from estiba.model.convert import NotConvertible
    from estiba.model.engines.onnx import runner
    from estiba.model.engines.tail import SplitPipeline

    steps = _steps(candidate.estimator)
    if len(steps) < 2:
        return None
    try:
        count, reason, handed = _python_steps(candidate, steps)
        if not count:
            return None
        model = _joined(steps[count:])
        tail, infinite, onnx = _converted_tail(candidate, model, handed, tolerance)
    except NotConvertible:
        raise
    except EstibaError as error:
        raise NotConvertible(error.message) from error
    described = Tail(
        python_steps=tuple(name for name, _ in steps[:count]),
        converted_steps=tuple(name for name, _ in steps[count:]),
        fields=tail.signature.fields,
        infinite=tuple(field.name for field in tail.signature.fields if field.name in infinite),
    )
    python = tuple(step for _, step in steps[:count])
    chained = SplitPipeline(python, described, runner(onnx))
    coder, head = candidate.coder, candidate.signature.head

    def predict(coded: Coded) -> Matrix:
        return chained.answer(coder.frame(coded), head)

    return Converted(onnx, predict, python, described, reason, tail.coded)


def _steps(model: Any) -> Steps:
    """The steps of a Pipeline that do something when it predicts, with those of pipelines inside it."""
    kind = type(model)
    if (
        kind.__name__.endswith("SearchCV")
        and kind.__module__.startswith("sklearn.")
        and hasattr(model, "best_estimator_")
    ):
        return _steps(model.best_estimator_)
    if kind.__name__ != "Pipeline" or kind.__module__.partition(".")[0] not in ("sklearn", "imblearn"):
        return []
    steps: Steps = []
    for name, step in model.steps:
        inner = _steps(step)
        if inner:
            steps += [(f"{name}.{part}", own) for part, own in inner]
        elif step is not None and step != "passthrough" and not hasattr(step, "fit_resample"):
            steps.append((name, step))
    return steps


def _joined(steps: Steps) -> Any:
    """The model of the last steps alone."""
    from sklearn.pipeline import Pipeline

    return Pipeline(steps) if len(steps) > 1 else steps[0][1]


def _python_steps(candidate: Candidate, steps: Steps) -> tuple[int, str, Handed]:
    """The number of steps up to the last one without an exact form, why, and the rows that it hands over."""
    from estiba.model.convert import NotConvertible, failing_step
    from estiba.model.estimators.estimator_facts import rows_for

    count, reason, head = 0, "", candidate.signature.head
    fields: Sequence[Field] = candidate.signature.fields
    handed = Handed("", candidate.sample, True)
    rows = rows_for(candidate.estimator, candidate.sample.copy())  # as a step may write into what it is given
    while count < len(steps) - 1:
        failing = failing_step([step for _, step in steps[count:-1]], fields, handed.sample, head)
        if failing is None:
            break
        position, error = failing
        for _, step in steps[count : count + position + 1]:
            rows = step.transform(rows)
        count, reason = count + position + 1, error.message
        name = steps[count - 1][0]
        if hasattr(rows, "tocsr"):
            raise NotConvertible(f"the step {name!r} hands over a sparse matrix")
        handed = Handed(name, frame_of(rows), hasattr(rows, "columns"))
        if len(handed.sample) != len(candidate.sample) or not handed.sample.columns.is_unique:
            raise NotConvertible(f"the step {name!r} hands over other rows, or two columns of one name")
        model = _joined(steps[count:])
        if handed.is_named:
            handed = handed._replace(sample=read_part(model, handed.sample, head, keep=())[0])
        fields = _fields(model, handed.sample, candidate.signature)
    return count, reason, handed


def _fields(model: Any, sample: pd.DataFrame, signature: Signature) -> tuple[Field, ...]:
    """The fields of what a step hands over; everything that is no category and no text is a number."""
    return tuple(map(_plain, infer(model, sample, signature.head).fields))


def _plain(field: Field) -> Field:
    """The field without values of the sample but for levels, which the artifact may not have to keep."""
    field = msgspec.structs.replace(field, example=None, observed=None)
    if field.kind not in ("number", "integer", "boolean"):
        return field
    dtype = "float32" if field.dtype == "float32" else "float64"
    return msgspec.structs.replace(field, kind="number", dtype=dtype, missing="")


def _converted_tail(
    candidate: Candidate, model: Any, handed: Handed, tolerance: float
) -> tuple[Candidate, frozenset[str], bytes]:
    """The converted steps as a model of their own, the names of its fields that may be infinite, and its graph.

    Missing and unseen categories that the sample does not have are refused where their conversion does not hold.
    """
    signature = msgspec.structs.replace(
        candidate.signature, fields=_fields(model, handed.sample, candidate.signature), extra="refuse", keep=()
    )
    probe = Probe(model, signature, handed)
    wider = msgspec.structs.replace(signature, fields=probe.widened())
    try:
        return _proven_tail(model, wider, probe, handed.sample, tolerance)
    except EstibaError:
        if wider == signature:
            raise
    return _proven_tail(model, signature, probe, handed.sample, tolerance)


def _proven_tail(
    model: Any, signature: Signature, probe: Probe, sample: pd.DataFrame, tolerance: float
) -> tuple[Candidate, frozenset[str], bytes]:
    tail, infinite = _candidate(model, signature, probe, sample)
    onnx = tail.convert()
    _prove(tail, infinite, onnx, tolerance)
    return tail, infinite, onnx


def _candidate(
    model: Any, signature: Signature, probe: Probe, sample: pd.DataFrame
) -> tuple[Candidate, frozenset[str]]:
    """The steps as a model of their own, and the names of the fields that may be infinite."""
    from estiba.model.convert import convert
    from estiba.model.estimators.outputs import answer

    nullable = probe.taken(math.nan) | {field.name for field in signature.fields if field.nullable}
    infinite = probe.taken(math.inf) & probe.taken(-math.inf)
    fields = tuple(msgspec.structs.replace(field, nullable=field.name in nullable) for field in signature.fields)
    signature = msgspec.structs.replace(signature, fields=fields)
    exact_first = decides_by_first(signature)
    tail = Candidate(
        signature,
        Coder(signature),
        probe.coded,
        sample,
        lambda frame, head: answer(model, frame, head),
        lambda head: convert(model, fields, sample, head, exact_first=exact_first).onnx,
    )
    return tail, infinite


def _prove(tail: Candidate, infinite: Collection[str], onnx: bytes, tolerance: float) -> None:
    """Compare the converted steps with the original ones on golden rows of their own, as every runtime answers them.

    Raises:
        NotConvertible: an answer differs, or the steps tell unseen words apart. EstibaError: they fail on such rows.
    """
    from estiba.model.convert import NotConvertible
    from estiba.model.convert.near_ties import decides_between_rounded

    if readers := word_readers(tail, max(tolerance, golden.TOLERANCE)):
        raise NotConvertible(f"it reads the words of {next(iter(readers))!r} and tells unseen ones apart")
    rows = golden.proof_rows(tail.coder.fields, tail.coded)
    check_rebuilt(tail, rows, tail.direct(rows))
    finite = tail.coded.take(np.flatnonzero(~np.isinf(tail.coded.matrix).any(axis=1)))
    if not len(finite):
        raise NotConvertible("every row that is handed over has an infinite number")
    runtimes = _runtimes(onnx, tail.signature)
    apart = golden.NEAR if decides_between_rounded(onnx) else 0.0
    chosen = golden.choose(tail.coder, finite, runtimes[0], apart)
    chosen = golden.join([chosen, *_infinite_rows(tail, finite, infinite)])
    expected = tail.original(chosen)
    for predict in runtimes:
        parity, broken = golden.compare(tail.signature, expected, predict(chosen), tolerance=tolerance)
        if broken is not None:
            worst = max(parity.max_abs_error.values(), default=0.0)
            raise NotConvertible(f"their converted form is off by up to {worst:.3g}")


def _runtimes(onnx: bytes, signature: Signature) -> list[golden.Predict]:
    """ONNX Runtime, and the kernel where it takes the graph."""
    from estiba.model.engines.exact import open_exact
    from estiba.model.engines.onnx import runner
    from estiba.model.engines.onnx_reader import NotRecognised

    try:
        return [runner(onnx), open_exact(onnx, signature.fields, signature.head.width).predict]
    except NotRecognised:
        return [runner(onnx)]


def _infinite_rows(tail: Candidate, finite: Coded, infinite: Collection[str]) -> Iterator[Coded]:
    for value in (math.inf, -math.inf):
        places = [i for i, field in enumerate(tail.coder.fields) if field.name in infinite]
        rows = finite.take(np.resize(np.arange(len(finite)), len(places)))
        rows.matrix[np.arange(len(places)), places] = value
        yield rows
