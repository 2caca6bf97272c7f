"""Saved model files are recognised, read without running their code, and written with equal bytes for equal models."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import catboost
import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from estiba.core.errors import BadArtifact, EstibaError, NotFound, NotTrusted
from estiba.model.estimators import own_code, saved_files
from estiba.model.estimators import skops as skops_file

RANDOM = np.random.default_rng(0)
X = pd.DataFrame({"a": RANDOM.normal(size=200), "b": RANDOM.normal(size=200)})
Y = (X["a"] + X["b"] ** 2 > 0.5).astype(int)
WORDS = np.where(Y == 1, "yes", "no")
CELLS = X.assign(c=RANDOM.choice(["u", "v", "w"], 200))


def pipeline() -> Any:
    columns = make_column_transformer(
        (StandardScaler(), ["a", "b"]), (OneHotEncoder(handle_unknown="ignore"), ["c"]), remainder="drop"
    )
    return make_pipeline(columns, RandomForestClassifier(5, random_state=0)).fit(CELLS, WORDS)


def boosted(kind: str) -> Any:
    made = {
        "xgboost": lambda: xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(X, Y),
        "booster": lambda: xgboost.XGBRegressor(n_estimators=5, n_jobs=1).fit(X, Y).get_booster(),
        "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(X, WORDS),
        "lightgbm booster": lambda: lightgbm.LGBMRegressor(n_estimators=5, n_jobs=1, verbose=-1).fit(X, Y).booster_,
        "catboost": lambda: catboost.CatBoostClassifier(
            iterations=5, thread_count=1, verbose=0, allow_writing_files=False
        ).fit(X, WORDS),
        "catboost bare": lambda: catboost.CatBoost(
            {"iterations": 5, "thread_count": 1, "verbose": 0, "loss_function": "Logloss", "allow_writing_files": False}
        ).fit(X, Y),
        "missing sign": lambda: xgboost.XGBClassifier(n_estimators=5, n_jobs=1, missing=-1.0).fit(X, Y),
    }
    return made[kind]()


def answers(model: Any) -> Any:
    if isinstance(model, xgboost.Booster):
        return model.predict(xgboost.DMatrix(X))
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


def saved(folder: Path, model: Any) -> Path:
    _, name, content = saved_files.dumps(model)
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("kind", "format"),
    [
        ("xgboost", "xgboost"),
        ("booster", "xgboost"),
        ("lightgbm", "skops"),
        ("lightgbm booster", "lightgbm"),
        ("catboost", "catboost"),
        ("catboost bare", "catboost"),
        ("missing sign", "skops"),
    ],
)
def test_boosters_come_back_as_the_same_class_with_the_same_answers(tmp_path: Path, kind: str, format: str) -> None:
    model = boosted(kind)
    path = saved(tmp_path, model)
    again = saved_files.load_file(path)
    assert saved_files.detect(path) == format
    assert type(again) is type(model)
    assert np.array_equal(answers(again), answers(model))
    assert list(getattr(again, "classes_", [])) == list(getattr(model, "classes_", []))


def test_a_pipeline_goes_into_skops_and_needs_no_trust(tmp_path: Path) -> None:
    model = pipeline()
    path = saved(tmp_path, model)
    assert path.name == "model.skops"
    assert np.array_equal(saved_files.load_file(path).predict_proba(CELLS), model.predict_proba(CELLS))


def test_a_pipeline_around_catboost_keeps_its_labels(tmp_path: Path) -> None:
    trees = catboost.CatBoostClassifier(iterations=5, thread_count=1, verbose=0, allow_writing_files=False)
    model = make_pipeline(StandardScaler(), trees).fit(X, WORDS)
    path = saved(tmp_path, model)
    assert np.array_equal(saved_files.load_file(path).predict(X), model.predict(X))
    assert path.read_bytes() == saved_files.dumps(saved_files.load_file(path))[2]


def written() -> str:
    """Files that this process writes for freshly fitted models: format, file name and digest of each."""
    kinds = ("xgboost", "lightgbm", "catboost")
    models = [pipeline(), *(boosted(kind) for kind in kinds)]
    told = [f"{fmt} {name} {hashlib.sha256(data).hexdigest()}" for fmt, name, data in map(saved_files.dumps, models)]
    return "\n".join([*told, hashlib.sha256(saved_files._pickled(pipeline())).hexdigest()])


@pytest.mark.slow
def test_another_process_writes_the_same_bytes() -> None:
    script = f"import sys; sys.path.insert(0, sys.argv[1]); import {Path(__file__).stem} as t; print(t.written())"
    told = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.strip() == written()


@pytest.mark.parametrize(
    "save",
    [
        lambda path, model: path.write_bytes(pickle.dumps(model)),
        lambda path, model: joblib.dump(model, path),
        lambda path, model: joblib.dump(model, path, compress=("zlib", 3)),
        lambda path, model: joblib.dump(model, path, compress=("gzip", 3)),
        lambda path, model: joblib.dump(model, path, compress=("xz", 3)),
    ],
)
def test_a_pickle_is_known_by_its_content_and_read_with_trust_only(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "model.bin"
    save(path, LogisticRegression().fit(X, Y))
    assert saved_files.detect(path) == "joblib"
    with pytest.raises(NotTrusted, match="can run any code"):
        saved_files.load_file(path)
    assert saved_files.load_file(path, trust=True).predict(X).shape == (200,)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pkl", "model.skops", "model.onnx", "model.cbm", "model"])
def test_a_malicious_pickle_never_runs_whatever_its_name(tmp_path: Path, name: str) -> None:
    path, touched = tmp_path / name, tmp_path / "touched"
    path.write_bytes(pickle.dumps(Malicious(touched)))
    with pytest.raises(NotTrusted):
        saved_files.load_file(path)
    (tmp_path / "again.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(NotTrusted):
        saved_files.load_file(tmp_path / "again.gz")
    assert not touched.exists()


def own_step(x: Any) -> Any:
    return x * 2


@pytest.mark.slow
def test_skops_with_a_type_of_someones_own_is_refused_and_named(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(own_step), LogisticRegression()).fit(X, Y)
    path = tmp_path / "model.skops"
    skops.io.dump(model, path)
    with pytest.raises(NotTrusted, match=r"test_saved_files\.own_step"):
        saved_files.load_file(path)
    assert saved_files.load_file(path, trust=True).predict(X).shape == (200,)
    assert [name.rpartition(".")[2] for name in own_code.own_names(model)] == ["test_saved_files"]


def forged(content: bytes, new: dict[str, int]) -> bytes:
    """A skops file with the first record of a tree's nodes changed."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(written, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(".npy"):
                array = np.load(io.BytesIO(data))
                if set(new) <= set(array.dtype.names or ()):
                    for field, value in new.items():
                        array[field][0] = value
                    buffer = io.BytesIO()
                    np.save(buffer, array)
                    data = buffer.getvalue()
            target.writestr(name, data)
    return written.getvalue()


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (DecisionTreeClassifier(max_depth=3), {"left_child": 10_000}),
        (DecisionTreeClassifier(max_depth=3), {"right_child": 0}),
        (RandomForestClassifier(2, max_depth=3), {"feature": 99}),
        (GradientBoostingClassifier(n_estimators=2), {"feature": -5}),
        (IsolationForest(n_estimators=2), {"right_child": 10_000}),
        (HistGradientBoostingClassifier(max_iter=2), {"left": 10_000}),
        (HistGradientBoostingClassifier(max_iter=2), {"feature_idx": 7}),
        (KNeighborsClassifier(algorithm="kd_tree"), {"idx_end": 10_000}),
        (KNeighborsClassifier(algorithm="ball_tree"), {"idx_start": -1}),
    ],
)
def test_a_forged_tree_that_points_outside_itself_is_refused(model: Any, change: dict[str, int]) -> None:
    content = skops_file.dumps(model.fit(X, Y))
    skops_file.loads(content, "model.skops")
    with pytest.raises(BadArtifact, match="damaged or forged: a tree"):
        skops_file.loads(forged(content, change), "model.skops")


def test_being_asked_changes_no_byte() -> None:
    model = KNeighborsClassifier(algorithm="ball_tree").fit(X, Y)
    before = saved_files.dumps(model)
    model.predict(X)
    assert saved_files.dumps(model) == before
    assert before[0] == "skops"


def test_another_version_of_scikit_learn_is_noted(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(model).replace(*(v.encode() for v in (sys.modules["sklearn"].__version__, "0.9.0"))))
    notes = saved_files.open_file(path, trust=True).notes
    assert len(notes) == 1
    assert "saved with scikit-learn 0.9.0" in notes[0]


def test_files_written_by_the_libraries_themselves_are_read(tmp_path: Path) -> None:
    boosted("xgboost").save_model(tmp_path / "model.json")
    spaced = json.dumps(json.loads((tmp_path / "model.json").read_text()), indent=2)
    (tmp_path / "model.json").write_text(spaced)
    boosted("lightgbm booster").save_model(tmp_path / "model.txt")
    boosted("catboost").save_model(tmp_path / "model.cbm")
    assert isinstance(saved_files.load_file(tmp_path / "model.json"), xgboost.XGBClassifier)
    assert isinstance(saved_files.load_file(tmp_path / "model.txt"), lightgbm.Booster)
    assert saved_files.load_file(tmp_path / "model.cbm").classes_.tolist() == ["no", "yes"]


@pytest.mark.parametrize("name", ["model.skops", "model.onnx", "model.ubj", "model.cbm"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not a model at all")
    with pytest.raises(BadArtifact, match=name):
        saved_files.load_file(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    for model in (pipeline(), boosted("lightgbm booster")):
        path = saved(tmp_path, model)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(EstibaError, match=r"model\."):
            saved_files.load_file(path)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x08\x08", b"PK\x03\x04", b"{", b"tree", b"\x80"]))
def test_any_bytes_get_a_format_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, head: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(head + body)
    said = ""
    try:
        found = saved_files.detect(path)
    except EstibaError as error:
        found, said = None, str(error)
    assert found in saved_files.FORMATS or "It reads: skops" in said


def test_what_is_no_model_is_refused_with_what_is_supported(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(EstibaError, match="is not in a model format that Estiba reads") as raised:
        saved_files.detect(path)
    assert all(word in str(raised.value) for word in ("skops", "ONNX", "XGBoost", "LightGBM", "CatBoost", "joblib"))
    with pytest.raises(NotFound):
        saved_files.detect(tmp_path / "absent.onnx")


def test_a_lambda_cannot_be_saved() -> None:
    model = make_pipeline(FunctionTransformer(lambda x: x), LogisticRegression()).fit(X, Y)
    with pytest.raises(EstibaError, match="cannot be saved") as raised:
        saved_files.dumps(model)
    assert "lambda" in str(raised.value)


@pytest.mark.slow
def test_libraries_and_framework_name_exact_versions() -> None:
    found = saved_files.libraries(make_pipeline(StandardScaler(), boosted("xgboost")), "skops")
    assert {"numpy", "pandas", "scikit-learn", "scipy", "skops", "xgboost-cpu"} <= set(found) | {"xgboost-cpu"}
    assert found["numpy"] == np.__version__
    for library in ("xgboost", "lightgbm"):  # their classes derive from scikit-learn's, which they do not require
        assert "scikit-learn" in saved_files.libraries(boosted(library))
    assert saved_files.framework(pipeline()).startswith("scikit-learn 1.")
    assert saved_files.framework(boosted("catboost")) == f"CatBoost {catboost.__version__}"
    assert saved_files.framework(make_pipeline(StandardScaler(), boosted("lightgbm"))).startswith("LightGBM ")
    assert not own_code.has_own_code(pipeline())
    assert not own_code.has_own_code(HistGradientBoostingClassifier(max_iter=2).fit(X, Y))


def test_the_schema_holds_no_address_and_no_date() -> None:
    content = saved_files.dumps(pipeline())[2]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        identities = [n for n in _identities(json.loads(archive.read("schema.json")))]
    assert max(identities) <= len(identities)


def _identities(node: Any) -> list[int]:
    if isinstance(node, dict):
        return [*([node["__id__"]] if "__id__" in node else []), *(i for v in node.values() for i in _identities(v))]
    return [i for v in node for i in _identities(v)] if isinstance(node, list) else []
