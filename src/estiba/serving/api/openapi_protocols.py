"""The paths of the standard protocols in the OpenAPI document; their schemas are the same for every model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

__all__ = ["protocol_components", "protocol_paths", "protocol_tags"]

Json = dict[str, Any]

V2, V1, MLFLOW = "Open Inference Protocol", "KServe V1", "MLflow and SageMaker"

_DESCRIPTIONS = {
    400: "The request cannot be read, or does not match the model's signature.",
    404: "There is no such model or version here.",
    405: "Use POST or QUERY.",
    413: "The request is larger than this server accepts.",
    415: "The body is of a media type or encoding that this path does not take.",
    500: "The model failed.",
    501: "This server does not do that.",
    503: "The server is not ready, or overloaded.",
}


def protocol_tags() -> list[Json]:
    return [
        {"name": V2, "description": "The protocol of Triton, KServe, MLServer and their clients."},
        {"name": V1, "description": "The protocol of TensorFlow Serving and older KServe."},
        {"name": MLFLOW, "description": "The protocol of MLflow's scoring server and SageMaker's containers."},
    ]


def protocol_components() -> Json:
    """Schemas that the paths refer to."""
    return {
        "ProtocolError": _object({"error": _TEXT}, ["error"], "What went wrong, in one sentence."),
        "MlflowError": _object({"error_code": _TEXT, "message": _TEXT}, ["error_code", "message"]),
        "Tensor": _TENSOR,
        "TensorRequest": _TENSOR_REQUEST,
        "TensorResponse": _TENSOR_RESPONSE,
        "TensorMetadata": _TENSOR_METADATA,
        "TensorModel": _TENSOR_MODEL,
        "Instances": _object({"instances": _ROWS}, ["instances"]),
        # Each alternative has a name, because client generators make a class of each.
        "Invocation": {"oneOf": [_ref(name) for name in _INVOCATIONS]},
        "InvocationParams": _PARAMS,
        **_INVOCATIONS,
        "Predictions": _object({"predictions": _ANY}, ["predictions"]),
    }


def protocol_paths(versions: Sequence[tuple[str, str]], *, default: bool) -> Json:
    """The paths of every protocol.

    Args:
        versions: name and version of every model that is served; the first of a name is the current one.
        default: there is a default model, which answers `/invocations`.
    """
    names = list(dict.fromkeys(name for name, _ in versions))
    paths: Json = {**_server_paths()}
    for name in names:
        plain = quote(name, safe="")
        own = _v2_paths(f"/v2/models/{plain}", name, "")
        own[f"/v1/models/{plain}"] = {"get": _operation(V1, f"Whether {name} is ready", "TensorReady", (503,))}
        own[f"/v1/models/{plain}:predict"] = {"post": _predict(V1, f"Predict with {name}", "Instances")}
        paths |= _belonging(own, {"of": name})
    for name, version in versions:
        base = f"/v2/models/{quote(name, safe='')}/versions/{quote(version, safe='')}"
        paths |= _belonging(_v2_paths(base, name, f", version {version}"), {"of": name, "version": version})
    if default:
        paths["/invocations"] = {"post": _invocations()}
    _identify(paths)
    return paths


def _belonging(paths: Json, owner: Json) -> Json:
    """The paths with the model that each operation belongs to, for the docs page."""
    for item in paths.values():
        for operation in item.values():
            operation["x-estiba"] = owner
    return paths


def _identify(paths: Json) -> None:
    """Set an operationId for each operation, from its method and path; equal ones get a number."""
    taken: dict[str, int] = {}
    for path, item in paths.items():
        for method, operation in item.items():
            plain = f"{method}_{re.sub(r'[^a-zA-Z0-9]+', '_', path).strip('_')}"
            taken[plain] = taken.get(plain, 0) + 1
            operation["operationId"] = plain if taken[plain] == 1 else f"{plain}__{taken[plain]}"


def _server_paths() -> Json:
    return {
        "/v2": {"get": _operation(V2, "What the server is and which extensions it has", "Object", ())},
        "/v2/health/live": {"get": _operation(V2, "The process works", "Object", (503,), same=True)},
        "/v2/health/ready": {"get": _operation(V2, "Every model is ready", "Object", (503,), same=True)},
        "/v2/repository/index": {"post": _index()},
        "/v1/models": {"get": _operation(V1, "The models that are served", "Object", ())},
        "/ping": {"get": _ping()},
        "/version": {"get": _version()},
    }


def _v2_paths(base: str, name: str, which: str) -> Json:
    infer = _predict(V2, f"Infer with {name}{which}", "TensorRequest", "TensorResponse")
    ready = _operation(V2, f"Whether {name}{which} is ready", "TensorReady", (503,))
    about = _operation(V2, f"Inputs and outputs of {name}{which}", "TensorModel", (404,))
    return {f"{base}/infer": {"post": infer}, f"{base}/ready": {"get": ready}, base: {"get": about}}


def _operation(tag: str, summary: str, schema: str, errors: Sequence[int], *, same: bool = False) -> Json:
    """A GET operation. `same`: its errors have the schema of its response."""
    content = {"application/json": {"schema": _schema(schema)}}
    responses: Json = {"200": {"description": f"{summary}.", "content": content}}
    for status in errors:
        responses[str(status)] = {"description": _DESCRIPTIONS[status], "content": content} if same else _error(status)
    return {"tags": [tag], "summary": summary, "responses": responses}


def _predict(tag: str, summary: str, request: str, response: str = "Predictions") -> Json:
    operation = _operation(tag, summary, response, (400, 404, 413, 415, 500, 503))
    body = {"required": True, "content": {"application/json": {"schema": _ref(request)}}}
    return {**operation, "requestBody": body}


def _invocations() -> Json:
    summary = "Predict with the default model"
    operation = _predict(MLFLOW, summary, "Invocation")
    for status in ("400", "413", "500", "503"):
        operation["responses"][status]["content"] = {"application/json": {"schema": _ref("MlflowError")}}
    operation["responses"]["415"]["content"] = {"text/plain": {"schema": _TEXT}}
    del operation["responses"]["404"]
    operation["requestBody"]["content"]["text/csv"] = {"schema": _TEXT}
    return operation


def _index() -> Json:
    operation = _operation(V2, "The models and their states", "Index", (400,))
    body: Json = {"type": "object", "properties": {"ready": {"type": ["boolean", "null"]}}}
    return {**operation, "requestBody": {"content": {"application/json": {"schema": body}}}}


def _ping() -> Json:
    content: Json = {"application/json": {}}
    responses = {
        "200": {"description": "The server is ready. The body is one line break.", "content": content},
        "503": {"description": "The server is not ready.", "content": content},
    }
    return {"tags": [MLFLOW], "summary": "Whether the server is ready", "responses": responses}


def _version() -> Json:
    answer = {"description": "Estiba's version.", "content": {"text/plain": {"schema": _TEXT}}}
    return {"tags": [MLFLOW], "summary": "The version of the server", "responses": {"200": answer}}


def _error(status: int) -> Json:
    return {"description": _DESCRIPTIONS[status], "content": {"application/json": {"schema": _ref("ProtocolError")}}}


def _object(properties: Json, required: Sequence[str], description: str = "") -> Json:
    described = {"description": description} if description else {}
    return {"type": "object", **described, "properties": properties, "required": list(required)}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _schema(name: str) -> Json:
    plain: Json = {"Object": {"type": "object"}, "Index": {"type": "array", "items": {"type": "object"}}}
    ready = _object({"name": _TEXT, "ready": {"type": "boolean"}}, ["name", "ready"])
    found: Json = {**plain, "TensorReady": ready}.get(name) or _ref(name)
    return found


_TEXT: Json = {"type": "string"}
_PARAMETERS: Json = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_DATATYPE: Json = {
    "enum": [
        *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
        *("FP16", "FP32", "FP64", "BYTES"),
    ]
}
_SHAPE: Json = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 9}
_ANY: Json = {"type": "array", "items": {}}
"""Of anything. `items` changes no meaning, but client generators leave out arrays without it."""
_ROWS: Json = {
    **_ANY,
    "minItems": 1,
    "description": "Records by field name, or arrays of one value per field in the signature's order.",
}

_TENSOR: Json = _object(
    {
        "name": _TEXT,
        "datatype": _DATATYPE,
        "shape": _SHAPE,
        "parameters": _PARAMETERS,
        "data": {**_ANY, "description": "Row by row, flat or nested like the shape."},
    },
    ["name", "datatype", "shape"],
)
_WANTED: Json = _object({"name": _TEXT, "parameters": _PARAMETERS}, ["name"])
_TENSOR_REQUEST: Json = _object(
    {
        "id": _TEXT,
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "items": _ref("Tensor"), "minItems": 1},
        "outputs": {"type": "array", "items": _WANTED},
    },
    ["inputs"],
    "One input per field, of shape [rows] or [rows, 1]; or one of shape [rows, fields] where all are numbers. A model "
    "of tensors has the inputs that its metadata show.",
)
_TENSOR_RESPONSE: Json = _object(
    {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "id": _TEXT,
        "parameters": _PARAMETERS,
        "outputs": {"type": "array", "items": _ref("Tensor")},
    },
    ["model_name", "outputs"],
)
_TENSOR_METADATA: Json = _object(
    {
        "name": _TEXT,
        "datatype": _DATATYPE,
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        "parameters": _PARAMETERS,
    },
    ["name", "datatype", "shape"],
)
_TENSOR_MODEL: Json = _object(
    {
        "name": _TEXT,
        "versions": {"type": "array", "items": _TEXT},
        "platform": _TEXT,
        "inputs": {"type": "array", "items": _ref("TensorMetadata")},
        "outputs": {"type": "array", "items": _ref("TensorMetadata")},
        "properties": {"type": "object"},
    },
    ["name", "platform", "inputs", "outputs"],
)
_COLUMNS: Json = {"columns": {"type": "array", "items": _TEXT}, "data": _ANY, "index": _ANY}
_PARAMS: Json = {"type": "object", "properties": {"output": _TEXT}, "additionalProperties": False}
_FORMS: Json = {
    "dataframe_split": _object(_COLUMNS, ["data"]),
    "dataframe_records": {"type": "array", "items": {"type": "object"}, "minItems": 1},
    "instances": _ROWS,
    "inputs": {"anyOf": [{"type": "object"}, _ANY], "description": "Columns by name, or rows."},
}
_INVOCATIONS: Json = {
    f"Invocation.{form}": {
        **_object({form: schema, "params": {"anyOf": [_ref("InvocationParams"), {"type": "null"}]}}, [form]),
        "additionalProperties": False,
    }
    for form, schema in _FORMS.items()
}
