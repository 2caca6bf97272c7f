"""The server that tutorials show: pydantic in, a DataFrame of one row, the Pipeline from joblib."""

from __future__ import annotations

import os
from typing import Literal

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel, Field

app = FastAPI()
model = joblib.load(os.environ["MODEL_JOBLIB"])


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
def predict(customer: Customer) -> dict[str, float | int]:
    row = pd.DataFrame([customer.model_dump()])
    probability = float(model.predict_proba(row)[0, 1])
    return {"churn_probability": probability, "churn_prediction": int(probability >= 0.5)}


class Customers(BaseModel):
    customers: list[Customer]


@app.post("/predict_batch")
def predict_batch(batch: Customers) -> dict[str, list[float]]:
    frame = pd.DataFrame([customer.model_dump() for customer in batch.customers])
    return {"churn_probability": model.predict_proba(frame)[:, 1].tolist()}
