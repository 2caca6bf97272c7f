"""Models that decide between computed numbers: golden rows keep a distance from their borders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import estiba
from estiba.model.convert import convert
from estiba.model.convert.near_ties import decides_between_rounded

pytestmark = pytest.mark.slow


def _wine() -> tuple[Any, Any]:
    from sklearn.datasets import load_wine

    wine = load_wine(as_frame=True)
    return wine.data, wine.target


def _models() -> dict[str, Any]:
    from sklearn.decomposition import PCA
    from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsOneClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    tree, bayes = DecisionTreeClassifier(random_state=0), GaussianNB()
    logistic = make_pipeline(StandardScaler(), LogisticRegression())
    return {
        "votes": VotingClassifier([("tree", tree), ("logistic", logistic), ("bayes", bayes)]),
        "two votes": VotingClassifier([("tree", tree), ("bayes", bayes)]),
        "tree behind PCA": make_pipeline(StandardScaler(), PCA(5), tree),
        "neighbours": KNeighborsClassifier(2),
        "pairs of forests": OneVsOneClassifier(RandomForestClassifier(5, random_state=0)),
        "bagged neighbours": BaggingClassifier(KNeighborsClassifier(), random_state=0),
    }


@pytest.mark.parametrize(
    "name", ["votes", "two votes", "tree behind PCA", "neighbours", "bagged neighbours", "pairs of forests"]
)
def test_it_packs_as_onnx_and_answers_other_rows_as_the_original(name: str, tmp_path: Path) -> None:
    rows, wanted = _wine()
    trained = np.arange(len(rows)) % 2 == 0
    model = _models()[name].fit(rows[trained], wanted[trained])
    packed = estiba.pack(model, rows[trained], name="m", registry=tmp_path)
    assert packed.artifact.manifest.engine == "onnx", packed
    loaded = estiba.load("m", registry=tmp_path)
    said = [answer["label"] for answer in loaded.predict(rows[~trained].to_dict("records"))]
    assert said == model.predict(rows[~trained]).tolist()


def test_the_label_of_one_pair_is_the_one_of_predict(tmp_path: Path) -> None:
    rows, wanted = _wine()
    model = _models()["pairs of forests"].fit(rows, wanted == 0)
    packed = estiba.pack(model, rows, name="m", registry=tmp_path)
    assert packed.artifact.manifest.engine == "onnx", packed
    answers = estiba.load("m", registry=tmp_path).predict(rows.to_dict("records"))
    assert [answer["label"] for answer in answers] == model.predict(rows).tolist()


def test_a_tree_on_the_rows_own_numbers_is_proven_at_its_thresholds() -> None:
    from conversion_check import fields_of
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    rows, wanted = _wine()
    fields = fields_of(rows, False, False)
    scaled = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)).fit(rows, wanted)
    assert not decides_between_rounded(convert(scaled, fields, rows).onnx)
    for name in ("two votes", "tree behind PCA", "neighbours"):
        assert decides_between_rounded(convert(_models()[name].fit(rows, wanted), fields, rows).onnx)


def test_a_tree_behind_one_hot_columns_is_proven_at_its_thresholds() -> None:
    from conversion_check import fields_of
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rows, wanted = _wine()
    rows = rows.assign(kind=np.resize(["a", "b", "c"], len(rows)), place=np.resize(["x", "y"], len(rows)))
    encoder = make_column_transformer((OneHotEncoder(), ["kind", "place"]), remainder="passthrough")
    model = make_pipeline(encoder, RandomForestClassifier(5, random_state=0)).fit(rows, wanted)
    content = convert(model, fields_of(rows, False, False), rows).onnx
    assert b"ReduceSum" in content
    assert not decides_between_rounded(content)
