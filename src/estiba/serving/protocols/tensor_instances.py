"""The protocols of MLflow and of KServe V1 for models of tensors: instances, or inputs by name, in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from estiba.core.errors import BadRequest
from estiba.model.coding.coder import Coded
from estiba.model.coding.tensor_coder import TensorCoder, tensors_of
from estiba.model.inference.load import TensorModel
from estiba.serving.batcher import Batcher
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.protocols.body_parsing import check_count, check_query, encoded, parse_json, unsupported_type
from estiba.serving.protocols.endpoint import JSON, EncodedResponse, Shared
from estiba.serving.protocols.kserve_v1 import KserveV1Endpoint
from estiba.serving.protocols.mlflow import MlflowEndpoint
from estiba.serving.protocols.tensor_bodies import check_json, chosen_outputs, not_finite, plain


class TensorV1Endpoint(KserveV1Endpoint):
    """`{"instances": [...]}` of records, or of values of the only field."""

    def __init__(self, batcher: Batcher, shared: Shared) -> None:
        super().__init__(batcher, shared)
        self._tensors = cast(TensorModel, self.model).tensors

    def decode(self, exchange: Exchange) -> None:
        if exchange.request.method != b"POST":
            check_query(exchange.request, "Use POST or QUERY to predict.")
        content = _object(exchange.request.body)
        self.check_keys(exchange.request.body, -1)
        if "instances" not in content or set(content) - {"instances", "signature_name"}:
            raise BadRequest('Expected an object: {"instances": [...]}.')
        exchange.coded = _instances(self._tensors, content["instances"], "instances")

    def encode(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        names = [output.name for output in self.model.signature.head.tensors]
        return (JSON, encoded(plain(answer.predictions, names), not_finite(answer.predictions, names)))


class TensorMlflowEndpoint(MlflowEndpoint):
    """`POST /invocations` with `instances`, or with `inputs`: arrays by field, or that of the only field."""

    accept_query = b"application/json"

    def __init__(self, batcher: Batcher, shared: Shared) -> None:
        super().__init__(batcher, shared)
        self._tensors = cast(TensorModel, self.model).tensors

    def decode(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != b"POST":
            check_query(request, "Use POST or QUERY for invocations.")
        kind = request.content_type.partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise unsupported_type(kind, "application/json")
        content = _object(request.body)
        self.check_keys(request.body, -1)
        forms = [form for form in ("instances", "inputs") if form in content]
        if len(forms) != 1 or set(content) - {forms[0], "params"}:
            raise BadRequest('A model of tensors takes an object with either "instances" or "inputs", and "params".')
        params = content.get("params") or {}
        if not isinstance(params, dict) or set(params) - {"output"}:
            raise BadRequest('The model takes no params but "output".')
        exchange.answer_options = chosen_outputs(self.model.signature.head, params.get("output") or None)
        given = content[forms[0]]
        if forms[0] == "inputs" and isinstance(given, dict):
            exchange.coded = _inputs(self._tensors, given)
        else:
            exchange.coded = _instances(self._tensors, given, forms[0])

    def encode(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        names = exchange.answer_options
        shown: list[Any] = plain(answer.predictions, names)
        if len(names) == 1 and len(self.model.signature.head.tensors) > 1:
            shown = [row[names[0]] for row in shown]
        return (JSON, encoded(shown, not_finite(answer.predictions, names)))


def _object(body: bytes | bytearray) -> dict[str, Any]:
    check_json(body)
    content = parse_json(body)
    if not isinstance(content, dict):
        raise BadRequest("Expected an object.")
    return content


def _instances(coder: TensorCoder, rows: object, name: str) -> Coded:
    if not isinstance(rows, list) or not rows:
        raise BadRequest(f"{name!r} must be an array of one row or more.")
    check_count(len(rows))
    if not isinstance(rows[0], dict) and len(coder.fields) > 1:
        names = ", ".join(field.name for field in coder.fields)
        raise BadRequest(f"Each row must be an object of {names}.")
    return tensors_of(coder, rows)


def _inputs(coder: TensorCoder, given: dict[str, Any]) -> Coded:
    """One array per field, whose first axis counts records; or one record."""
    if not coder.stacks:
        return coder.check([given])
    counts: Sequence[int] = [len(values) for values in given.values() if isinstance(values, list)]
    if len(counts) < len(given) or len(set(counts)) != 1 or not counts[0]:
        raise BadRequest(
            '"inputs" must have one array per field, all with one value for each record, and one record or more.'
        )
    check_count(counts[0])
    return coder.check([dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)])
