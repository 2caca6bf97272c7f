"""MLServer as its documentation shows it: a custom runtime that decodes each input of the V2 request by its codec."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Churn(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        path = os.environ["MODEL_ONNX"]
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {}
        for given in payload.inputs:
            if given.datatype == "BYTES":
                feeds[given.name] = np.array(StringCodec.decode_input(given), dtype=object).reshape(-1, 1)
            else:
                feeds[given.name] = NumpyCodec.decode_input(given).astype(np.float32).reshape(-1, 1)
        probability = self.session.run(["probabilities"], feeds)[0][:, 1]
        output = NumpyCodec.encode_output("churn_probability", probability)
        return InferenceResponse(model_name=self.name, outputs=[output])
