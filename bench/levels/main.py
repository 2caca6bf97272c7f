"""The API that the course puts into images: a joblib file behind FastAPI."""

import joblib
import pandas as pd
from fastapi import FastAPI

app = FastAPI(title="BankChurn")
model = joblib.load("model.joblib")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/predict")
def predict(record: dict[str, float | str | None]) -> dict[str, float]:
    return {"churn_probability": float(model.predict_proba(pd.DataFrame([record]))[0, 1])}
