"""Serve with FastAPI and ONNX Runtime, the next step of the tutorial: no pandas, and no thread for each request."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel, Field

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(os.environ["MODEL_ONNX"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


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


@app.post("/predict")
async def predict(customer: Customer) -> dict[str, float | int]:
    feeds = {
        name: np.array([[value]], dtype=object if isinstance(value, str) else np.float32)
        for name, value in customer.model_dump().items()
    }
    probability = float(session.run(["probabilities"], feeds)[0][0, 1])
    return {"churn_probability": probability, "churn_prediction": int(probability >= 0.5)}
