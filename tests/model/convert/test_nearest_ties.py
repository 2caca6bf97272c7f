"""Nearest neighbours among training rows at equal distances, of which scikit-learn takes any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import estiba
from estiba.model.convert.nearest_ties import tied_share


def test_rows_whose_answer_depends_on_the_choice_are_counted() -> None:
    distances = np.array([[0.0, 1.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 5.0, 5.0]])
    values = np.array([[7.0], [8.0], [9.0], [9.0]])
    assert tied_share(distances, 2, values, 1e-9) == pytest.approx(1 / 3)  # of the first row: 8 or 9
    assert tied_share(distances, 3, values, 1e-9) == 0  # 9 either way
    assert tied_share(distances, 4, values, 1e-9) == 0


def test_a_row_does_not_hide_the_ties_of_others() -> None:
    """A training row is its own nearest one; a row of a caller's beside it is not among them."""
    distances = np.array([[0.0, 1.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0]])
    values = np.array([[7.0], [8.0], [9.0], [9.0]])
    assert tied_share(distances, 1, values, 1e-9) == 0
    assert tied_share(distances, 1, values, 1e-9, np.array([0, 0])) == 0.5
    assert tied_share(distances, 1, values, 1e-9, np.array([-1, 0])) == 0
    assert tied_share(distances, 2, values, 1e-9, np.array([0, 0])) == 0.5  # as before: 8 or 9


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KNeighborsRegressor, KNeighborsClassifier])
def test_words_before_neighbours_run_in_python_and_answer_as_the_original(tmp_path: Path, kind: type) -> None:
    random = np.random.default_rng(0)
    words = {"a": random.choice(list("abcdef"), 500), "b": random.choice(list("xyz"), 500)}
    X = pd.DataFrame(words)
    y = random.normal(size=500) if kind is KNeighborsRegressor else random.choice(["yes", "no"], 500)
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), kind()).fit(X, y)
    packed = estiba.pack(model, X, name="words", registry=tmp_path, quiet=True)
    assert packed.artifact.manifest.engine == "python"
    assert "finds training rows at equal distances" in (packed.artifact.manifest.reason or "")
    answers = estiba.load("words", registry=tmp_path, trust=True).predict(X)
    assert [next(iter(answer.values())) for answer in answers] == list(model.predict(X))


@pytest.mark.slow
def test_one_neighbour_of_rows_on_a_grid_runs_in_python(tmp_path: Path) -> None:
    X = pd.DataFrame({"a": np.repeat(np.arange(20), 20), "b": np.tile(np.arange(20), 20)})
    y = np.random.default_rng(0).normal(size=400)
    packed = estiba.pack(KNeighborsRegressor(1).fit(X, y), X, name="grid", registry=tmp_path, quiet=True)
    assert "finds training rows at equal distances" in packed.artifact.manifest.reason


@pytest.mark.slow
def test_neighbours_of_distinct_rows_convert_from_a_sparse_matrix(tmp_path: Path) -> None:
    from sklearn.compose import make_column_transformer

    random = np.random.default_rng(0)
    X = pd.DataFrame({"a": random.choice(list("abcdefghijkl"), 400), "v": random.normal(size=400)})
    encoder = make_column_transformer((OneHotEncoder(), ["a"]), remainder="passthrough", sparse_threshold=1.0)
    model = make_pipeline(encoder, KNeighborsRegressor()).fit(X, random.normal(size=400))
    assert hasattr(model[-1]._fit_X, "toarray")
    packed = estiba.pack(model, X, name="sparse", registry=tmp_path, quiet=True)
    assert packed.artifact.manifest.engine == "onnx"
    answers = estiba.load("sparse", registry=tmp_path).predict(X)
    np.testing.assert_allclose([answer["value"] for answer in answers], model.predict(X), atol=1e-12)
