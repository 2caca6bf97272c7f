"""Define signature and fields, the contract of a model's input and output.

A signature has three parts. `fields` describe one row of input. `head` says what the columns of the engine's answer
mean. `outputs` say how they are shown to a caller.

Every row has a *coded* form: one row of a float64 matrix, one column per field in order. Numbers, integers and
booleans are themselves, a category is the position of its level, a timestamp is in seconds since 1970 UTC, and a
missing value is NaN. An unseen level is `UNSEEN`. Text has no coded form; it travels beside the matrix. So do tensors:
a model of tensors has fields of that kind alone, and its answers are tensors too.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from estiba.core.errors import BadProject
from estiba.model.schema.tensor_types import BatchAxis, Image, Shape, TensorOutput, check_tensor, json_schema_of

Kind = Literal["number", "integer", "boolean", "category", "text", "timestamp", "tensor"]
Unseen = Literal["error", "null", "other"]
Extra = Literal["refuse", "ignore"]
Scalar = str | int | float | bool
Label = str | int | float | bool

UNSEEN = -1.0
"""The code of a category level that the model never saw."""

MAX_INTEGER = 2**53
"""Integers beyond this are not exact in float64 and are refused rather than rounded."""


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One input column.

    Args:
        kind: number (float64), integer, boolean, category, text, timestamp (ISO 8601, UTC where it names no zone) or
            tensor.
        nullable: a missing value is allowed, as null or by leaving the key out.
        levels: category only: the levels in the order of training; a level's code is its position.
        unseen: category only, for a level that is not in `levels`: `error` refuses the row; `null` treats it as
            missing; `other` hands it to the model, whose own encoder knows what to do with one.
        observed: the smallest and largest value in the sample.
        minimum, maximum: the allowed range, both inclusive. None leaves that end open.
        max_length: text only: the most characters of a text. None leaves it to the limit of a request's size.
        example: a real value from the sample.
        description: what it is, with its unit, for people.
        dtype: the pandas dtype of the column in training, to rebuild the model's exact input; of a tensor, the type
            of its elements, such as float32 or string.
        missing: the missing value that the column is rebuilt with, where its dtype leaves a choice: `none` or `nan`.
            Empty in artifacts from before it was recorded.
        shape: tensor only, of one record: the length of each axis, or the name of a free one.
        image: tensor only: an image may be sent instead, and how it becomes the tensor.
        max_elements: tensor only: the most elements it may have; 0 is the limit of Estiba.
    """

    name: str
    kind: Kind
    nullable: bool = False
    levels: tuple[Scalar, ...] = ()
    unseen: Unseen = "error"
    observed: tuple[float, float] | None = None
    minimum: float | None = None
    maximum: float | None = None
    example: Scalar | None = None
    dtype: str = "float64"
    missing: Literal["", "nan", "none"] = ""
    max_length: int | None = None
    description: str = ""
    shape: Shape = ()
    image: Image | None = None
    max_elements: int = 0


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The meaning of the columns of an engine's answer, a float64 matrix of shape (rows, width).

    - `probabilities`: one column per class, in the order of `classes`.
    - `scores`: decision values. With two classes one column, and `classes[1]` is meant where it is above 0;
      with more, one column per class and the largest is meant.
    - `outlier`: one column; `classes` is (-1, 1), and 1 (an inlier) is meant where it is not below 0.
    - `values`: one column per regression target, named by `names`.
    - `tensors`: no matrix, but one tensor for each of `tensors`. `batch` is the first axis of the model's own inputs
      and outputs: `free` takes any number of records, `one` takes them one by one, and with `none` a record is all
      that the model takes in one run, with the shapes of the model file.

    With `labelled`, one more column at the end holds the position among `classes` of what the estimator's own `predict`
    says, for classifiers whose `predict` does not follow from their probabilities or scores.
    """

    kind: Literal["probabilities", "scores", "outlier", "values", "tensors"]
    classes: tuple[Label, ...] = ()
    names: tuple[str, ...] = ()
    labelled: bool = False
    tensors: tuple[TensorOutput, ...] = ()
    batch: BatchAxis = "free"

    @property
    def width(self) -> int:
        """Columns of the engine's answer."""
        return self.columns + self.labelled

    @property
    def columns(self) -> int:
        """Columns of probabilities, scores or values."""
        if self.kind == "values":
            return len(self.names)
        if self.kind == "outlier" or (self.kind == "scores" and len(self.classes) == 2):
            return 1
        return len(self.classes)


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A word for a range of the positive class' probability or of the value: n edges part n + 1 labels.

    A number equal to an edge belongs to the band above it.

    Args:
        edges: rising numbers.
        labels: the words, from the lowest range up; one more than edges.
    """

    edges: tuple[float, ...]
    labels: tuple[str, ...]


class Outputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Names and form of an answer as callers see it: `[models.NAME.outputs]` of the project file.

    Args:
        label: name of the class label in a prediction.
        probabilities: name of the object of probabilities by class; empty leaves it out.
        probability: name of the positive class' probability alone; empty leaves it out.
        score: name of the decision value, for models that have no probabilities.
        value: name of the predicted value; several targets keep the names they had in training.
        positive: the class that `probability`, `threshold` and `bands` refer to; the last of two by default.
        threshold: the positive class is the label from this probability on; without it, the most probable class.
        bands: by name, words for ranges.
        tensors: of an ONNX file, the outputs to answer with: the name in an answer, and the name in the file. All of
            them by default.
    """

    label: str = "label"
    probabilities: str = "probabilities"
    probability: str = ""
    score: str = "score"
    value: str = "value"
    positive: Label | None = None
    threshold: float | None = None
    bands: dict[str, Band] = {}
    tensors: dict[str, str] = {}


class Signature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The contract of one model.

    Args:
        extra: `refuse` a record with a field that the model does not have, or `ignore` that field.
        keep: names of values that are no input of the model and are handed through to the answer, such as a key.
    """

    fields: tuple[Field, ...]
    head: Head
    outputs: Outputs = Outputs()
    extra: Extra = "refuse"
    keep: tuple[str, ...] = ()

    def field(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @property
    def is_tensors(self) -> bool:
        """The model takes and answers tensors, not rows of a table."""
        return self.head.kind == "tensors"

    @property
    def positive(self) -> int:
        """Position of the positive class among the classes; -1 where there is none."""
        classes = self.head.classes
        if self.outputs.positive is not None:
            return next(i for i, c in enumerate(classes) if str(c) == str(self.outputs.positive))
        return 1 if len(classes) == 2 else -1

    def validate(self) -> Signature:
        """Return the signature itself, or raise BadProject where it contradicts itself."""
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise BadProject(f"The field {name!r} appears twice in the signature.")
        for field in self.fields:
            if not field.name or any(c in '"\\' or c < " " for c in field.name):
                raise BadProject(
                    f"The field {field.name!r} has a quote, a backslash or a control character in its name, or none.",
                    hint="Rename the column before training.",
                )
            if field.kind == "category" and not field.levels:
                raise BadProject(f"The category field {field.name!r} has no levels.")
            if field.unseen == "null" and not field.nullable:
                raise BadProject(
                    f"The field {field.name!r} has unseen = 'null' but may not be missing.",
                    hint="Set nullable = true, or choose 'error' or 'other'.",
                )
            if field.max_length is not None and (field.kind != "text" or field.max_length < 1):
                raise BadProject(
                    f"The field {field.name!r} has max_length {field.max_length}.",
                    hint="It is a number of characters from 1 on, and for text fields alone.",
                )
            low, high = field.minimum, field.maximum
            if low is not None and high is not None and low > high:
                raise BadProject(f"The field {field.name!r} has minimum {low:g} above maximum {high:g}.")
            self._validate_tensor(field)
        self._validate_outputs()
        self._validate_keep()
        return self

    def _validate_keep(self) -> None:
        outputs = self.outputs
        shown = {outputs.label, outputs.probabilities, outputs.probability, outputs.score, outputs.value}
        taken = {*shown, *outputs.bands, *self.head.names}
        for name in self.keep:
            if name in self.names:
                raise BadProject(
                    f"keep names {name!r}, which is a field of the model.",
                    hint="Remove it from keep, which is for values that are not inputs of the model.",
                )
            if not name or self.keep.count(name) > 1 or name in taken:
                reason = "is empty" if not name else "is an output of the model" if name in taken else "appears twice"
                raise BadProject(f"A name in keep {reason}: {name!r}.", hint="Give it another name.")

    def _validate_tensor(self, field: Field) -> None:
        if (field.kind == "tensor") != self.is_tensors:
            raise BadProject(f"The field {field.name!r} is of kind {field.kind}; all fields are tensors, or none is.")
        if self.is_tensors:
            if field.nullable or field.minimum is not None or field.maximum is not None:
                raise BadProject(f"The field {field.name!r} is a tensor, which cannot be missing and has no range.")
            check_tensor(field.name, field.dtype, field.shape, field.image, field.max_elements)

    def _validate_outputs(self) -> None:
        outputs, classes = self.outputs, self.head.classes
        if outputs.positive is not None and str(outputs.positive) not in {str(c) for c in classes}:
            raise BadProject(
                f"outputs.positive is {outputs.positive!r}, which is not a class of this model.",
                hint=f"Its classes are: {', '.join(map(str, classes)) or 'none'}.",
            )
        if outputs.threshold is not None and not 0 <= outputs.threshold <= 1:
            raise BadProject(f"outputs.threshold is a probability from 0 to 1, not {outputs.threshold:g}.")
        needs_positive = outputs.threshold is not None or outputs.probability
        if needs_positive and (self.head.kind != "probabilities" or self.positive < 0):
            raise BadProject(
                "outputs.threshold and outputs.probability need a model with probabilities and a positive class.",
                hint="Set outputs.positive to the class that they refer to.",
            )
        for name, band in outputs.bands.items():
            if len(band.labels) != len(band.edges) + 1 or list(band.edges) != sorted(set(band.edges)):
                raise BadProject(
                    f"outputs.bands.{name} needs rising edges and one label more than edges, "
                    f"not {len(band.edges)} edges and {len(band.labels)} labels."
                )
            if self.head.kind in ("scores", "outlier") or (self.head.kind == "probabilities" and self.positive < 0):
                raise BadProject(f"outputs.bands.{name} needs a positive class or a single value.")


def json_schema(signature: Signature) -> dict[str, Any]:
    """JSON Schema 2020-12 of one record of input."""
    required = [f.name for f in signature.fields if not f.nullable]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {f.name: _field_schema(f) for f in signature.fields},
        "additionalProperties": signature.extra == "ignore",
    }
    schema["properties"] |= {name: dict(KEPT_SCHEMA) for name in signature.keep}
    if required:
        schema["required"] = required
    return schema


KEPT_SCHEMA: dict[str, Any] = {
    "type": ["string", "number", "boolean", "null"],
    "description": "No input of the model: handed through to the answer.",
    "x-estiba": {"kind": "kept"},
}
"""JSON Schema of a value that `keep` hands through, in a record and in an answer."""

_JSON_TYPES = {
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "text": "string",
    "timestamp": "string",
}


def _field_schema(field: Field) -> dict[str, Any]:
    schema: dict[str, Any]
    if field.kind == "tensor":
        schema = json_schema_of(field.dtype, field.shape, image=field.image is not None)
    elif field.kind == "category":
        schema = {"enum": list(field.levels)} if field.unseen == "error" else {"type": _level_types(field.levels)}
        if field.unseen != "error":
            schema["examples"] = list(field.levels)
        if field.nullable:
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
            else:
                schema["type"] = [*schema["type"], "null"]
    else:
        kind = _JSON_TYPES[field.kind]
        schema = {"type": [kind, "null"] if field.nullable else kind}
    if field.kind == "timestamp":
        schema["format"] = "date-time"
    if field.minimum is not None:
        schema["minimum"] = _whole(field, field.minimum)
    if field.maximum is not None:
        schema["maximum"] = _whole(field, field.maximum)
    if field.max_length is not None:
        schema["maxLength"] = field.max_length
    if field.description:
        schema["description"] = field.description
    if field.example is not None:
        others = [level for level in schema.get("examples", ()) if level != field.example]
        schema["examples"] = [field.example, *others]
    return schema


def _level_types(levels: tuple[Scalar, ...]) -> list[str]:
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return sorted({names[type(level)] for level in levels})


def _whole(field: Field, value: float) -> float | int:
    return int(value) if field.kind == "integer" and math.isfinite(value) and value == int(value) else value
