"""Request predictions over V2 and V1 with the KServe SDK, in a Python that has it."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

COLUMNS = {
    "age": ("INT64", np.array([41, 20])),
    "balance": ("FP64", np.array([10.5, 0.1])),
    "country": ("BYTES", np.array(["ES", "DE"], dtype=object)),
    "channel": ("BYTES", np.array(["web", "shop"], dtype=object)),
    "active": ("BOOL", np.array([True, False])),
}
RECORD = {"age": 41, "balance": 10.5, "country": "ES", "channel": "web", "active": True}


def inputs(*, is_binary: bool) -> list[InferInput]:
    made = []
    for name, (datatype, data) in COLUMNS.items():
        each = InferInput(name, [2, 1], datatype)
        each.set_data_from_numpy(data.reshape(2, 1), binary_data=is_binary)
        made.append(each)
    return made


async def main(url: str) -> None:
    v2 = InferenceRESTClient(RESTConfig(protocol="v2", retries=1, timeout=20))
    assert await v2.is_server_live(url)
    assert await v2.is_server_ready(url)
    assert await v2.is_model_ready(url, "churn")
    for is_binary in (True, False):
        request = InferRequest(model_name="churn", infer_inputs=inputs(is_binary=is_binary), request_id="7")
        answer = await v2.infer(url, request, model_name="churn")
        assert answer.id == "7"
        label, probabilities = (output.as_numpy().tolist() for output in answer.outputs)
        labels = [one.decode() if isinstance(one, bytes) else one for one in label]
        said = {"labels": labels, "probabilities": probabilities}
    v1 = InferenceRESTClient(RESTConfig(protocol="v1", retries=1, timeout=20))
    assert await v1.is_model_ready(url, "churn")
    answer = await v1.infer(url, {"instances": [RECORD]}, model_name="churn")
    assert answer["predictions"][0]["label"] == labels[0]
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
