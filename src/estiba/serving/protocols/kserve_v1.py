"""The V1 protocol of TensorFlow Serving and KServe: `POST /v1/models/{model}:predict` with instances.

Source: kserve/website, "Data plane: V1 protocol".
"""

from __future__ import annotations

import msgspec

from estiba.core.errors import BadRequest
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.protocols.body_parsing import (
    check_query,
    check_values,
    code_instances,
    encoded,
    parse_json,
    sentence,
)
from estiba.serving.protocols.endpoint import JSON, EncodedResponse, Endpoint, Failure


class KserveV1Endpoint(Endpoint):
    """`{"instances": [...]}` of records, or of rows in the order of the fields, to `{"predictions": [...]}`."""

    protocol = "v1"
    invalid = 400

    def decode(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != b"POST":
            check_query(request, "Use POST or QUERY to predict.")
        check_values(request.body, len(self.model.coder.fields))
        self.check_keys(request.body, -1)
        content = parse_json(request.body)
        if not isinstance(content, dict) or "instances" not in content:
            raise BadRequest('Expected an object: {"instances": [...]}.')
        unknown = [key for key in content if key not in ("instances", "signature_name")]
        if unknown:
            raise BadRequest(f"Expected only instances here, not {unknown[0]!r}.")
        exchange.coded = code_instances(self.model.coder, content["instances"], "instances")

    def encode(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        return (JSON, encoded(answer.predictions, answer.warnings))

    def problem(self, exchange: Exchange, failure: Failure) -> EncodedResponse:
        return (JSON, error(sentence(failure.errors) or failure.detail))


def error(message: str) -> bytes:
    """The body of every error of this protocol."""
    return msgspec.json.encode({"error": message})
