"""Ray Serve as its documentation shows it: one replica over the ONNX file with dynamic request batching."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=200, ray_actor_options={"num_cpus": 1})
class Churn:
    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def predict(self, rows: list[dict[str, Any]]) -> list[float]:
        feeds = {
            name: np.array([[row[name]] for row in rows], dtype=object if isinstance(value, str) else np.float32)
            for name, value in rows[0].items()
        }
        return self.session.run(["probabilities"], feeds)[0][:, 1].tolist()

    async def __call__(self, request: Request) -> dict[str, float]:
        return {"churn_probability": await self.predict(await request.json())}


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    quiet = LoggingConfig(enable_access_log=False)
    serve.run(Churn.bind(os.environ["MODEL_ONNX"]), route_prefix="/predict", logging_config=quiet, blocking=True)
