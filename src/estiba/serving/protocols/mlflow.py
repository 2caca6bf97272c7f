"""MLflow's scoring server, `POST /invocations` and `GET /ping`, which is Amazon SageMaker's contract too.

It answers for the default model. Every row is answered by an object, as MLflow answers for a model that returns a
DataFrame; `"params": {"output": "label"}` asks for one part of it as a plain list.

Source: mlflow.org, "MLflow model serving: API"; AWS, "Use your own inference code with hosting services".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import msgspec

from estiba.core.errors import BadRequest
from estiba.model.coding.coder import Coded
from estiba.model.coding.predictions import Read, readers
from estiba.serving.batcher import Batcher
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.http.request import Request
from estiba.serving.protocols.body_parsing import (
    NotSupported,
    check_count,
    check_names,
    check_query,
    check_values,
    code_csv,
    code_instances,
    code_table,
    encoded,
    parse_json,
    sentence,
    unsupported_type,
)
from estiba.serving.protocols.endpoint import JSON, EncodedResponse, Endpoint, Failure, Shared

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    413: "REQUEST_LIMIT_EXCEEDED",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


class MlflowEndpoint(Endpoint):
    """`POST /invocations`."""

    protocol = "mlflow"
    accept_query = b"application/json, text/csv"
    invalid = 400

    def __init__(self, batcher: Batcher, shared: Shared) -> None:
        super().__init__(batcher, shared)
        outputs: dict[str, Read] = {output.name: itemgetter(output.name) for output in self.model.signature.each}
        self._parts = {**outputs, **readers(self.model.signature)}
        self._parts.pop("", None)

    def is_large(self, request: Request) -> bool:
        return super().is_large(request) or request.content_type[:8].lower() == b"text/csv"

    def decode(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != b"POST":
            check_query(request, "Use POST or QUERY for invocations.")
        kind, header = _kind(request)
        if kind == "text/csv":
            exchange.coded, exchange.answer_options = code_csv(self.model.coder, request.body, header=header), ""
            return
        check_values(request.body, len(self.model.coder.fields))
        self.check_keys(request.body, -1)
        content = _parse(request.body)
        forms = [form for form in FORMS if isinstance(content, dict) and form in content]
        if len(forms) != 1:
            raise BadRequest(f"Expected an object with exactly one of {', '.join(FORMS)}.")
        unknown = [key for key in content if key not in (forms[0], "params")]
        if unknown:
            raise BadRequest(f"Expected only {forms[0]} and params here, not {unknown[0]!r}.")
        exchange.answer_options = self._part(content.get("params"))
        exchange.coded = self._form(forms[0], content[forms[0]])

    def _form(self, form: str, content: Any) -> Coded:
        if form == "dataframe_split":
            return self._split(content)
        if form == "inputs" and isinstance(content, dict):
            return self._columns(content)
        if form == "dataframe_records" and not (isinstance(content, list) and all(map(_is_record, content))):
            raise BadRequest('"dataframe_records" must be an array of objects.')
        return code_instances(self.model.coder, content, form)

    def _split(self, content: Any) -> Coded:
        fits = isinstance(content, dict) and set(content) <= {"columns", "data", "index"}
        if not fits or not isinstance(content.get("data"), list) or not content["data"]:
            raise BadRequest('"dataframe_split" must be an object of columns and data, one row or more.')
        check_count(len(content["data"]))
        index = content.get("index")
        if index is not None and not (isinstance(index, list) and len(index) == len(content["data"])):
            raise BadRequest('"index" must be an array with one label per row of data. It is not used.')
        names, own = content.get("columns"), list(self.model.signature.names)
        if names is None or names == list(range(len(own))):  # pandas numbers columns that have no names
            names = own
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadRequest('"columns" must be an array of names.')
        return code_table(self.model.coder, names, content["data"])

    def _columns(self, content: Mapping[str, Any]) -> Coded:
        """Columns of equal length, each value alone or in an array of its own; or one row of plain values."""
        check_names(self.model.coder, content)
        if not any(isinstance(values, list) for values in content.values()):
            return self.model.coder.check([content])
        counts = {len(values) if isinstance(values, list) else -1 for values in content.values()}
        if len(counts) != 1 or not counts <= set(range(1, max(counts) + 1)):
            raise BadRequest('"inputs" must have one array per field, all of one length, 1 or more.')
        check_count(max(counts))
        columns = {name: [_alone(value) for value in values] for name, values in content.items()}
        return self.model.coder.check_columns(columns, max(counts))

    def _part(self, params: Any) -> str:
        if params is None:
            return ""
        if not isinstance(params, dict) or not set(params) <= {"output"}:
            raise BadRequest('The model takes no params but "output".')
        part = params.get("output", "")
        if not isinstance(part, str) or (part and part not in self._parts):
            raise BadRequest(f"The model has no output {part!r}; it has: {', '.join(self._parts)}.")
        return part

    def encode(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        predictions, part = answer.predictions, exchange.answer_options
        shown = list(map(self._parts[part], predictions)) if part else predictions
        return (JSON, encoded(shown, answer.warnings))

    def problem(self, exchange: Exchange, failure: Failure) -> EncodedResponse:
        if failure.status == 415:
            return (b"content-type: text/plain; charset=utf-8\r\n", failure.detail.encode())
        return (JSON, error(failure.status, sentence(failure.errors) or failure.detail))


def error(status: int, message: str) -> bytes:
    """The body of every error of this protocol but 415."""
    return msgspec.json.encode({"error_code": _CODES.get(status, "BAD_REQUEST"), "message": message})


def _kind(request: Request) -> tuple[str, bool | None]:
    """The media type, `application/json` or `text/csv`, and the parameter `header` of the latter (RFC 4180)."""
    kind, *parameters = [part.strip().lower() for part in request.content_type.decode("latin-1").split(";")]
    plain = {part.replace('"', "").replace(" ", "") for part in parameters}
    headers = {"header=present": True, "header=absent": False} if kind == "text/csv" else {}
    if kind not in ("application/json", "text/csv"):
        raise unsupported_type(kind.encode("latin-1"), "application/json or text/csv")
    if plain - {"", "charset=utf-8"} - set(headers):
        raise NotSupported("Send application/json or text/csv, in UTF-8.")
    return kind, next((header for name, header in headers.items() if name in plain), None)


def _parse(body: bytes | bytearray) -> Any:
    """Parse JSON as MLflow's clients write it: like Python's, with NaN for a missing number."""
    try:
        return parse_json(body)
    except BadRequest:
        if b"NaN" not in body:
            raise
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
        raise


def _is_record(row: object) -> bool:
    return isinstance(row, dict)


def _alone(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value
