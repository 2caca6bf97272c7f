"""The parts of the OpenAPI document that are the same whatever is served: problems, headers, the other endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["OK_HEADERS", "REQUEST_ID", "components", "problem", "server_paths", "server_tags"]

Json = dict[str, Any]

_PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("The body could not be read.", "The body is not JSON: unexpected character at byte 17."),
    404: ("There is no such model or version.", "No model 'iris2' is served here."),
    413: ("The body is too large.", "The body has 21,004,288 bytes; this server takes 16,777,216."),
    415: ("The media type is not supported.", "Send application/json or text/csv, not text/xml."),
    422: ("The input does not match the signature.", "1 value is wrong."),
    500: ("The model failed.", "The server's log has the reason under this request's id."),
    503: ("The server is not ready, is full or is stopping.", "Try again in 1 second."),
    504: ("The deadline passed before the model answered.", "The request waited longer than 30 seconds."),
}

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
        "schemas": {"Problem": _PROBLEM, "Warning": _WARNING, "Model": _MODEL, "Health": _HEALTH},
        "responses": {str(status): problem(status) for status in shared},
        "headers": {
            "RequestID": request_id,
            "ModelVersion": {"schema": {"type": "string"}, "description": "The version that answered."},
            "RetryAfter": {"schema": {"type": "integer", "minimum": 0}, "description": "Seconds to wait."},
        },
        "parameters": {"RequestID": {"name": "X-Request-ID", "in": "header", **request_id}},
    }


def problem(status: int, **more: object) -> Json:
    """A response of RFC 9457 with an example; `more` are further members of the example."""
    title, detail = _PROBLEMS[status]
    example = {"title": title, "status": status, "detail": detail, "instance": "urn:request:01k9zq3v8m5t2c7x", **more}
    headers = {"X-Request-ID": OK_HEADERS["X-Request-ID"]}
    if status == 503:
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {"problem": {"value": example}}}
    return {"description": title, "headers": headers, "content": {"application/problem+json": content}}


def server_tags() -> list[Json]:
    return [
        {"name": "Models", "description": "What is served, and the proof that it answers as it did in training."},
        {"name": "Server", "description": "Health, metrics and this document."},
    ]


def server_paths(models: Sequence[str]) -> Json:
    """The endpoints beside predict. `models` are the names that are served."""
    one = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": list(models)}}
    named = [one] if models else [{**one, "schema": {"type": "string"}}]
    return {
        "/models": _get("list_models", "Models", "The models that are served", _json(_MODELS)),
        "/models/{model}": _get("show_model", "Models", "One model", _json(_ref("Model")), named),
        "/models/{model}/schema": _get(
            "show_schema", "Models", "JSON Schema of one record", _json({"type": "object"}), named
        ),
        "/models/{model}/parity": _get(
            "show_parity", "Models", "The proof that it answers as in training", _json({"type": "object"}), named
        ),
        "/health": _get("health", "Server", "A summary of the server and its models", _json(_ref("Health"))),
        "/health/live": _get("health_live", "Server", "The process works", _json(_ref("Health"))),
        "/health/ready": _probe("health_ready", "Every model is loaded, verified and warmed"),
        "/health/startup": _probe("health_startup", "The server has started"),
        "/metrics": _get("metrics", "Server", "Prometheus metrics", {"text/plain": {"schema": {"type": "string"}}}),
        "/openapi.json": _get("openapi", "Server", "This document", _json({"type": "object"})),
    }


def _get(operation: str, tag: str, summary: str, content: Json, parameters: Sequence[Json] = ()) -> Json:
    responses: Json = {"200": {"description": f"{summary}.", "content": content}}
    if parameters:
        responses["404"] = {"$ref": "#/components/responses/404"}
    get: Json = {"operationId": operation, "tags": [tag], "summary": summary, "responses": responses}
    if parameters:
        get["parameters"] = list(parameters)
    return {"get": get}


def _probe(operation: str, summary: str) -> Json:
    path = _get(operation, "Server", summary, _json(_ref("Health")))
    path["get"]["responses"]["503"] = {"description": "Not yet.", "content": _json(_ref("Health"))}
    return path


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_PROBLEM: Json = {
    "type": "object",
    "description": "What went wrong, as RFC 9457 has it.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "default": "about:blank"},
        "title": {"type": "string", "description": "The same for every problem of this type."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What happened this time, and what to do."},
        "instance": {"type": "string", "format": "uri-reference", "description": "`urn:request:` and the request id."},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Problem/$defs/Error"}},
        "model": {"type": "string"},
        "version": {"type": "string"},
    },
    "required": ["title", "status"],
    "$defs": {
        "Error": {
            "type": "object",
            "properties": {
                "detail": {"type": "string"},
                "pointer": {"type": "string", "description": "JSON pointer (RFC 6901) of the wrong value."},
            },
            "required": ["detail", "pointer"],
        }
    },
}

_WARNING: Json = {
    "type": "object",
    "description": "Something odd about a value that was accepted.",
    "properties": {
        "code": {"type": "string", "examples": ["unseen-category"]},
        "pointer": {"type": "string", "examples": ["#/records/0/plan"]},
    },
    "required": ["code", "pointer"],
}

_MODEL: Json = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
    "required": ["name", "version"],
}

_MODELS: Json = {
    "type": "object",
    "properties": {"models": {"type": "array", "items": _ref("Model")}},
    "required": ["models"],
}

_HEALTH: Json = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
