"""The one model of these measurements, and the 500 requests that everybody answers.

`prepare()` fits M1 on 10,000 bank customers and writes it from one fit as joblib (what scikit-learn users keep) and
as ONNX by skl2onnx with one input per column (what a user of the peers would make); `pack()` packs it with Estiba.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import joblib
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
        origin = "10,000 rows of Churn.csv from $ESTIBA_DATA (a missing Tenure filled with the median)"
    else:
        frame = simulated(10_000)
        origin = "10,000 simulated rows (seed 0, a missing Tenure filled with the median): no Churn.csv in $ESTIBA_DATA"
    frame = frame.assign(Tenure=frame["Tenure"].fillna(frame["Tenure"].median()))
    frame = frame.astype({**dict.fromkeys(WHOLE, int), "Balance": float, "EstimatedSalary": float})
    return frame[FIELDS], frame[TARGET].astype(int), origin


def simulated(n: int) -> pd.DataFrame:
    """n made-up customers from the portfolio example's simulator."""
    spec = importlib.util.spec_from_file_location("simulate", ROOT / "examples" / "portfolio" / "simulate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    frame: pd.DataFrame = module.bank(n, seed=0)
    return frame


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
    X, y, origin = rows()
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
    (folder / "origin").write_text(origin)
    (folder / "mark").write_text(mark)
    return folder


def _marked(mark: Path, value: str) -> bool:
    return mark.is_file() and mark.read_text() == value


def to_onnx(model: Any) -> bytes:
    """Convert the Pipeline with skl2onnx: one input per column, numbers as float32, probabilities as an array."""
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    kinds = [(f, StringTensorType([None, 1]) if f in TEXTS else FloatTensorType([None, 1])) for f in FIELDS]
    return bytes(convert(model, initial_types=kinds, options={"zipmap": False}).SerializeToString())


def pack(folder: Path) -> Path:
    """Packs the model for Estiba, unless it was packed by the same code, and returns the registry.

    The engine is onnx, so never a silent fallback. A server is then started with `estiba serve bankchurn --registry`.
    """
    from estiba.model.packing.pack import pack as into_registry

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
