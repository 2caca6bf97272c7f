"""Define signature and fields, the contract of a model's input and output.

A signature has three parts. `fields` describe one row of input. `head` says what the columns of the engine's answer
mean. `outputs` say how they are shown to a caller.

Every row has a *coded* form: one row of a float64 matrix, one column per field in order. Numbers, integers and
booleans are themselves, a category is the position of its level, a timestamp is in seconds since 1970 UTC, and a
missing value is NaN. An unseen level is `UNSEEN`. Text has no coded form; it travels beside the matrix. So do tensors:
a model of tensors has fields of that kind alone, and its answers are tensors too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import msgspec

from estiba.core.errors import BadProject
from estiba.model.schema.tensor_types import BatchAxis, Image, Shape, TensorOutput

Kind = Literal["number", "integer", "boolean", "category", "text", "timestamp", "tensor"]
Unseen = Literal["error", "null", "other"]
Extra = Literal["refuse", "ignore"]
Scalar = str | int | float | bool
Label = str | int | float | bool

UNSEEN = -1.0
"""The code of a category level that the model never saw."""


def is_unsafe(name: str) -> bool:
    """Tell if a name cannot be that of a field: with a quote, a backslash or a control character, or empty."""
    return not name or any(c in '"\\' or c < " " for c in name)


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
        column: the column's own name in training, where it is not fit for a request: with quotes, or empty.
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
    column: str | None = None
    description: str = ""
    shape: Shape = ()
    image: Image | None = None
    max_elements: int = 0

    @property
    def source(self) -> str:
        """The name of the column that the estimator was trained on."""
        return self.name if self.column is None else self.column


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
    - `label`: one column, the position among `classes` of what the model says; it has no numbers.
    - `several`: the columns of `heads`, one after the other; each of them has a `name`.

    With `labelled`, one more column at the end holds the position among `classes` of what the estimator's own `predict`
    says, for classifiers whose `predict` does not follow from their probabilities or scores. With `clusters`, the
    classes are clusters that the estimator found.
    """

    kind: Literal["probabilities", "scores", "outlier", "values", "label", "several", "tensors"]
    name: str = ""
    classes: tuple[Label, ...] = ()
    names: tuple[str, ...] = ()
    labelled: bool = False
    clusters: bool = False
    heads: tuple[Head, ...] = ()
    tensors: tuple[TensorOutput, ...] = ()
    batch: BatchAxis = "free"

    @property
    def width(self) -> int:
        """Columns of the engine's answer."""
        if self.kind == "several":
            return sum(head.width for head in self.heads)
        return self.columns + self.says_label

    @property
    def says_label(self) -> bool:
        """The last column is the position of a label."""
        return self.labelled or self.kind == "label"

    @property
    def columns(self) -> int:
        """Columns of probabilities, scores or values of a single output."""
        if self.kind == "values":
            return len(self.names)
        if self.kind == "label":
            return 0
        if self.kind == "outlier" or (self.kind == "scores" and len(self.classes) == 2):
            return 1
        return len(self.classes)


def renamed(head: Head, names: Sequence[str]) -> Head:
    """The head of a model of several outputs with other names for them, in order.

    Raises:
        BadProject: the model has more or fewer outputs.
    """
    count = len(head.heads or head.names)
    if len(names) != count:
        raise BadProject(
            f"There are {len(names)} names for outputs ({', '.join(names)}), and the model has {count}.",
            hint="Give one name for each output, in the order of the columns of y.",
        )
    if head.kind != "several":
        return msgspec.structs.replace(head, names=tuple(names))
    heads = (
        msgspec.structs.replace(each, name=name, names=(name,) if each.names else ())
        for each, name in zip(head.heads, names, strict=True)
    )
    return msgspec.structs.replace(head, heads=tuple(heads))


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A word for a range of the positive class' probability or of the value: n edges part n + 1 labels.

    A number equal to an edge belongs to the band above it.

    Args:
        edges: rising numbers.
        labels: the words, from the lowest range up; one more than edges.
    """

    edges: tuple[float, ...]
    labels: tuple[str, ...]


class OutputOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Form of one of several outputs: `[models.NAME.outputs.each.OUTPUT]`. What is not set is as it is for all."""

    label: str | None = None
    probabilities: str | None = None
    probability: str | None = None
    score: str | None = None
    value: str | None = None
    cluster: str | None = None
    positive: Label | None = None
    threshold: float | None = None
    bands: dict[str, Band] = {}
    unit: str | None = None
    class_names: dict[str, str] = {}


class Outputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Names and form of an answer as callers see it: `[models.NAME.outputs]` of the project file.

    Args:
        label: name of the class label in a prediction.
        probabilities: name of the object of probabilities by class; empty leaves it out.
        probability: name of the positive class' probability alone; empty leaves it out.
        score: name of the decision value, for models that have no probabilities.
        value: name of the predicted value; several targets keep the names they had in training.
        cluster: name of the cluster, for models that find clusters.
        positive: the class that `probability`, `threshold` and `bands` refer to; the last of two by default.
        threshold: the positive class is the label from this probability on; without it, the most probable class.
        bands: by name, words for ranges.
        unit: of the value, such as `US dollars`. Like `class_names`, it explains answers and changes none.
        class_names: by class, a name for people: `{ 0 = "stays", 1 = "leaves" }`.
        tensors: of an ONNX file, the outputs to answer with: the name in an answer, and the name in the file. All of
            them by default.
        names: names of the outputs of a model that has several, in order, instead of those of training.
        each: by name of an output of a model that has several, what differs for this one.
    """

    label: str = "label"
    probabilities: str = "probabilities"
    probability: str = ""
    score: str = "score"
    value: str = "value"
    cluster: str = "cluster"
    positive: Label | None = None
    threshold: float | None = None
    bands: dict[str, Band] = {}
    unit: str = ""
    class_names: dict[str, str] = {}
    tensors: dict[str, str] = {}
    names: tuple[str, ...] = ()
    each: dict[str, OutputOptions] = {}


class NamedOutput(NamedTuple):
    """One output of a model.

    Args:
        name: empty where the model has only this one.
        start: the first of its columns in the engine's answer.
        signature: of a model that would have only this output.
    """

    name: str
    start: int
    signature: Signature

    @property
    def stop(self) -> int:
        return self.start + self.signature.head.width

    @property
    def flat(self) -> Signature:
        """The same output with the names that its parts have where an answer has no levels: `OUTPUT.PART`."""
        if not self.name:
            return self.signature
        outputs = self.signature.outputs
        alone = self.is_plain
        names = {
            part: self.name if alone else f"{self.name}.{getattr(outputs, part)}"
            for part in shown_parts(self.signature)
        }
        bands = {f"{self.name}.{name}": band for name, band in outputs.bands.items()}
        return msgspec.structs.replace(self.signature, outputs=msgspec.structs.replace(outputs, **names, bands=bands))

    @property
    def is_plain(self) -> bool:
        """The output has a single part, which stands for it in a prediction."""
        return bool(self.name) and len(shown_parts(self.signature)) + len(self.signature.outputs.bands) == 1


class Signature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The contract of one model.

    Args:
        extra: `refuse` a record with a field that the model does not have, or `ignore` that field.
        keep: names of values that are no input of the model and are handed through to the answer, such as a key.
        unread: columns of the sample that the model does not read, and its target: left out in Python, and refused in
            requests unless `extra` ignores them.
    """

    fields: tuple[Field, ...]
    head: Head
    outputs: Outputs = Outputs()
    extra: Extra = "refuse"
    keep: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

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

    @property
    def label_name(self) -> str:
        """Name of the class label in a prediction, or of the cluster; empty leaves it out."""
        return self.outputs.cluster if self.head.clusters else self.outputs.label

    @property
    def is_single(self) -> bool:
        """The model has one output, whose parts are at the top of a prediction."""
        return self.head.kind != "several" and len(self.head.names) < 2

    @property
    def each(self) -> tuple[NamedOutput, ...]:
        """The outputs of the model, in the order of their columns."""
        if self.is_single:
            return (NamedOutput("", 0, self),)
        heads = self.head.heads or tuple(Head(kind="values", name=name, names=(name,)) for name in self.head.names)
        starts = accumulate((head.width for head in heads[:-1]), initial=0)
        return tuple(
            NamedOutput(head.name, start, Signature(fields=(), head=head, outputs=_own(self.outputs, head.name)))
            for head, start in zip(heads, starts, strict=True)
        )


def _own(outputs: Outputs, name: str) -> Outputs:
    """The settings for one of several outputs."""
    own = outputs.each.get(name)
    chosen = msgspec.structs.asdict(own) if own else {}
    given = {key: value for key, value in chosen.items() if value is not None and value != {}}
    return msgspec.structs.replace(outputs, names=(), each={}, **given)


_PARTS: dict[str, tuple[str, ...]] = {
    "probabilities": ("label", "probability", "probabilities"),
    "scores": ("label", "score"),
    "outlier": ("label", "score"),
    "label": ("label",),
    "values": ("value",),
    "tensors": (),
}
"""By kind of head, the settings that name a part of a prediction."""


def shown_parts(signature: Signature) -> tuple[str, ...]:
    """The settings that name the parts of a prediction of a single output, without its bands."""
    parts = _PARTS[signature.head.kind]
    named = ("cluster" if part == "label" and signature.head.clusters else part for part in parts)
    return tuple(part for part in named if getattr(signature.outputs, part))
