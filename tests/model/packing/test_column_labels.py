"""Column labels that are no strings: packed, loaded, and asked with the same frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import estiba

LABELS: list[Any] = [[2, 0], pd.MultiIndex.from_tuples([("a", "x"), ("b", "")]), [1.5, "b"]]
NAMES = [["2", "0"], ["a_x", "b"], ["1.5", "b"]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize(("labels", "names"), list(zip(LABELS, NAMES, strict=True)))
@pytest.mark.parametrize("engine", ["auto", "python"])
def test_a_frame_is_packed_and_asked(labels: Any, names: list[str], engine: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({0: rng.integers(0, 3, 80), 1: rng.normal(size=80)}).set_axis(labels, axis=1)
    columns = make_column_transformer((OneHotEncoder(), [0]), remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(frame.to_numpy(), rng.integers(0, 2, 80))
    packed = estiba.pack(model, frame, name="odd", registry=tmp_path, holdout=frame, engine=engine)
    loaded = estiba.load(packed.ref, registry=tmp_path, trust=True)
    assert list(loaded.signature.names) == names
    expected = model.predict_proba(frame.to_numpy())
    for rows in (frame, frame.to_numpy(), [dict(zip(labels, row, strict=True)) for row in frame.to_numpy().tolist()]):
        answers = [list(row["probabilities"].values()) for row in loaded.predict(rows)]
        np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-12)
    assert loaded.predict(frame.iloc[0]) == loaded.predict(frame.iloc[:1])
