"""KNNImputer as a graph fills what the original fills, and says where it cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from conversion_cases import frame, target
from conversion_check import fields_of, run

from estiba.model.convert import NotConvertible, convert

pytestmark = pytest.mark.slow


def _pipeline(sample: pd.DataFrame, **options: Any) -> Any:
    from sklearn.impute import KNNImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    return make_pipeline(KNNImputer(**options), Ridge()).fit(sample, target(sample, 0))


@pytest.mark.parametrize("neighbours", [1, 5, 1000])
def test_rows_with_nothing_and_donors_with_nothing_in_common(neighbours: int) -> None:
    sample = frame("numbers", missing=True)
    sample["b"] += np.linspace(0, 1e-3, len(sample))  # no ties
    sample.loc[:100, ["a", "b"]] = np.nan
    sample.loc[101:160, ["c", "d"]] = np.nan
    model = _pipeline(sample, n_neighbors=neighbours, add_indicator=True)
    made = convert(model, fields_of(sample, True, False), sample)
    probes = sample.copy()
    probes.iloc[0] = np.nan  # gets the mean of each column
    for i in range(4):
        probes.iloc[1 + i, :] = np.nan
        probes.iloc[1 + i, i] = 0.25 * i
    assert run(made.onnx, probes.to_numpy())[:, 0] == pytest.approx(model.predict(probes), rel=1e-12, abs=1e-12)
    whole = probes.dropna()
    assert run(made.onnx, whole.to_numpy())[:, 0] == pytest.approx(model.predict(whole), rel=1e-12, abs=1e-12)


def test_training_rows_at_equal_distances_are_a_reason() -> None:
    sample = frame("counts", missing=False).astype(float)
    sample.iloc[::9, 0] = np.nan
    with pytest.raises(NotConvertible, match="equal distances for its column"):
        convert(_pipeline(sample), fields_of(sample, True, False), sample)


def test_one_neighbour_among_rows_at_equal_distances_is_a_reason() -> None:
    sample = frame("counts", missing=False).astype(float)
    sample.iloc[::9, 0] = np.nan
    with pytest.raises(NotConvertible, match="equal distances for its column"):
        convert(_pipeline(sample, n_neighbors=1), fields_of(sample, True, False), sample)


def test_rare_ties_are_a_note() -> None:
    sample = frame("numbers", missing=False)
    sample.loc[0, ["a", "c", "d"]] = np.nan  # b alone is left, which is rounded
    notes = convert(_pipeline(sample), fields_of(sample, True, False), sample).notes
    assert any("at equal distances the first are taken" in note for note in notes)


def test_neighbours_weighed_by_distance_are_a_reason() -> None:
    sample = frame("numbers", missing=True)
    with pytest.raises(NotConvertible, match="'uniform' converts"):
        convert(_pipeline(sample, weights="distance"), fields_of(sample, True, False), sample)
