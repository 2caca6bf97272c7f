"""Objects that would make native code leave its arrays are told from those that would not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline
from scipy.sparse import csr_matrix
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, RandomForestRegressor
from sklearn.multioutput import ClassifierChain
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from estiba.model.estimators.object_graph import reachable
from estiba.model.estimators.tree_checks import fault

X = np.random.default_rng(0).normal(size=(80, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    "model",
    [
        AdaBoostClassifier(n_estimators=2),
        BaggingClassifier(n_estimators=2, max_features=2),
        RandomForestRegressor(2),
        KNeighborsClassifier(algorithm="kd_tree"),
    ],
)
def test_what_was_fitted_is_sound(model: Any) -> None:
    assert [fault(item) for item in reachable(model.fit(X, Y)) if fault(item)] == []


def test_a_chain_whose_trees_see_more_and_more_columns_is_sound() -> None:
    chain = ClassifierChain(DecisionTreeClassifier()).fit(X, np.column_stack([Y, 1 - Y]))
    assert [fault(item) for item in reachable(chain) if fault(item)] == []


def test_a_tree_of_another_width_is_not() -> None:
    narrow, wide = RandomForestRegressor(2).fit(X[:, :2], Y), RandomForestRegressor(2).fit(X, Y)
    narrow.estimators_[1] = wide.estimators_[1]
    assert "another number of features" in fault(narrow)


def test_a_sparse_matrix_with_foreign_indices_is_not() -> None:
    matrix = csr_matrix(np.eye(3))
    assert fault(matrix) == ""
    matrix.indices[0] = 99
    assert "sparse matrix" in fault(matrix)


def test_a_spline_with_too_few_coefficients_is_not() -> None:
    spline = make_interp_spline(np.arange(8.0), np.arange(8.0) ** 2)
    assert fault(spline) == ""
    spline.c = spline.c[:3]
    assert "spline" in fault(spline)
