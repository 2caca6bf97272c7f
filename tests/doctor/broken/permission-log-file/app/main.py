import logging

import joblib
from fastapi import FastAPI

app = FastAPI()
logging.getLogger().addHandler(logging.FileHandler("logs/api.log"))
model = joblib.load("models/model.joblib")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
