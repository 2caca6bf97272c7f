"""Pipelines whose first steps run in Python and whose last steps are converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from own_plain_step import Doubled
from own_steps import Above, Ratios, lowered
from scipy.sparse import csr_matrix
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import estiba
from estiba.core.errors import NotTrusted
from estiba.deploy.image import requirements
from estiba.deploy.plan.plan import PlannedModel
from estiba.model.inference.load import Model, load_artifact

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
COUNT = 300
X = pd.DataFrame(
    {
        "a": RANDOM.normal(size=COUNT),
        "b": RANDOM.uniform(size=COUNT).round(1),
        "k": RANDOM.integers(0, 9, COUNT),
        "c": RANDOM.choice(["u", "v", "w"], COUNT),
        "t": RANDOM.choice(["late parcel", "Thank you", "late again", "fine"], COUNT)
        + pd.Series(range(COUNT)).astype(str),
    }
)
X.loc[RANDOM.random(COUNT) < 0.1, "a"] = np.nan
Y = np.where(X["a"].fillna(0) + X["b"] > 0.5, "yes", "no")
NUMBERS = X[["b", "k"]]


def prepared() -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("category", OneHotEncoder(handle_unknown="ignore"), ["c"]),
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]),
            ("text", TfidfVectorizer(), "t"),
        ]
    )


MODELS: dict[str, tuple[Callable[[], Any], pd.DataFrame, str]] = {
    "lambda": (
        lambda: Pipeline([
            ("twice", FunctionTransformer(lambda frame: frame * 2)),
            ("scale", StandardScaler()),
            ("forest", RandomForestClassifier(5, random_state=0)),
        ]),
        NUMBERS,
        "python + kernel: twice in Python; scale, forest converted",
    ),
    "array": (
        lambda: Pipeline([
            ("array", FunctionTransformer(lambda frame: frame.to_numpy(np.float32) + 1)),
            ("scale", StandardScaler()),
            ("model", LogisticRegression()),
        ]),
        NUMBERS,
        "python + kernel: array in Python; scale, model converted",
    ),
    "own class, missing and infinite": (
        lambda: Pipeline([("ratios", Ratios()), ("boosting", lightgbm.LGBMClassifier(n_estimators=9, verbose=-1))]),
        NUMBERS,
        "python + kernel: ratios in Python; boosting converted",
    ),
    "words": (
        lambda: Pipeline(
            [("words", FunctionTransformer(lowered)), ("prepared", prepared()), ("model", LogisticRegression())]
        ),
        X,
        "python + kernel: words in Python; prepared, model converted",
    ),
    "search, steps inside, own step second": (
        lambda: GridSearchCV(
            Pipeline([
                ("first", make_pipeline(StandardScaler(), FunctionTransformer(lambda array: array[:, ::-1]))),
                ("model", RandomForestClassifier(random_state=0)),
            ]),
            {"model__n_estimators": [3, 4]},
        ),
        NUMBERS,
        "python + kernel: first.standardscaler, first.functiontransformer in Python; model converted",
    ),
    "a step of scikit-learn without an exact form": (
        lambda: Pipeline([("pca", PCA(2, whiten=True)), ("model", HistGradientBoostingClassifier(max_iter=5))]),
        NUMBERS,
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_it_answers_as_the_whole_does(name: str, tmp_path: Path) -> None:
    made, sample, summary = MODELS[name]
    model = made().fit(sample, Y)
    tolerance = 1e-6 if name == "array" else 1e-12  # the original computes in float32
    packed = estiba.pack(model, sample, name="m", registry=tmp_path, quiet=True)
    manifest = packed.artifact.manifest
    if summary:
        assert manifest.engine_summary == summary
        assert f"engine: {summary}" in packed.report
        assert summary[1:] in (packed.artifact.path / "card.md").read_text()
        assert manifest.parity is not None
        assert manifest.parity.labels_equal == manifest.parity.labels_total
    loaded = load_artifact(packed.artifact, trust=True, threads=1, isolated=name == "lambda")
    if manifest.tail:
        assert loaded.runtime.startswith("Python + estiba kernel")
    for rows in (sample, sample.iloc[[3]]):
        assert np.abs(answers(loaded, rows) - model.predict_proba(rows)).max() < tolerance
    loaded.engine.close()


def answers(model: Model, frame: pd.DataFrame) -> Any:
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return model.engine.predict(model.coder.check(records))


def test_without_the_kernel_onnx_runtime_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, sample, _ = MODELS["words"]
    model = made().fit(sample, Y)
    artifact = estiba.pack(model, sample, name="m", registry=tmp_path, quiet=True).artifact
    monkeypatch.setenv("ESTIBA_KERNEL", "off")
    loaded = load_artifact(artifact, trust=True, threads=1)
    assert loaded.runtime == "Python + ONNX Runtime, in a process of its own"
    assert np.abs(answers(loaded, sample) - model.predict_proba(sample)).max() < 1e-12


def test_what_the_original_refuses_is_refused(tmp_path: Path) -> None:
    """A division by zero is infinity; the scaler behind it takes none, so that neither may the converted one."""
    sample = NUMBERS[NUMBERS["b"] > 0].reset_index(drop=True)
    ratio = FunctionTransformer(lambda frame: pd.DataFrame({"ratio": frame["k"] / frame["b"]}))
    model = Pipeline([("ratio", ratio), ("scale", StandardScaler()), ("model", LogisticRegression())])
    model.fit(sample, sample["k"] > 4)
    artifact = estiba.pack(model, sample, name="m", registry=tmp_path, quiet=True).artifact
    assert artifact.manifest.tail
    loaded = load_artifact(artifact, trust=True, threads=1)
    row = pd.DataFrame({"b": [0.0], "k": [3]})
    with pytest.raises(ValueError, match="infinity"):
        model.predict(row)
    with pytest.raises(ValueError, match="The step 'ratio' hands over inf in 'ratio' for row 0"):
        answers(loaded, row)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (
            [("own", Ratios()), ("impute", SimpleImputer()), ("model", Above())],
            "Ratios is a class of the user's own, which only Python can run; the steps behind it are not converted "
            "either: Above is a class of the user's own",
        ),
        ([("scale", StandardScaler()), ("model", Above())], "Above is a class of the user's own"),
        (
            [("sparse", FunctionTransformer(csr_matrix)), ("model", LogisticRegression())],
            "the step 'sparse' hands over a sparse matrix",
        ),
    ],
)
def test_where_the_rest_does_not_convert_the_whole_stays_in_python(steps: Any, reason: str, tmp_path: Path) -> None:
    sample = NUMBERS.assign(b=NUMBERS["b"] + 1)
    packed = estiba.pack(Pipeline(steps).fit(sample, sample["k"] > 4), sample, name="m", registry=tmp_path, quiet=True)
    manifest = packed.artifact.manifest
    assert (manifest.engine_summary, bool(manifest.tail)) == ("python", False)
    assert reason in manifest.reason


def test_a_class_without_scikit_learn_needs_none_of_it(tmp_path: Path) -> None:
    model = Pipeline([("twice", Doubled()), ("model", RandomForestClassifier(3, random_state=0))]).fit(
        NUMBERS.copy(), Y
    )
    artifact = estiba.pack(model, NUMBERS.copy(), name="m", registry=tmp_path, quiet=True).artifact
    assert artifact.manifest.tail
    assert set(artifact.manifest.libraries) == {"joblib", "numpy", "pandas"}


def test_an_image_gets_the_packages_of_the_steps_in_python_alone(tmp_path: Path) -> None:
    made, sample, _ = MODELS["own class, missing and infinite"]
    artifact = estiba.pack(made().fit(sample, Y), sample, name="m", registry=tmp_path, quiet=True).artifact
    manifest = artifact.manifest
    assert "LightGBM" in manifest.framework
    assert "lightgbm" not in manifest.libraries
    assert "scikit-learn" in manifest.libraries
    size = sum(entry.bytes for entry in manifest.files)
    model = PlannedModel("m", "1", artifact.digest, artifact.path, "python", manifest.libraries, size, split=True)
    names = {pin.name for pin in requirements.serving([model]).pins}
    assert {"scikit-learn", "pandas"} <= names
    assert not {"lightgbm", "onnxruntime"} & names
    with pytest.raises(NotTrusted):
        load_artifact(artifact, threads=1)


def test_packing_twice_gives_one_digest(tmp_path: Path) -> None:
    made, sample, _ = MODELS["own class, missing and infinite"]
    model = made().fit(sample, Y)
    digests = {estiba.pack(model, sample, name="m", registry=tmp_path / n, quiet=True).artifact.digest for n in "ab"}
    assert len(digests) == 1
