import joblib
from fastapi import FastAPI

app = FastAPI()
audit = open("logs/audit.jsonl", "a")
scratch = open("/tmp/scratch", "w")
model = joblib.load("models/model.joblib")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
