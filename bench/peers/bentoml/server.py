"""BentoML as its documentation shows it: a service over the ONNX file with adaptive batching."""

from __future__ import annotations

import os
from typing import Literal

import bentoml
import numpy as np
import onnxruntime as ort
from pydantic import BaseModel, Field


class Customer(BaseModel):
    CreditScore: int = Field(ge=300, le=850)
    Geography: Literal["France", "Spain", "Germany"]
    Gender: Literal["Male", "Female"]
    Age: int = Field(ge=18, le=100)
    Tenure: int = Field(ge=0, le=10)
    Balance: float = Field(ge=0)
    NumOfProducts: int = Field(ge=1, le=4)
    HasCrCard: int = Field(ge=0, le=1)
    IsActiveMember: int = Field(ge=0, le=1)
    EstimatedSalary: float = Field(ge=0)


@bentoml.service(workers=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Churn:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        path = os.environ["MODEL_ONNX"]
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000)
    def predict(self, customers: list[Customer]) -> list[float]:
        rows = [customer.model_dump() for customer in customers]
        feeds = {
            name: np.array([[row[name]] for row in rows], dtype=object if isinstance(value, str) else np.float32)
            for name, value in rows[0].items()
        }
        return self.session.run(["probabilities"], feeds)[0][:, 1].tolist()
