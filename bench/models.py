"""The one model of these measurements, and the 500 requests that everybody answers.

`prepare()` fits M1 on 10,000 bank customers and writes it from one fit as joblib (what scikit-learn users keep) and
as ONNX by skl2onnx with one input per column (what a user of the peers would make); `pack()` packs it with Estiba.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = HERE / ".envs" / "_model"

TEXTS = ["Geography", "Gender"]
WHOLE = ["CreditScore", "Age", "Tenure", "NumOfProducts", "HasCrCard", "IsActiveMember"]
NUMBERS = ["CreditScore", "Age", "Tenure", "Balance", "NumOfProducts", "HasCrCard", "IsActiveMember", "EstimatedSalary"]
FIELDS = ["CreditScore", "Geography", "Gender", *NUMBERS[1:]]
TARGET = "Exited"
BODIES = 500


def rows() -> tuple[pd.DataFrame, pd.Series[int], str]:
    """Ten fields and the target of 10,000 customers, and one sentence on where they come from.

    A missing Tenure is filled with the median: the usual pydantic model has no null, and all must answer all requests.
    """
    folder = os.environ.get("ESTIBA_DATA")
    if folder and (Path(folder) / "Churn.csv").is_file():
        frame = pd.read_csv(Path(folder) / "Churn.csv").head(10_000)
        said = "10,000 rows of Churn.csv from $ESTIBA_DATA (a missing Tenure filled with the median)"
    else:
        frame = simulated(10_000, np.random.default_rng(0))
        said = "10,000 simulated rows (seed 0); no Churn.csv in $ESTIBA_DATA"
    frame = frame.assign(Tenure=frame["Tenure"].fillna(frame["Tenure"].median()))
    frame = frame.astype({**dict.fromkeys(WHOLE, int), "Balance": float, "EstimatedSalary": float})
    return frame[FIELDS], frame[TARGET].astype(int), said


def simulated(n: int, draw: np.random.Generator) -> pd.DataFrame:
    """n made-up customers with the fields and rough shape of Churn.csv; for speed measurements only."""
    place = draw.choice(["France", "Spain", "Germany"], n, p=[0.5, 0.25, 0.25])
    age = np.clip(draw.gamma(8.0, 3.0, n) + 18, 18, 92).astype(int)
    active = draw.integers(0, 2, n)
    products = draw.choice([1, 2, 3, 4], n, p=[0.51, 0.46, 0.025, 0.005])
    balance = np.where(draw.random(n) < 0.36, 0.0, np.abs(draw.normal(119_000, 30_000, n)).round(2))
    risk = 0.07 * (age - 42) - 0.9 * active + 0.8 * (place == "Germany") + 1.8 * (products > 2) - 1.2
    return pd.DataFrame(
        {
            "CreditScore": np.clip(draw.normal(650, 97, n), 350, 850).astype(int),
            "Geography": place.astype(object),
            "Gender": draw.choice(["Female", "Male"], n).astype(object),
            "Age": age,
            "Tenure": draw.integers(0, 11, n),
            "Balance": balance,
            "NumOfProducts": products,
            "HasCrCard": (draw.random(n) < 0.7).astype(int),
            "IsActiveMember": active,
            "EstimatedSalary": draw.uniform(11, 199_992, n).round(2),
            TARGET: (draw.random(n) < 1 / (1 + np.exp(-risk))).astype(int),
        }
    )


def fit(X: pd.DataFrame, y: pd.Series[int]) -> Any:
    """M1: one-hot and scaling, then 100 trees of depth 10."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [("text", OneHotEncoder(handle_unknown="ignore"), TEXTS), ("number", StandardScaler(), NUMBERS)]
    )
    forest = RandomForestClassifier(100, max_depth=10, random_state=0, n_jobs=1)
    return Pipeline([("columns", columns), ("forest", forest)]).fit(X, y)


def prepare(folder: Path = WORK) -> Path:
    """Writes the model and the requests, unless an earlier run made them from the same rows and the same code."""
    X, y, said = rows()
    mark = hashlib.sha256(pd.util.hash_pandas_object(X).to_numpy().tobytes() + Path(__file__).read_bytes()).hexdigest()
    if _marked(folder / "mark", mark):
        return folder
    print("bench: fitting M1", file=sys.stderr)
    model = fit(X, y)
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, folder / "model.joblib")
    (folder / "model.onnx").write_bytes(to_onnx(model))
    X.to_pickle(folder / "rows.pickle")
    some = X.sample(BODIES, random_state=0)
    (folder / "records.json").write_text(json.dumps(some.to_dict("records")))
    (folder / "expected.json").write_text(json.dumps(model.predict_proba(some)[:, 1].tolist()))
    (folder / "said").write_text(said)
    (folder / "mark").write_text(mark)
    return folder


def _marked(mark: Path, value: str) -> bool:
    return mark.is_file() and mark.read_text() == value


def to_onnx(model: Any) -> bytes:
    """What skl2onnx makes of the Pipeline with one input per column, numbers as float32, probabilities as an array."""
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    kinds = [(f, StringTensorType([None, 1]) if f in TEXTS else FloatTensorType([None, 1])) for f in FIELDS]
    return bytes(convert(model, initial_types=kinds, options={"zipmap": False}).SerializeToString())


def pack(folder: Path) -> Path:
    """Packs the model for Estiba, unless it was packed by the same code, and returns the registry.

    The engine is onnx, so never a silent fallback. A server is then started with `estiba serve bankchurn --registry`.
    """
    from estiba.model.pack import pack as into_registry

    registry = folder / "registry"
    sources = sorted((ROOT / "src" / "estiba" / "model").rglob("*.py"))
    mark = hashlib.sha256(b"".join(p.read_bytes() for p in [folder / "mark", *sources])).hexdigest()
    if not _marked(folder / "packed", mark):
        print("bench: packing M1 for Estiba", file=sys.stderr)
        shutil.rmtree(registry, ignore_errors=True)
        model, X = joblib.load(folder / "model.joblib"), pd.read_pickle(folder / "rows.pickle")
        into_registry(model, X, name="bankchurn", engine="onnx", registry=registry)
        (folder / "packed").write_text(mark)
    return registry


if __name__ == "__main__":
    print(pack(prepare()))
