"""The OpenAPI 3.1 document of a server, with the real fields of the models that it serves.

Every predict path is written out per model (`/models/iris/predict`), because a path with a placeholder could only
describe a body of any fields. What the docs page needs beyond the standard is under `x-estiba`, which other tools
ignore.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from estiba.core.errors import Problem
from estiba.model.schema.answer_text import class_text
from estiba.model.schema.json_pointer import pointer
from estiba.model.schema.json_schema import json_schema
from estiba.model.schema.signature import Field, Signature
from estiba.model.schema.tensor_types import shape_text
from estiba.model.schema.values import expected
from estiba.serving.api.openapi_common import (
    EXAMPLE_ID,
    OK_HEADERS,
    REQUEST_ID,
    components,
    model_parameter,
    problem,
    server_paths,
    server_tags,
)
from estiba.serving.api.openapi_prediction import prediction_schema
from estiba.serving.api.openapi_protocols import protocol_components, protocol_paths, protocol_tags
from estiba.serving.api.openapi_route import route_paths

__all__ = ["Described", "document"]

Json = dict[str, Any]

MAX_NAMED_OUTPUTS = 8
"""Outputs of a model that a sentence names."""


@dataclass(frozen=True)
class Described:
    """One served version of a model, as the document describes it.

    Args:
        example: a golden record, as a caller would send it; empty where its tensors are too large to be shown.
        answer: the prediction for that record, as a caller would see it; empty as well.
        default: this model answers `POST /predict`. A model that is served alone does so anyway.
        simulated: it was trained on generated rows.
    """

    name: str
    version: str
    signature: Signature
    example: Mapping[str, object]
    answer: Mapping[str, object]
    description: str = ""
    default: bool = False
    simulated: bool = False


def document(models: Sequence[Described], *, title: str, version: str, server_version: str) -> Json:
    """The OpenAPI 3.1.0 document, ready for JSON.

    Args:
        models: in the order to show. Of several versions of one name the first answers `/models/NAME/predict`.
        title, version: of the service.
        server_version: of Estiba.

    Source: OpenAPI Specification 3.1.0; JSON Schema 2020-12; RFC 9457 for problems.
    """
    shared = components()
    paths: Json = {}
    for model, name in zip(models, _identifiers(models), strict=True):
        shared["schemas"].update(_schemas(model, name))
        for path, item in _predict_paths(model, name, models).items():
            paths.setdefault(path, item)
    names = list(dict.fromkeys(model.name for model in models))
    shared["schemas"].update(protocol_components())
    has_default = len(models) == 1 or any(model.default for model in models)
    foreign = protocol_paths([(model.name, model.version) for model in models], default=has_default)
    tags = [*({"name": n, "description": _about(models, n)} for n in names), *server_tags(), *protocol_tags()]
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": _METHODS, "x-estiba": {"server": server_version}},
        "servers": [{"url": ".", "description": "Where this document was read"}],
        "tags": tags,
        "paths": {**paths, **server_paths(names), **route_paths([model_parameter(names)]), **foreign},
        "components": shared,
    }


_METHODS = (
    "Every POST that predicts is answered in the same way as QUERY (RFC 10008), which says that it changes nothing and "
    "may be repeated. OpenAPI 3.1 cannot describe that method."
)


def _record_schema(model: Described) -> Json:
    schema = json_schema(model.signature)
    properties = {f.name: {**schema["properties"][f.name], "x-estiba": _hints(f)} for f in model.signature.fields}
    examples = {"examples": [dict(model.example)]} if model.example else {}
    return {**schema, "properties": {**schema["properties"], **properties}, **examples}


def _hints(field: Field) -> Json:
    hints: Json = {"kind": field.kind}
    if field.kind == "tensor":
        hints |= {"dtype": field.dtype, "shape": list(field.shape), "image": field.image is not None}
    if field.observed is not None:
        hints["observed"] = list(field.observed)
    if field.levels:
        hints["levels"] = list(field.levels)
        hints["unseen"] = field.unseen
    return hints


def _schemas(model: Described, name: str) -> Json:
    record, prediction = _ref(f"{name}.Record"), _ref(f"{name}.Prediction")
    batch: Json = {
        "type": "object",
        "properties": {"records": {"type": "array", "items": record, "minItems": 1}},
        "required": ["records"],
        "additionalProperties": False,
    }
    answer: Json = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The request's id, as in X-Request-ID."},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "predictions": {"type": "array", "items": prediction, "description": "In the order of the records."},
            "warnings": {"type": "array", "items": _ref("Warning")},
        },
        "required": ["id", "model", "version", "predictions"],
    }
    return {
        f"{name}.Record": _record_schema(model),
        f"{name}.Records": batch,
        f"{name}.Prediction": prediction_schema(model.signature),
        f"{name}.Answer": answer,
    }


def _predict_paths(model: Described, name: str, models: Sequence[Described]) -> Json:
    base = f"/models/{quote(model.name, safe='')}"
    is_default = model.default or len(models) == 1
    by_version = f"predict_{name}_version" if _leads(model, models) else f"predict_{name}"
    paths: Json = {}
    if is_default:
        paths["/predict"] = _predict(model, name, "predict", "Predict with the default model", short=True)
    if _leads(model, models):
        paths[f"{base}/predict"] = _predict(model, name, f"predict_{name}", f"Predict with {model.name}")
    summary = f"Predict with {model.name}, version {model.version}"
    paths[f"{base}/versions/{quote(model.version, safe='')}/predict"] = _predict(model, name, by_version, summary)
    return paths


def _leads(model: Described, models: Sequence[Described]) -> bool:
    return next(m for m in models if m.name == model.name) is model


def _predict(model: Described, name: str, operation: str, summary: str, *, short: bool = False) -> Json:
    query = {} if model.signature.is_tensors else {"get": _by_query(model, name, operation, summary)}
    return {
        **query,
        "post": {
            "operationId": operation,
            "summary": summary,
            "description": _description(model),
            "tags": [model.name],
            "parameters": [REQUEST_ID],
            "requestBody": {"required": True, "content": _request(model, name)},
            "responses": _responses(model, name),
            "x-estiba": {
                "model": model.name,
                "version": model.version,
                "predicts": _predicts(model.signature),
                "about": model.description,
                **({"simulated": True} if model.simulated else {}),
                "record": _ref(f"{name}.Record")["$ref"],
                "prediction": _ref(f"{name}.Prediction")["$ref"],
                **({"default": True} if short else {}),
            },
        },
    }


def _by_query(model: Described, name: str, operation: str, summary: str) -> Json:
    """The GET operation for one record as the query; a missing value is left out."""
    schema = json_schema(model.signature)
    required = schema.get("required", ())
    fields = [
        {"name": name, "in": "query", "required": name in required, "schema": _in_query(each)}
        for name, each in schema["properties"].items()
    ]
    return {
        "operationId": f"{operation}_by_query",
        "summary": f"{summary}: one record as the query",
        "tags": [model.name],
        "parameters": [REQUEST_ID, *fields],
        "responses": _responses(model, name),
        "x-estiba": {"of": model.name, "version": model.version},
    }


def _in_query(schema: Json) -> Json:
    kinds = schema.get("type")
    plain = {**schema, "type": [kind for kind in kinds if kind != "null"]} if isinstance(kinds, list) else schema
    return {**plain, "enum": [v for v in plain["enum"] if v is not None]} if "enum" in plain else plain


def _request(model: Described, name: str) -> Json:
    if model.signature.is_tensors:
        return _tensor_request(model, name)
    record = dict(model.example)
    return {
        "application/json": {
            "schema": {"anyOf": [_ref(f"{name}.Records"), _ref(f"{name}.Record")]},
            "examples": {
                "records": {"summary": "One record or many", "value": {"records": [record]}},
                "record": {"summary": "A bare record", "value": record},
            },
        },
        "text/csv": {
            "schema": {"type": "string", "description": "A header of field names, then one record a line."},
            "examples": {"csv": {"summary": "A header and one record", "value": _csv(record)}},
        },
    }


def _tensor_request(model: Described, name: str) -> Json:
    schema: Json = {"schema": {"anyOf": [_ref(f"{name}.Records"), _ref(f"{name}.Record")]}}
    if model.example:
        schema["examples"] = {"records": {"summary": "One record or many", "value": {"records": [dict(model.example)]}}}
    binary: Json = {"schema": {"type": "string", "format": "binary"}}
    fields = model.signature.fields
    content = {"application/json": schema, "application/x-npz": binary}
    if len(fields) == 1:
        content["application/x-npy"] = binary
        if fields[0].image is not None:
            content |= {"image/jpeg": binary, "image/png": binary}
    return content


def _csv(record: Mapping[str, object]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(record)
    writer.writerow("" if v is None else str(v).lower() if isinstance(v, bool) else v for v in record.values())
    return text.getvalue()


def _responses(model: Described, name: str) -> Json:
    answer = {
        "id": EXAMPLE_ID,
        "model": model.name,
        "version": model.version,
        "predictions": [dict(model.answer)],
        "warnings": [],
    }
    answered: Json = {"application/json": {"schema": _ref(f"{name}.Answer")}}
    if model.answer:
        answered["application/json"]["examples"] = {"golden": {"value": answer}}
    if model.signature.is_tensors:
        for kind in ("application/x-npy", "application/x-npz"):
            answered[kind] = {"schema": {"type": "string", "format": "binary"}}
    wrong = {str(status): {"$ref": f"#/components/responses/{status}"} for status in (400, 404, 413, 415)}
    later = {str(status): {"$ref": f"#/components/responses/{status}"} for status in (500, 503, 504)}
    return {
        "200": {"description": "One prediction per record.", "headers": OK_HEADERS, "content": answered},
        **wrong,
        "422": problem(422, [_a_wrong_value(model.signature)], model=model.name, version=model.version),
        **later,
    }


def _a_wrong_value(signature: Signature) -> Problem:
    # A category or a number makes a better example of an error than free text does.
    field = next((f for f in signature.fields if f.kind != "text"), signature.fields[0])
    return Problem(pointer(0, field.name), f"expected {expected(field)}")


def _predicts(signature: Signature) -> str:
    if signature.is_tensors:
        return ", ".join(f"{tensor.name} {shape_text(tensor.shape)}" for tensor in signature.head.tensors)
    if not signature.is_single:
        names = [output.name for output in signature.each]
        return ", ".join(names[:MAX_NAMED_OUTPUTS]) + (", ..." if len(names) > MAX_NAMED_OUTPUTS else "")
    if signature.head.kind == "values":
        unit = signature.outputs.unit
        return f"{signature.outputs.value} ({unit})" if unit else signature.outputs.value
    classes = [class_text(signature, c) for c in signature.head.classes]
    return " / ".join(classes) if len(classes) <= 4 else f"one of {len(classes)} classes"


def _about(models: Sequence[Described], name: str) -> str:
    first = next(m for m in models if m.name == name)
    return _description(first) or f"Predicts {_predicts(first.signature)}."


def _description(model: Described) -> str:
    warning = "SIMULATED DATA: its predictions mean nothing in reality. " if model.simulated else ""
    return f"{warning}{model.description}".strip()


def _identifiers(models: Sequence[Described]) -> list[str]:
    """One distinct name per model, fit for an operationId and a component key."""
    taken: dict[str, int] = {}
    names = []
    for model in models:
        name = _plain(model.name if _leads(model, models) else f"{model.name}_{model.version}")
        taken[name] = taken.get(name, 0) + 1
        names.append(name if taken[name] == 1 else f"{name}__{taken[name]}")
    return names


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "_", name).strip("_") or "model"


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
