import joblib
from fastapi import FastAPI

app = FastAPI()
audit = open("audit.jsonl", "a")
model = joblib.load("models/model.joblib")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
