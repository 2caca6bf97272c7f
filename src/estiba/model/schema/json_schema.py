"""Write JSON Schema of one record of input."""

from __future__ import annotations

import math
from typing import Any

from estiba.model.schema.signature import Field, Scalar, Signature
from estiba.model.schema.tensor_types import json_schema_of


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
    more = {"maxLength": field.max_length, "title": field.column, "description": field.description or None}
    schema |= {key: value for key, value in more.items() if value is not None}
    if field.example is not None:
        others = [level for level in schema.get("examples", ()) if level != field.example]
        schema["examples"] = [field.example, *others]
    return schema


def _level_types(levels: tuple[Scalar, ...]) -> list[str]:
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return sorted({names[type(level)] for level in levels})


def _whole(field: Field, value: float) -> float | int:
    return int(value) if field.kind == "integer" and math.isfinite(value) and value == int(value) else value
