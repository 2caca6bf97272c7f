import joblib
import uvicorn
from fastapi import FastAPI

app = FastAPI()
model = joblib.load("models/model.joblib")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
