"""The label is what the original's own `predict` says, on rows outside the sample, for classifiers of every sort."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.covariance import EllipticEnvelope
from sklearn.datasets import load_digits, load_wine
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.neighbors import LocalOutlierFactor, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

import estiba

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(RANDOM.normal(size=(1200, 2)), columns=["a", "b"])
NOISY = (ROWS["a"] + RANDOM.normal(size=1200) * 2 > 0).map({True: "yes", False: "no"})


def differing(model: Any, frame: pd.DataFrame, target: Any, tmp_path: Path, **options: Any) -> tuple[int, str]:
    """Rows outside the sample with another label than the original's, and the engine."""
    sample = frame.iloc[::4].reset_index(drop=True)
    model.fit(sample, np.asarray(target)[::4])
    packed = estiba.pack(model, sample, name="labels", registry=tmp_path, **options)
    loaded = estiba.load(packed.ref, registry=tmp_path, trust=True)
    others = frame.drop(index=frame.index[::4])
    pairs = zip(loaded.predict(others), model.predict(others).tolist(), strict=True)
    return sum(answer["label"] != label for answer, label in pairs), packed.artifact.manifest.engine


BINARY: dict[str, Callable[[], Any]] = {
    "SVC with probabilities": lambda: CalibratedClassifierCV(SVC(), ensemble=False),
    "NuSVC": lambda: NuSVC(nu=0.3),
    "NearestCentroid": NearestCentroid,
    "threshold of scores": lambda: FixedThresholdClassifier(
        LinearSVC(), threshold=0.3, response_method="decision_function"
    ),
    "threshold of the first class": lambda: FixedThresholdClassifier(
        LogisticRegression(), threshold=0.4, pos_label="no"
    ),
    "GaussianProcess": GaussianProcessClassifier,
}


@pytest.mark.parametrize("name", BINARY)
def test_two_classes(name: str, tmp_path: Path) -> None:
    assert differing(BINARY[name](), ROWS, NOISY, tmp_path)[0] == 0


@pytest.mark.filterwarnings("ignore:The `probability` parameter:FutureWarning")
@pytest.mark.parametrize("make", [SVC, lambda **options: NuSVC(nu=0.3, **options)])
@pytest.mark.parametrize(
    "wrap", [lambda m: m, lambda m: make_pipeline(StandardScaler(), m), lambda m: GridSearchCV(m, {})]
)
def test_support_vectors_with_probabilities(make: Any, wrap: Any, tmp_path: Path) -> None:
    assert differing(wrap(make(probability=True)), ROWS, NOISY, tmp_path) == (0, "python")


def test_a_threshold_of_catboost(tmp_path: Path) -> None:
    catboost = pytest.importorskip("catboost")

    class Chosen(catboost.CatBoostClassifier):  # type: ignore[misc]
        def fit(self, *arguments: Any, **options: Any) -> Any:
            super().fit(*arguments, **options)
            self.set_probability_threshold(0.2)
            return self

    made = Chosen(iterations=20, verbose=0, allow_writing_files=False).fit(ROWS, NOISY)
    made.save_model(str(tmp_path / "model.cbm"))
    model = catboost.CatBoostClassifier().load_model(str(tmp_path / "model.cbm"))
    assert model.get_probability_threshold() == 0.2
    packed = estiba.pack(model, ROWS.iloc[::4], name="chosen", registry=tmp_path / "registry")
    assert packed.artifact.manifest.signature.outputs.threshold == 0.2
    assert packed.artifact.manifest.engine == "onnx"
    said = [answer["label"] for answer in estiba.load(packed.ref, registry=tmp_path / "registry").predict(ROWS)]
    assert said == model.predict(ROWS).tolist()


@pytest.mark.parametrize(
    ("make", "engine"),
    [
        (SVC, "onnx"),
        (lambda: SVC(kernel="poly"), "onnx"),
        (lambda: SVC(break_ties=True), "onnx"),
        (NuSVC, "onnx"),
        (NearestCentroid, "python"),
        (lambda: OneVsOneClassifier(LogisticRegression(max_iter=50)), "onnx"),
        (lambda: OneVsRestClassifier(LinearSVC()), "onnx"),
        (lambda: OneVsRestClassifier(DecisionTreeClassifier(max_depth=2, random_state=0)), "onnx"),  # many ties
        (lambda: OneVsRestClassifier(SGDClassifier(loss="log_loss", random_state=0)), "onnx"),
        (lambda: SGDClassifier(loss="log_loss", random_state=0), "onnx"),
        (lambda: OutputCodeClassifier(LogisticRegression(max_iter=50), random_state=0), "python"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:self.within_class:UserWarning")
@pytest.mark.parametrize("data", [load_wine, load_digits])
def test_many_classes(make: Any, engine: str, data: Any, tmp_path: Path) -> None:
    found = data(as_frame=True)
    assert differing(make(), found.data, found.target, tmp_path) == (0, engine)


def test_the_parity_of_the_labels_is_with_predict(tmp_path: Path) -> None:
    model = NearestCentroid().fit(ROWS, NOISY)
    packed = estiba.pack(model, ROWS, name="near", registry=tmp_path)
    manifest = packed.artifact.manifest
    assert manifest.signature.head.labelled
    assert manifest.parity is not None
    assert manifest.parity.labels_equal == manifest.parity.labels_total > len(ROWS)


def test_a_threshold_of_the_users_own_decides(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), NearestCentroid()).fit(ROWS, NOISY)
    packed = estiba.pack(model, ROWS, name="near", registry=tmp_path, outputs={"threshold": 0.9})
    answers = estiba.load(packed.ref, registry=tmp_path, trust=True).predict(ROWS.iloc[:50])
    assert [a["label"] for a in answers] == ["yes" if a["probabilities"]["yes"] >= 0.9 else "no" for a in answers]


@pytest.mark.parametrize(
    "make", [lambda: LocalOutlierFactor(novelty=True), EllipticEnvelope, IsolationForest, OneClassSVM]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:The covariance matrix:UserWarning")
def test_an_absurd_value_is_an_outlier(make: Any, tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), make()).fit(ROWS)
    packed = estiba.pack(model, ROWS, name="detector", registry=tmp_path)
    loaded = estiba.load(packed.ref, registry=tmp_path, trust=True)
    absurd = pd.DataFrame({"a": [1e300, -1e300, 1e300, 0.0, 0.0, 7.0], "b": [0.0, 0.0, -1e300, 1e300, -1e300, 7.0]})
    if isinstance(model[-1], IsolationForest):
        absurd = absurd.clip(-1e30, 1e30)  # beyond float32 it raises
    assert [answer["label"] for answer in loaded.predict(absurd)] == model.predict(absurd).tolist()
    assert -1 in model.predict(absurd)


@pytest.mark.parametrize("threshold", [0.2, 0.7, 0.3])
def test_a_threshold_on_the_first_class_of_a_forest_holds_to_the_last_bit(threshold: float, tmp_path: Path) -> None:
    forest = RandomForestClassifier(30, min_samples_leaf=2, random_state=0)
    model = FixedThresholdClassifier(forest, threshold=threshold, pos_label="no").fit(ROWS[::2], NOISY[::2])
    packed = estiba.pack(model, ROWS[::2], name="forest", registry=tmp_path)
    manifest = packed.artifact.manifest
    assert (manifest.engine, manifest.signature.head.labelled) == ("onnx", False)
    answers = estiba.load(packed.ref, registry=tmp_path).predict(ROWS)
    assert [a["probabilities"]["no"] for a in answers] == model.predict_proba(ROWS)[:, 0].tolist()
    assert [a["label"] for a in answers] == model.predict(ROWS).tolist()
