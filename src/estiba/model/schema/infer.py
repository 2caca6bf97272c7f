"""Infer a signature from a sample and, where the estimator knows better, from the estimator."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from estiba.core.errors import BadProject
from estiba.model.schema.estimator_columns import KnownLevels, known_levels, vectorized_columns
from estiba.model.schema.signature import Field, Head, Kind, Outputs, Scalar, Signature, Unseen, is_unsafe
from estiba.model.schema.signature_checks import validated
from estiba.model.schema.tensor_types import ElementType, Image, Shape, shape_text

if TYPE_CHECKING:
    import pandas as pd

MAX_LEVELS = 100
"""A column of strings with more distinct values, and no encoder that lists them, is text."""


class FieldOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[models.NAME.fields.FIELD]`: overrides of what was inferred from the sample. None keeps what was inferred.

    Args:
        type: of a tensor: the type of its elements, which has to be that of the model file.
        shape: of a tensor: of one record, the length of each axis or the name of a free one.
        image: of a tensor: an image may be sent instead, and how it becomes the tensor.
        max_elements: of a tensor: the most elements that it may have.
    """

    kind: Kind | None = None
    nullable: bool | None = None
    levels: tuple[Scalar, ...] | None = None
    unseen: Unseen | None = None
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    example: Scalar | None = None
    description: str | None = None
    type: ElementType | None = None
    shape: Shape | None = None
    image: Image | None = None
    max_elements: int | None = None


def infer(
    model: object,
    sample: pd.DataFrame,
    head: Head,
    *,
    fields: Mapping[str, FieldOptions] | None = None,
    outputs: Outputs | None = None,
    imputed: Collection[str] = (),
) -> Signature:
    """The signature of `model`, a fitted estimator, from rows that it was trained on.

    Args:
        sample: training features, rows in any order, with the dtypes of training.
        fields: by column name, what to override.
        outputs: how answers are shown.
        imputed: columns that may be missing, whatever the sample has.

    Raises:
        BadProject: an override names no column, or the result contradicts itself.
    """
    columns = [str(c) for c in sample.columns]
    known, texts = known_levels(model, columns), vectorized_columns(model, columns)
    inferred = [
        _text_field(str(name), sample[name]) if name in texts else _field(str(name), sample[name], known.get(str(name)))
        for name in sample.columns
    ]
    inferred = [msgspec.structs.replace(f, nullable=True) if f.name in imputed else f for f in inferred]
    safe = safe_names(columns)
    own = {name: column for column, name in safe.items()}
    chosen = override(inferred, {own.get(name, name): option for name, option in (fields or {}).items()})
    complete = [_with_missing(f, sample[name], known.get(f.name)) for f, name in zip(chosen, sample, strict=True)]
    complete = [
        msgspec.structs.replace(field, name=safe[field.name], column=field.name) if field.name in safe else field
        for field in complete
    ]
    return validated(Signature(fields=tuple(complete), head=head, outputs=outputs or Outputs()))


def safe_names(columns: Sequence[str]) -> dict[str, str]:
    """Field names for the columns whose own names cannot be field names: without quotes, or by position."""
    taken = {name for name in columns if not is_unsafe(name)}
    names: dict[str, str] = {}
    for position, column in enumerate(columns):
        if is_unsafe(column):
            plain = re.sub(r"[\"\\\x00-\x1f]+", "_", column).strip("_ ") or f"column_{position + 1}"
            number = next(n for n in itertools.count(1) if (plain if n == 1 else f"{plain}_{n}") not in taken)
            names[column] = plain if number == 1 else f"{plain}_{number}"
            taken.add(names[column])
    return names


def override(fields: Sequence[Field], options: Mapping[str, FieldOptions]) -> tuple[Field, ...]:
    """Fields with what the user knows better; raises BadProject for an option of a field that is not there."""
    names = [field.name for field in fields]
    unknown = [name for name in options if name not in names]
    if unknown:
        raise BadProject(f"The model has no field {unknown[0]!r}.", hint=f"Its fields are: {', '.join(names)}.")
    return tuple(_override(field, options.get(field.name)) for field in fields)


def _text_field(name: str, column: pd.Series[Any]) -> Field:
    """A column that a text vectorizer reads; it takes no missing text."""
    present = column.dropna()
    others = sorted({type(value).__name__ for value in present if not isinstance(value, str)})
    if others:
        raise BadProject(
            f"The model reads the column {name!r} as text, and it holds values of type {', '.join(others)}.",
            hint="Train on df[column].astype(str), or name another column.",
        )
    example = str(present.iloc[0]) if len(present) else None
    return Field(name=name, kind="text", dtype=str(column.dtype), example=example)


def _field(name: str, column: pd.Series[Any], known: KnownLevels | None) -> Field:
    kind = _kind(column, known)
    present = column.dropna()
    field = Field(
        name=name,
        kind=kind,
        nullable=bool(column.isna().any()) or (known is not None and known.missing),
        dtype=str(column.dtype),
        example=_example(kind, present),
    )
    if kind == "category":
        levels = _known_levels(column, known) if known else _levels(column, present)
        # A column with both booleans has no unseen one.
        other = known is not None and set(levels) != {True, False}
        return msgspec.structs.replace(field, levels=levels, unseen=known.unseen if known and other else "error")
    if kind in ("number", "integer") and len(present):
        numbers = present.astype(float)
        low, high = float(numbers.min()), float(numbers.max())
        if math.isfinite(low) and math.isfinite(high):
            return msgspec.structs.replace(field, observed=(low, high))
    return field


def _known_levels(column: pd.Series[Any], known: KnownLevels) -> tuple[Scalar, ...]:
    """The levels of an encoder, which turns a column of nullable booleans into numbers, as the column has them."""
    if column.dtype.name == "boolean":
        return tuple(bool(level) for level in known.levels)
    return known.levels


def _with_missing(field: Field, column: pd.Series[Any], known: KnownLevels | None) -> Field:
    """The field with the missing value of its column, where the dtype alone does not say which it is."""
    numeric = field.kind == "category" and field.dtype not in ("category", "str", "string", "object")
    if not field.nullable or not (numeric or field.dtype == "object"):
        return field
    missing = column[column.isna()]
    nones = sum(value is None for value in missing) if field.dtype == "object" else 0
    none = nones * 2 > len(missing) if len(missing) else known is not None and known.missing_is_none
    return msgspec.structs.replace(field, missing="none" if none and field.dtype == "object" else "nan")


def _kind(column: pd.Series[Any], known: KnownLevels | None) -> Kind:
    import pandas.api.types as types

    dtype: Any = column.dtype
    _refuse_other_types(column, dtype, encoded=known is not None)
    if known is not None or isinstance(dtype, _categorical()):
        return "category"
    if types.is_bool_dtype(dtype):
        return "boolean"
    if types.is_integer_dtype(dtype):
        return "integer"
    if types.is_numeric_dtype(dtype):
        return "number"
    if types.is_datetime64_any_dtype(dtype):
        return "timestamp"
    present = column.dropna()
    kinds = {_type_name(value) for value in present}
    if kinds == {"bool"}:
        return "boolean"
    if kinds and kinds <= {"int", "float"}:
        return "integer" if kinds == {"int"} else "number"
    values = set(present.head(100_000))
    repeated = len(values) <= max(2, len(present) // 2)
    return "category" if repeated and len(values) <= MAX_LEVELS else "text"


_REMEDIES = {
    "Decimal": "df[{name!r}].astype(float)",
    "date": "pd.to_datetime(df[{name!r}])",
    "datetime": "pd.to_datetime(df[{name!r}])",
    "Timestamp": "pd.to_datetime(df[{name!r}])",
    "timedelta": "df[{name!r}].dt.total_seconds()",
    "Timedelta": "df[{name!r}].dt.total_seconds()",
}
"""Expressions that convert a column of these types to numbers or instants; all other types are converted to text."""


def _refuse_other_types(column: pd.Series[Any], dtype: Any, *, encoded: bool) -> None:
    """Raise BadProject for values that JSON has no form for, and for a column of several types."""
    if dtype.kind == "M" and encoded:
        raise BadProject(
            f"The column {column.name!r} holds times that an encoder of the model takes as categories.",
            hint=f"Train on text, df[{column.name!r}].astype(str), or on numbers such as the month.",
        )
    if isinstance(dtype, _categorical()):
        kinds = {_type_name(value) for value in column.cat.categories}
    elif dtype.kind in "mc" or dtype.name == "object" or type(dtype).__name__ in ("IntervalDtype", "PeriodDtype"):
        kinds = {_type_name(value) for value in column.dropna()}
    else:
        return
    others = sorted(kinds - {"bool", "int", "float", "str"})
    if others and len(kinds) == 1:
        text = "df[{name!r}].astype(str)"
        remedy = _REMEDIES.get(others[0], text)
        if encoded and "to_datetime" in remedy:  # an encoder takes no instants either
            remedy = text
        remedy = remedy.format(name=column.name)
        raise BadProject(
            f"The column {column.name!r} holds values of type {others[0]}, which a caller cannot send as JSON.",
            hint=f"Train on {remedy} instead.",
        )
    if others or not (len(kinds) <= 1 or kinds == {"int", "float"}):
        raise BadProject(
            f"The column {column.name!r} mixes values of type {', '.join(sorted(kinds))}.",
            hint="Give it one type before training, for instance with astype(str).",
        )


def _type_name(value: object) -> str:
    """The name of the plain Python type that NumPy's scalars and subclasses stand for."""
    plain = value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value
    return next((kind.__name__ for kind in (bool, int, float, str) if isinstance(plain, kind)), type(value).__name__)


def _categorical() -> type:
    import pandas as pd

    kind: type = pd.CategoricalDtype
    return kind


def _levels(column: pd.Series[Any], present: pd.Series[Any]) -> tuple[Scalar, ...]:
    values = column.cat.categories if isinstance(column.dtype, _categorical()) else sorted(set(present))
    return tuple(_plain(v) for v in values)


def _example(kind: Kind, present: pd.Series[Any]) -> Scalar | None:
    if not len(present):
        return None
    value = present.iloc[0]
    if kind == "timestamp":
        return str(value.isoformat())
    value = _plain(value)
    if kind == "boolean":
        return bool(value)
    return float(value) if kind == "number" else value


def _plain(value: Any) -> Scalar:
    """A Python scalar of a NumPy one."""
    plain: Scalar = value.item() if hasattr(value, "item") else value
    return plain


def _override(field: Field, options: FieldOptions | None) -> Field:
    if options is None:
        return field
    changes = {k: v for k, v in msgspec.structs.asdict(options).items() if v is not None}
    kind = changes.get("kind", field.kind)
    if field.kind == "tensor" == kind:
        return _override_tensor(field, changes)
    if wrong := [name for name in ("type", "shape", "image", "max_elements") if name in changes]:
        raise BadProject(f"The field {field.name!r} is a {field.kind}; {wrong[0]} is for tensors.", hint=_TENSOR_HINT)
    if kind != field.kind:
        allowed = {
            ("integer", "number"),
            ("number", "integer"),  # a column of whole numbers that may be missing is float64 in pandas
            ("integer", "boolean"),
            ("category", "text"),
            ("text", "category"),
        }
        if (field.kind, kind) not in allowed:
            raise BadProject(f"The field {field.name!r} is a column of {field.kind} and cannot become {kind}.")
        changes.setdefault("levels", ())
    return msgspec.structs.replace(field, **changes)


_TENSOR_HINT = "Tensors are inputs of ONNX files: set kind = 'tensor' for an input, by its own name."


def _override_tensor(field: Field, changes: dict[str, Any]) -> Field:
    if (dtype := changes.pop("type", field.dtype)) != field.dtype:
        raise BadProject(f"The field {field.name!r} has type {dtype}, and the model takes {field.dtype}.")
    shape = changes.get("shape", field.shape)
    fits = len(shape) == len(field.shape) and all(
        isinstance(own, str) or own == axis for own, axis in zip(field.shape, shape, strict=True)
    )
    if not fits or any(isinstance(axis, int) and axis < 1 for axis in shape):
        raise BadProject(
            f"The field {field.name!r} has shape {shape_text(shape)}, and the model takes {shape_text(field.shape)}.",
            hint="Only free axes can be set: to a length, or to a name.",
        )
    return msgspec.structs.replace(field, **changes)
