"""LitServe as its documentation shows it: a LitAPI over the ONNX file, with dynamic batching.

LitServe reads the annotations of decode_request at run time, so they must not be postponed.
"""

import os
import sys
from typing import Any

import litserve as ls
import numpy as np
import onnxruntime as ort


class Churn(ls.LitAPI):
    def setup(self, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        path = os.environ["MODEL_ONNX"]
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            name: np.array([[row[name]] for row in inputs], dtype=object if isinstance(value, str) else np.float32)
            for name, value in inputs[0].items()
        }

    def predict(self, feeds: dict[str, Any]) -> Any:
        return self.session.run(["probabilities"], feeds)[0][:, 1]

    def unbatch(self, output: Any) -> list[float]:
        return output.tolist()

    def encode_response(self, output: float) -> dict[str, float]:
        return {"churn_probability": output}


if __name__ == "__main__":
    api = Churn(max_batch_size=64, batch_timeout=0.001)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    port = int(sys.argv[1])
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="error")
