"""The python engine runs the original estimator of an artifact, with as many threads as it was given."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import msgspec
import numpy as np
import pandas as pd
import pytest
import threadpoolctl
import xgboost
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from estiba.core.errors import NotTrusted
from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import Artifact, Manifest
from estiba.model.coding.coder import Coded, Coder
from estiba.model.engines import open_engine
from estiba.model.engines.python import PythonEngine, skew
from estiba.model.estimators import saved_files
from estiba.model.estimators.object_graph import reachable
from estiba.model.estimators.outputs import answer, head_of
from estiba.model.schema.infer import infer

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {
        "a": RANDOM.normal(size=200),
        "n": RANDOM.integers(0, 9, 200),
        "c": pd.Categorical(RANDOM.choice(["u", "v", "w"], 200)),
    }
)
NUMBERS = ROWS[["a", "n"]]
WORDS = np.where(ROWS["a"] + (ROWS["c"] == "u") > 0.3, "yes", "no")
TEXTS = pd.DataFrame({"t": [f"parcel {i} late {'again' * (i % 3)}" for i in range(200)]})


def columns() -> Any:
    return make_column_transformer((StandardScaler(), ["a", "n"]), (OneHotEncoder(), ["c"]))


def packed(folder: Path, model: Any, sample: pd.DataFrame) -> Artifact:
    kind, name, content = saved_files.dumps(model)
    manifest = Manifest(
        name="m",
        engine="python",
        model_file=name,
        format=kind,
        framework=saved_files.framework(model),
        signature=infer(model, sample, head_of(model, sample)),
        libraries=saved_files.libraries(model, kind),
        python="3.11.0",
    )
    return artifact.write(folder, manifest, {name: content})


def coded(made: Artifact, sample: pd.DataFrame) -> Coded:
    coder = Coder(made.manifest.signature)
    return coder.check_columns({name: sample[name].tolist() for name in sample}, len(sample))


MODELS = {
    "pipeline": lambda: (make_pipeline(columns(), RandomForestClassifier(5)).fit(ROWS, WORDS), ROWS),
    "array": lambda: (LogisticRegression().fit(NUMBERS.to_numpy(), WORDS), NUMBERS),
    "boosting": lambda: (
        HistGradientBoostingRegressor(max_iter=5, categorical_features=["c"]).fit(ROWS, ROWS["n"]),
        ROWS,
    ),
    "xgboost": lambda: (
        xgboost.XGBRegressor(n_estimators=5, n_jobs=2, enable_categorical=True).fit(ROWS, ROWS["n"]),
        ROWS,
    ),
    "lightgbm": lambda: (lightgbm.LGBMClassifier(n_estimators=5, n_jobs=2, verbose=-1).fit(ROWS, WORDS), ROWS),
    "lightgbm array": lambda: (
        lightgbm.LGBMClassifier(n_estimators=5, n_jobs=2, verbose=-1).fit(NUMBERS.to_numpy(), WORDS),
        NUMBERS,
    ),
    "catboost": lambda: (
        catboost.CatBoostClassifier(
            iterations=5, thread_count=1, verbose=0, cat_features=["c"], allow_writing_files=False
        ).fit(ROWS, WORDS),
        ROWS,
    ),
    "text": lambda: (
        make_pipeline(make_column_transformer((TfidfVectorizer(), "t")), LogisticRegression()).fit(TEXTS, WORDS),
        TEXTS,
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_it_answers_as_the_estimator_does(tmp_path: Path, kind: str) -> None:
    model, sample = MODELS[kind]()
    made = packed(tmp_path, model, sample)
    engine = open_engine(made, threads=1)
    got = engine.predict(coded(made, sample))
    assert isinstance(engine, PythonEngine)
    assert np.array_equal(got, answer(model, sample, made.manifest.signature.head))
    assert got.dtype == np.float64


@pytest.mark.parametrize("kind", ["pipeline", "array", "lightgbm", "catboost", "text"])
def test_packing_twice_gives_one_digest(tmp_path: Path, kind: str) -> None:
    model, sample = MODELS[kind]()
    first = packed(tmp_path / "a", model, sample)
    again = saved_files.load_file(first.model)
    assert packed(tmp_path / "b", again, sample).digest == first.digest


class Doubled(TransformerMixin, BaseEstimator):
    def fit(self, X: Any, y: Any = None) -> Doubled:
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        return X * 2


def test_code_of_someones_own_needs_trust(tmp_path: Path) -> None:
    model = make_pipeline(Doubled(), LogisticRegression()).fit(NUMBERS, WORDS)
    made = packed(tmp_path, model, NUMBERS)
    with pytest.raises(NotTrusted, match="Doubled"):
        PythonEngine(made)
    assert PythonEngine(made, trust=True).predict(coded(made, NUMBERS)).shape == (200, 2)


def counted(frame: Any) -> Any:
    """Notes how many threads BLAS and OpenMP may use at the time of the call."""
    THREADS.append({pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
    return frame


THREADS: list[set[int]] = []


def test_native_pools_are_limited_in_any_thread_and_restored(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(counted), LogisticRegression()).fit(NUMBERS, WORDS)
    made = packed(tmp_path, model, NUMBERS)
    engine = PythonEngine(made, threads=1, trust=True)
    rows = coded(made, NUMBERS)
    before = threadpoolctl.threadpool_info()
    THREADS.clear()
    engine.predict(rows)
    worker = threading.Thread(target=engine.predict, args=(rows,))
    worker.start()
    worker.join()
    assert len(THREADS) == 2
    assert set.union(*THREADS) == {1}
    assert threadpoolctl.threadpool_info() == before


def test_estimators_inside_work_with_one_thread(tmp_path: Path) -> None:
    forest = RandomForestClassifier(5, n_jobs=2)
    model = make_pipeline(columns(), forest).fit(ROWS, WORDS)
    engine = PythonEngine(packed(tmp_path, model, ROWS), threads=2)
    jobs = {type(item).__name__: item.n_jobs for item in reachable(engine._model) if hasattr(item, "n_jobs")}
    assert jobs["RandomForestClassifier"] == 1
    assert forest.n_jobs == 2
    boosted, sample = MODELS["xgboost"]()
    engine = PythonEngine(packed(tmp_path, boosted, sample), threads=1)
    assert '"nthread":"1"' in engine._model.get_booster().save_config()


def test_other_versions_are_told_in_sentences(tmp_path: Path) -> None:
    model, sample = MODELS["array"]()
    manifest = packed(tmp_path, model, sample).manifest
    assert [told for told in skew(manifest) if not told.startswith("Python")] == []
    versions = {**manifest.libraries, "numpy": "1.0.0", "gone": "2.0"}
    told = skew(msgspec.structs.replace(manifest, libraries=versions, python="3.2.1"))
    assert f"numpy 1.0.0 packed, {np.__version__} installed" in told
    assert "gone 2.0 packed, none installed" in told
    assert any(sentence.startswith("Python 3.2.1 packed") for sentence in told)
