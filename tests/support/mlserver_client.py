"""Request predictions with MLServer's codecs and types, in a Python that has MLServer and pandas 2."""

from __future__ import annotations

import json
import sys
import urllib.request

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, PandasCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, RequestInput

rows = pd.DataFrame(
    {
        "age": [41, 20],
        "balance": [10.5, 0.1],
        "country": ["ES", "DE"],
        "channel": ["web", "shop"],
        "active": [True, False],
    }
)


def ask(path: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(sys.argv[1] + path, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def infer(model: str, request: InferenceRequest) -> InferenceResponse:
    body = request.model_dump_json(exclude_none=True).encode()
    return InferenceResponse.model_validate_json(ask(f"/v2/models/{model}/infer", body))


def main() -> None:
    metadata = MetadataModelResponse.model_validate_json(ask("/v2/models/churn"))
    assert [output.name for output in metadata.outputs or []] == ["label", "probabilities"]
    # Missing numbers, which its pandas codec sends as null.
    gaps = PandasCodec.encode_request(rows.assign(**{"a/b~c d": [np.nan, 2.0]}))
    assert len(infer("churn", gaps).outputs) == 2
    tensor = NumpyCodec.encode_input("input-0", np.array([[1.0], [2.0]]))
    assert isinstance(tensor, RequestInput)
    value = infer("price", InferenceRequest(inputs=[tensor])).outputs[0]
    assert NumpyCodec.decode_output(value).shape == (2,)
    label, probabilities = infer("churn", PandasCodec.encode_request(rows)).outputs
    said = {
        "labels": StringCodec.decode_output(label),
        "probabilities": NumpyCodec.decode_output(probabilities).tolist(),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
