"""Answers of functions, and of objects with a `predict` of the user's own: arrays, DataFrames or lists of dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadProject, EstibaError
from estiba.model.estimators import own_modules
from estiba.model.estimators.estimator_facts import NoAnswer
from estiba.model.estimators.object_graph import last_step, module_of
from estiba.model.schema.signature import Head, Label, renamed

if TYPE_CHECKING:
    import pandas as pd

_MIN_TEXTS = 20
"""Rows of a sample from which on an output that hardly repeats is no label."""

MAX_LABELS = 1000
"""A text answer with more distinct values in the sample is no label."""

_TOGETHER = 100
"""Rows of the sample that are asked together, to be compared with the same rows alone."""


def is_function(model: Any) -> bool:
    """Tell whether a model is a function, or another callable without `predict`."""
    return not hasattr(model, "predict") and callable(model)


def is_own(model: Any) -> bool:
    """Tell whether only its answers show what a model answers: a function, or an object of a class of the user's own.

    A classifier, with the attribute `classes_` and `predict_proba` or `decision_function`, is an estimator like others.
    """
    if isinstance(model, type):
        raise NoAnswer(f"{model.__name__} is a class.", hint="Pack a fitted object of it.")
    if is_function(model):
        return True
    classifies = hasattr(model, "predict_proba") or hasattr(model, "decision_function")
    return hasattr(model, "predict") and not classifies and own_modules.is_own(module_of(type(last_step(model))))


def ask(model: Any, rows: Any) -> Any:
    """The answer of a function or of `predict`, as it is."""
    return model(rows) if is_function(model) else model.predict(rows)


def head_from(model: Any, sample: pd.DataFrame) -> tuple[Head, str]:
    """The meaning of the answers to a sample, and the name of a single one; empty where it has none.

    Raises:
        NoAnswer: they are no table with a row for each row of the sample. BadProject: the model fails.
    """
    try:
        raw = ask(model, sample)
    except EstibaError:
        raise
    except Exception as error:
        raise BadProject(
            f"The model fails on its own sample: {type(error).__name__}: {error}",
            hint="It is called with a DataFrame that has the columns of the sample.",
        ) from error
    names, columns = _columns(raw, len(sample))
    texts = [i for i, column in enumerate(columns) if column.dtype.kind not in "iuf"]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise NoAnswer(f"The answers have two columns {twice[0]!r}.", hint="Give each its own name.")
    if not texts:
        shown = names if len(columns) == 1 or any(names) else _numbered(len(columns))
        single = names[0] if len(columns) == 1 else ""
        return Head(kind="values", names=("value",) if len(columns) == 1 else tuple(shown)), single
    if len(columns) > 1:
        return _several(names if any(names) else list(_numbered(len(columns))), columns, texts), ""
    return Head(kind="scores", classes=_classes(model, columns[0], "the model")), names[0]


def _several(names: Sequence[str], columns: Sequence[npt.NDArray[Any]], texts: Sequence[int]) -> Head:
    """The head of several outputs, of which some are labels."""
    for i in texts:
        count = len(columns[i])
        if count >= _MIN_TEXTS and len(set(columns[i].tolist())) > count // 2:
            raise NoAnswer(
                f"The output {names[i]!r} is another text for nearly every row of the sample.",
                hint="An output is a number, or one of a few labels. Return a code, and let the caller write the text.",
            )
    heads = (
        Head(kind="label", name=name, classes=_classes(None, column, f"the output {name!r}"))
        if i in texts
        else Head(kind="values", name=name, names=(name,))
        for i, (name, column) in enumerate(zip(names, columns, strict=True))
    )
    return Head(kind="several", heads=tuple(heads))


def asked_alone(model: Any, sample: pd.DataFrame, head: Head) -> tuple[str, ...]:
    """A note where the model answers a row together with others differently than alone."""
    rows = sample.head(_TOGETHER)
    together = answer(model, rows, head)
    for row in sorted({0, len(rows) // 2, len(rows) - 1}):
        alone = answer(model, rows.iloc[[row]], head)
        if not np.allclose(alone[0], together[row], rtol=1e-6, atol=1e-6, equal_nan=True):
            return (
                f"The model answers row {row} of the sample differently alone and together with others. A server asks "
                "the rows of several requests together, so its answers change with the traffic.",
            )
    return ()


def with_names(head: Head, names: Sequence[str]) -> Head:
    """The head with these names for its outputs; raises BadProject where the answers have names of their own."""
    own = tuple(each.name for each in head.heads) or head.names
    if own != _numbered(len(own)):
        raise BadProject(
            f"outputs.names is for answers without names, and the model names them itself: {', '.join(own)}.",
            hint="Rename the columns of what the model answers, and leave outputs.names away.",
        )
    return renamed(head, names)


def _numbered(count: int) -> tuple[str, ...]:
    """Names of several values that have none."""
    return tuple(f"value{i}" for i in range(count))


def answer(model: Any, frame: pd.DataFrame, head: Head) -> npt.NDArray[np.float64]:
    """The model's answers to the rows of a DataFrame, float64 of shape (rows, head.width).

    Raises:
        NoAnswer: it answers otherwise than it did when it was packed.
    """
    raw, rows = ask(model, frame), len(frame)
    if head.heads:
        named = _named_columns(raw, [each.name for each in head.heads], rows)
        blocks = (
            _positions(column, each).astype(np.float64) if each.classes else _numbers([column])[:, 0]
            for column, each in zip(named, head.heads, strict=True)
        )
        return np.column_stack(list(blocks))
    return _values(raw, head, rows) if head.kind == "values" else _label_scores(raw, head, rows)


def _values(raw: Any, head: Head, rows: int) -> npt.NDArray[np.float64]:
    """Values as a matrix with one column for each name of the head.

    Raises:
        NoAnswer: the answer has other columns than the head, other rows, or no numbers.
    """
    return _numbers(_named_columns(raw, head.names, rows))


def _named_columns(raw: Any, expected: Sequence[str], rows: int) -> list[npt.NDArray[Any]]:
    """The columns of an answer in the order of when it was packed: by name, where they have names of their own."""
    names, columns = _columns(raw, rows)
    if any(names) and len(expected) > 1:
        by_name = dict(zip(names, columns, strict=True))
        if missing := [name for name in expected if name not in by_name]:
            raise NoAnswer(f"The model's answer has no column {missing[0]!r}, which it had when it was packed.")
        columns = [by_name[name] for name in expected]
    if len(columns) != len(expected):
        raise NoAnswer(
            f"The model's answer has {len(columns)} columns, and it had {len(expected)} when it was packed.",
        )
    return columns


def _numbers(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    try:
        return np.column_stack([column.astype(np.float64) for column in columns])
    except (TypeError, ValueError) as error:
        raise NoAnswer(f"The model's answer is no number: {error}.") from None


def _label_scores(raw: Any, head: Head, rows: int) -> npt.NDArray[np.float64]:
    """Labels as scores, of which the largest is that of the label.

    Raises:
        NoAnswer: a label is none of the head's.
    """
    _, columns = _columns(raw, rows)
    scores = np.zeros((rows, len(head.classes)))
    scores[np.arange(rows), _positions(columns[0], head)] = 1.0
    return scores[:, 1:] - 0.5 if head.columns == 1 else scores


def _positions(column: npt.NDArray[Any], head: Head) -> npt.NDArray[np.int_]:
    """Labels as positions among the classes of an output."""
    positions = {label: position for position, label in enumerate(head.classes)}
    labels = [_plain(value) for value in column.tolist()]
    if strange := [label for label in labels if label not in positions]:
        where = f" for {head.name!r}" if head.name else ""
        hint = "Pack it with a sample of all labels, or give the model an attribute classes_ with all of them."
        if head.name:
            hint = "Pack it with a sample of all labels."
        raise NoAnswer(
            f"The model answers {strange[0]!r}{where}, which it answered on no row of the sample when it was packed.",
            hint=hint,
        )
    return np.array([positions[label] for label in labels], dtype=int)


def _columns(raw: Any, rows: int) -> tuple[list[str], list[npt.NDArray[Any]]]:
    """Names and columns of an answer; names are empty where it has none."""
    names: list[str] = []
    if isinstance(raw, (list, tuple)) and raw and isinstance(raw[0], Mapping):
        names = [str(name) for name in raw[0]]
        if odd := next((i for i, row in enumerate(raw) if [*map(str, row)] != names), None):
            raise NoAnswer(f"The model's answers have different keys: {[*raw[0]]}, and in row {odd} {[*raw[odd]]}.")
        columns = [_array([row[name] for row in raw]) for name in raw[0]]
    elif hasattr(raw, "columns") and hasattr(raw, "iloc"):
        names = [str(name) for name in raw.columns]
        columns = [_array(raw.iloc[:, i].tolist()) for i in range(len(names))]
    elif isinstance(raw, Mapping):
        names, columns = [str(name) for name in raw], [_array(values) for values in raw.values()]
    else:
        named = getattr(raw, "name", None) if hasattr(raw, "iloc") else None
        matrix = _array(raw)
        columns = [matrix] if matrix.ndim <= 1 else [_array(matrix[:, i]) for i in range(matrix[:1].size)]
        names = ["" if named is None else str(named)] if len(columns) == 1 else [""] * len(columns)
    if not columns or any(column.shape != (rows,) for column in columns):
        shapes = ", ".join(str(column.shape) for column in columns[:3]) or type(raw).__name__
        raise NoAnswer(
            f"The model answers {shapes} for {rows} rows.",
            hint="It has to give one answer for each row: an array, a DataFrame or a list of dicts.",
        )
    return names, columns


def _array(values: Any) -> npt.NDArray[Any]:
    """An array of numbers where all values are numbers or missing, else of objects."""
    array = np.asarray(values)
    if array.dtype.kind == "U" and isinstance(values, list) and not all(isinstance(value, str) for value in values):
        array = np.array(values, dtype=object)  # NumPy turns NaN and numbers between texts into texts
    if array.dtype.kind == "O" and all(_is_number(value) for value in array.ravel().tolist()):
        return array.astype(np.float64)
    return array


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _classes(model: Any, column: npt.NDArray[Any], subject: str) -> tuple[Label, ...]:
    """The labels of a column: those that a model states, or those that the sample shows."""
    stated = getattr(model, "classes_", None)
    labels = {_plain(value) for value in column.tolist()} if stated is None else dict.fromkeys(map(_plain, stated))
    if strange := [label for label in labels if not isinstance(label, (str, bool, int))]:
        raise NoAnswer(
            f"{subject[0].upper()}{subject[1:]} answers {strange[0]!r}, which is no label.",
            hint="It has to answer every row with a text or a boolean, such as 'unknown', or every row with a number.",
        )
    if not 2 <= len(labels) <= MAX_LABELS:
        remedy = "Pack with a sample of all labels, or answer numbers in their place: a free text is no output."
        if model is not None:
            remedy = "Give the model an attribute classes_ with all labels, or return numbers."
        raise NoAnswer(
            f"{subject[0].upper()}{subject[1:]} answers {len(labels)} different labels on the sample.",
            hint=f"A label is one of 2 to {MAX_LABELS}. {remedy}",
        )
    return tuple(labels if stated is not None else sorted(labels, key=lambda label: (str(type(label)), label)))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
