import joblib
from fastapi import FastAPI

app = FastAPI()
model = joblib.load("models/model.joblib")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
