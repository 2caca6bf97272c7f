"""Serve the iris API of the course: one file, one model, one path. It does not use Estiba.

uvicorn main:app --app-dir iris_fastapi --port 8004
"""

from fastapi import FastAPI
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

app = FastAPI(title="Iris")

flowers = load_iris()
model = RandomForestClassifier(random_state=42).fit(flowers.data, flowers.target)


@app.get("/predict")
def predict(sepal_length: float, sepal_width: float, petal_length: float, petal_width: float) -> dict[str, int]:
    flower = [sepal_length, sepal_width, petal_length, petal_width]
    return {"prediction": int(model.predict([flower])[0])}
