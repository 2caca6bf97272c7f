"""The JSON Schema of a prediction, with what its parts mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from estiba.model.schema.answer_text import PartText, part_texts
from estiba.model.schema.json_schema import KEPT_SCHEMA
from estiba.model.schema.signature import Scalar, Signature
from estiba.model.schema.tensor_types import json_schema_of

Json = dict[str, Any]


def prediction_schema(signature: Signature) -> Json:
    """JSON Schema 2020-12 of one prediction, as `estiba.model.coding.predictions` shows it.

    Every part may be null, which stands for a number that is not finite.
    """
    return _object({**{name: dict(KEPT_SCHEMA) for name in signature.keep}, **dict(_outputs(signature))})


def _outputs(signature: Signature) -> Iterator[tuple[str, Json]]:
    for output in signature.each:
        parts = dict(_parts(output.signature))
        if not output.name:
            yield from parts.items()
        elif output.is_plain:
            yield output.name, next(iter(parts.values()))
        else:
            yield output.name, {**_object(parts), "x-estiba": {"role": "output"}}


def _object(properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _parts(signature: Signature) -> Iterator[tuple[str, Json]]:
    """Name and schema of the parts of a single output."""
    for tensor in signature.head.tensors:
        yield tensor.name, {**json_schema_of(tensor.dtype, tensor.shape, null=True), "x-estiba": {"role": "tensor"}}
    for part in part_texts(signature):
        hints: Json = {"role": part.role}
        if part.is_specific:
            hints["text"] = part.text
        if part.role in ("label", "probabilities") and signature.outputs.class_names:
            hints["class_names"] = _class_names(signature)
        if part.role == "value" and signature.outputs.unit:
            hints["unit"] = signature.outputs.unit
        yield part.name, {**_part_schema(signature, part), "description": part.text, "x-estiba": hints}


def _class_names(signature: Signature) -> dict[str, str]:
    """Names of classes, by their key in an answer and by the text that JavaScript makes of their value."""
    given = signature.outputs.class_names
    named = [(label, given[str(label)]) for label in signature.head.classes if str(label) in given]
    return {key: name for label, name in named for key in (str(label), _in_javascript(label))}


def _in_javascript(label: Scalar) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    return f"{label:.17g}" if isinstance(label, float) else str(label)


def _part_schema(signature: Signature, part: PartText) -> Json:
    """The schema of a part of a prediction, without its description."""
    if part.role == "label":
        return _choices(signature.head.classes)
    if part.role == "band":
        return _choices(signature.outputs.bands[part.name].labels)
    if part.role == "probabilities":
        return _by_class(signature, _SHARE)
    if part.role == "score" and signature.head.columns > 1:
        return _by_class(signature, _NUMBER)
    return _SHARE if part.role == "probability" else _NUMBER


_NUMBER: Json = {"type": ["number", "null"]}
_SHARE: Json = {"type": ["number", "null"], "minimum": 0, "maximum": 1}


def _choices(values: Sequence[Scalar]) -> Json:
    return {"enum": [*values, None]}


def _by_class(signature: Signature, each: Json) -> Json:
    return _object({str(c): each for c in signature.head.classes})
