"""Serve the iris API of the course: one file, one model, one path. It does not use Estiba.

uvicorn main:app --app-dir iris_fastapi --port 8004
"""

from fastapi import FastAPI
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

app = FastAPI(title="Iris")

flowers = load_iris()
EXAMPLE = "sepal_length=5.1&sepal_width=3.5&petal_length=1.4&petal_width=0.2"
model = RandomForestClassifier(random_state=42).fit(flowers.data, flowers.target)


@app.get("/")
def routes() -> dict[str, str]:
    return {"docs": "/docs", "predict": f"/predict?{EXAMPLE}"}


@app.get("/predict")
def predict(sepal_length: float, sepal_width: float, petal_length: float, petal_width: float) -> dict[str, int]:
    flower = [sepal_length, sepal_width, petal_length, petal_width]
    return {"prediction": int(model.predict([flower])[0])}
