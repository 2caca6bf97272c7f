"""The paths of a model's route in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estiba.model.registry.route_record import MAX_REASON_CHARACTERS, MAX_RULES
from estiba.serving.api.openapi_common import answers, get, problem

Json = dict[str, Any]

_JSON: Json = {"application/json": {"schema": {"type": "object"}}}

_REFUSALS = (403, 409, 412)

_TARGET: Json = {"type": "string", "description": "An alias or a version number."}

_RULE: Json = {
    "type": "object",
    "properties": {"header": {"type": "string"}, "value": {"type": "string"}, "target": _TARGET},
    "required": ["header", "value", "target"],
    "additionalProperties": False,
}

_ROUTE: Json = {
    "type": "object",
    "properties": {
        "weights": {
            "type": "object",
            "description": "Percent of the requests by target; they add up to 100.",
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 100},
            "minProperties": 1,
        },
        "sticky": {"type": "string", "description": "header:NAME, field:NAME, or key."},
        "shadow": _TARGET,
        "when": {"type": "array", "items": _RULE, "maxItems": MAX_RULES},
    },
    "required": ["weights"],
    "additionalProperties": False,
    "example": {"weights": {"production": 95, "candidate": 5}},
}

_REASON: Json = {
    "name": "reason",
    "in": "query",
    "description": "Why it is changed, for the history.",
    "schema": {"type": "string", "maxLength": MAX_REASON_CHARACTERS},
}

_IF_MATCH: Json = {
    "name": "If-Match",
    "in": "header",
    "description": "The ETag of the route that the caller has seen; or all of them.",
    "schema": {"type": "string", "pattern": r'^("?[0-9]{1,9}"?|\*)$'},
}


def route_paths(named: Sequence[Json]) -> Json:
    """The paths of one route. `named` is the parameter of the model."""
    path = get("show_route", "Models", "Which version answers which share of the requests", _JSON, named)
    path["put"] = _change("set_route", "Share the requests between versions", named)
    path["put"]["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ROUTE}}}
    path["delete"] = _change("remove_route", "Let one version answer all requests", named)
    history = get("show_route_history", "Models", "The latest changes of the route", _JSON, named)
    history["get"]["responses"] |= answers(503)
    return {"/models/{model}/route": path, "/models/{model}/route/history": history}


def _change(operation: str, summary: str, named: Sequence[Json]) -> Json:
    done: Json = {"description": "The route that this server follows now.", "content": _JSON}
    return {
        "operationId": operation,
        "tags": ["Models"],
        "summary": summary,
        "parameters": [*named, _REASON, _IF_MATCH],
        "responses": {"200": done, **answers(400, 404, 413, 503), **{str(each): problem(each) for each in _REFUSALS}},
    }
