from pathlib import Path

import joblib
from fastapi import FastAPI

app = FastAPI()
Path("logs/audit.jsonl").write_text("")
Path("/tmp/scratch").write_text("")
model = joblib.load("models/model.joblib")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
