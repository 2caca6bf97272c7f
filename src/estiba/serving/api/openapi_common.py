"""The parts of the OpenAPI document that do not depend on the models: problems, headers, management endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from estiba.core.errors import Problem
from estiba.serving.api import openapi_drift
from estiba.serving.http import problem_details

__all__ = [
    "EXAMPLE_ID",
    "OK_HEADERS",
    "REQUEST_ID",
    "answers",
    "components",
    "get",
    "model_parameter",
    "problem",
    "server_paths",
    "server_tags",
]

Json = dict[str, Any]

_DETAILS = {
    400: "The body is not valid JSON.",
    403: "This server asks for no keys, so it takes changes from its own machine only.",
    404: "There is no model 'iris2' here.",
    409: "The project file decides the route of iris.",
    412: "The route of iris was changed by somebody else meanwhile; this change was not made.",
    413: "The body is larger than this server takes.",
    415: "Send application/json or text/csv.",
    422: "",
    500: "The server's log has the error, under the request's id.",
    503: "Try again in a second.",
    504: "The model had not answered when the deadline passed.",
}

EXAMPLE_ID = "01k9zq3v8m5t2c7x4b6n0d1e9f"

REQUEST_ID: Json = {"$ref": "#/components/parameters/RequestID"}

OK_HEADERS: Json = {
    "X-Request-ID": {"$ref": "#/components/headers/RequestID"},
    "X-Model-Version": {"$ref": "#/components/headers/ModelVersion"},
}


def components() -> Json:
    """A fresh `components` object: schemas, responses, headers and parameters that the paths refer to."""
    request_id: Json = {"schema": {"type": "string"}, "description": "The caller's own id, or a new one."}
    shared = (400, 404, 413, 415, 500, 503, 504)
    return {
        "schemas": {
            "Problem": _PROBLEM,
            "WrongValue": _WRONG_VALUE,
            "Warning": _WARNING,
            "Model": _MODEL,
            "Health": _HEALTH,
            **openapi_drift.schemas(),
        },
        "responses": {str(status): problem(status) for status in shared},
        "headers": {
            "RequestID": request_id,
            "ModelVersion": {"schema": {"type": "string"}, "description": "The version that answered."},
            "RetryAfter": {"schema": {"type": "integer", "minimum": 0}, "description": "Seconds to wait."},
        },
        "parameters": {"RequestID": {"name": "X-Request-ID", "in": "header", **request_id}},
    }


def problem(status: int, errors: Sequence[Problem] = (), **more: Any) -> Json:
    """A problem response (RFC 9457) with an example; `more` are further members, such as `model`."""
    example = msgspec.json.decode(
        problem_details.problem(status, _DETAILS[status], request_id=EXAMPLE_ID, errors=errors, **more)
    )
    headers = {"X-Request-ID": OK_HEADERS["X-Request-ID"]}
    if status == 503:
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    content = {"schema": _ref("Problem"), "examples": {"problem": {"value": example}}}
    return {
        "description": example["title"],
        "headers": headers,
        "content": {"application/problem+json": content},
    }


def server_tags() -> list[Json]:
    return [
        {"name": "Models", "description": "What is served, and the proof that it answers as it did in training."},
        {"name": "Server", "description": "Health, metrics and this document."},
    ]


def server_paths(models: Sequence[str]) -> Json:
    """The management endpoints. `models` are the names that are served."""
    named = [model_parameter(models)]
    schema, card = {"application/schema+json": {"schema": _OBJECT}}, {"text/markdown": {"schema": _TEXT}}
    about, proof = "JSON Schema of one record", "The proof that it answers as it did in training"
    return {
        "/models": get("list_models", "Models", "The models that are served", _json(_MODELS)),
        "/models/{model}": get("show_model", "Models", "One model", _json(_ref("Model")), named),
        "/models/{model}/schema": get("show_schema", "Models", about, schema, named),
        "/models/{model}/parity": get("show_parity", "Models", proof, _json(_OBJECT), named),
        "/models/{model}/card": get("show_card", "Models", "The model card", card, named),
        "/models/{model}/quality": _quality(named),
        "/models/{model}/drift": _drift(named),
        "/models/{model}/explain": _explain(named),
        "/feedback": {"post": _FEEDBACK},
        "/health": _summary(),
        "/health/live": get("health_live", "Server", "The process works", _json(_ref("Health"))),
        "/health/ready": _probe("health_ready", "Every model is loaded, verified and warmed"),
        "/health/startup": _probe("health_startup", "The server has started"),
        "/metrics": get("metrics", "Server", "Prometheus metrics", {"text/plain": {"schema": _TEXT}}),
        "/openapi.json": get("openapi", "Server", "This document", _json(_OBJECT)),
    }


def model_parameter(models: Sequence[str]) -> Json:
    """The parameter of a path that names a served model."""
    names = {"enum": list(models)} if models else {}
    return {"name": "model", "in": "path", "required": True, "schema": {"type": "string", **names}}


def answers(*statuses: int) -> Json:
    """Refer to the problems of these statuses."""
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def get(operation: str, tag: str, summary: str, content: Json, parameters: Sequence[Json] = ()) -> Json:
    """A path with a GET, whose parameters may name what is not there."""
    responses: Json = {"200": {"description": f"{summary}.", "content": content}}
    if parameters:
        responses["404"] = {"$ref": "#/components/responses/404"}
    get: Json = {"operationId": operation, "tags": [tag], "summary": summary, "responses": responses}
    if parameters:
        get["parameters"] = list(parameters)
    return {"get": get}


def _quality(named: Sequence[Json]) -> Json:
    """The endpoint of a model's quality by window."""
    span: Json = {"type": "string", "pattern": r"^\d{1,6}[smhdw]$"}
    since = {"name": "since", "in": "query", "description": "How far back.", "schema": {**span, "default": "7d"}}
    window = {
        "name": "window", "in": "query", "description": "Length of a window.", "schema": {**span, "default": "1d"}
    }  # fmt: skip
    summary = "How right it was, by version and window, from the labels of its predictions"
    path = get("show_quality", "Models", summary, _json(_OBJECT), [*named, since, window])
    path["get"]["responses"] |= answers(400, 503)
    return path


def _drift(named: Sequence[Json]) -> Json:
    """The endpoint of a model's drift."""
    span: Json = {"type": "string", "pattern": r"^\d{1,6}[smhdw]$", "default": "7d"}
    since = {"name": "since", "in": "query", "description": "How far back its history goes.", "schema": span}
    summary = "How the rows that it is asked differ from those that it was trained on, by field and window"
    path = get("show_drift", "Models", summary, _json(_ref("Drift")), [*named, since])
    path["get"]["responses"] |= answers(400, 503)
    return path


def _explain(named: Sequence[Json]) -> Json:
    """The endpoint of explanations."""
    output: Json = {
        "name": "output", "in": "query", "schema": _TEXT,
        "description": "The class, target or output to explain; by default the positive or the predicted class.",
    }  # fmt: skip
    rows: Json = {
        "name": "rows", "in": "query", "schema": {"type": "integer", "minimum": 100, "maximum": 200000},
        "description": "Rows that the model may be asked for each record, where it has no trees.",
    }  # fmt: skip
    records: Json = {"type": "array", "items": _OBJECT, "minItems": 1, "maxItems": 20}
    body: Json = {"type": "object", "properties": {"records": records}, "required": ["records"]}
    summary = "The contribution of each field to the prediction for a record"
    path = get("explain", "Models", summary, _json(_OBJECT), [*named, output, rows])
    operation: Json = path.pop("get")
    operation["responses"] |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in (400, 503)}
    operation["responses"]["422"] = problem(422, [Problem("#/records/0/Age", "expected a number")])
    return {"post": {**operation, "requestBody": {"required": True, "content": _json(body)}}}


def _summary() -> Json:
    path = get("health", "Server", "A summary of the server and its models", _json(_ref("Health")))
    path["get"]["responses"]["503"] = {"description": "The same, while not ready.", "content": _json(_ref("Health"))}
    return path


def _probe(operation: str, summary: str) -> Json:
    path = get(operation, "Server", summary, _json(_ref("Health")))
    path["get"]["responses"]["503"] = {"$ref": "#/components/responses/503"}
    return path


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_OBJECT: Json = {"type": "object"}
_TEXT: Json = {"type": "string"}

_PROBLEM: Json = {
    "type": "object",
    "description": "An error, as problem details (RFC 9457).",
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "default": "about:blank"},
        "title": {"type": "string", "description": "The same for every problem of this type."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What happened this time, and what to do."},
        "instance": {"type": "string", "format": "uri-reference", "description": "urn:request: and the request's id."},
        "errors": {"type": "array", "items": _ref("WrongValue")},
        "model": {"type": "string"},
        "version": {"type": "string"},
    },
    "required": ["title", "status"],
}

_WRONG_VALUE: Json = {
    "type": "object",
    "properties": {
        "detail": {"type": "string"},
        "pointer": {"type": "string", "description": "JSON pointer (RFC 6901) of the wrong value."},
    },
    "required": ["detail", "pointer"],
}

_WARNING: Json = {
    "type": "object",
    "description": "An odd value that was accepted, or an output that is null as the model's number is not finite.",
    "properties": {
        "code": {"type": "string", "examples": ["unseen-category", "not-finite"]},
        "pointer": {"type": "string", "examples": ["#/records/0/plan", "#/predictions/0/value"]},
    },
    "required": ["code", "pointer"],
}

_MODEL: Json = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "version": _TEXT,
        "status": _TEXT,
        "default": {"type": "boolean", "description": "This model answers POST /predict."},
        "digest": {"type": "string", "description": "Digest of the artifact."},
        "description": _TEXT,
        "engine": _TEXT,
        "runtime": {"type": "string", "description": "What executes the engine here."},
        "framework": _TEXT,
        "metrics": {"type": "object", "description": "As measured in training."},
        "simulated_data": {"type": "boolean", "description": "The model learned from simulated data."},
        "notes": {"type": "array", "items": _TEXT},
        "versions": {"type": "array", "items": _TEXT, "description": "For one model only."},
    },
    "required": ["name", "version"],
}

_MODELS: Json = {
    "type": "object",
    "properties": {"models": {"type": "array", "items": _ref("Model")}},
    "required": ["models"],
}

_LABEL: Json = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "X-Request-ID of the answer."},
        "label": {"description": "The class or value that turned out to be right."},
        "row": {"type": "integer", "minimum": 0, "description": "The row, where the request had several."},
    },
    "required": ["id", "label"],
}

_FEEDBACK: Json = {
    "operationId": "feedback",
    "tags": ["Models"],
    "summary": "Labels that became known for predictions of the log",
    "parameters": [
        {
            "name": "unknown",
            "in": "query",
            "description": "Refuse or leave out labels of predictions that are not in the log.",
            "schema": {"type": "string", "enum": ["refuse", "skip"], "default": "refuse"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"oneOf": [_LABEL, {"type": "array", "items": _LABEL, "minItems": 1}]}},
            "text/csv": {"schema": _TEXT, "example": "id,label\n01k9zq3v8m5t2c7x4b6n0d1e9f,leave\n"},
        },
    },
    "responses": {
        "200": {
            "description": "The labels are kept.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {name: {"type": "integer"} for name in ("accepted", "repeated", "unknown")},
                    }
                }
            },
        },
        **answers(400, 404, 413, 503),
        "422": {"description": "Labels are wrong; none was kept.", "content": _json(_ref("Problem"))},
    },
}

_HEALTH: Json = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
