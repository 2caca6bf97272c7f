"""Packing refuses to hand unseen words over as one where the model tells them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

import estiba
from estiba.core.errors import BadProject

RANDOM = np.random.default_rng(0)
CITIES = pd.DataFrame(
    {"city": RANDOM.choice(["Paris", "paris", "LYON", "Lyon"], 200), "code": RANDOM.choice([3, 7], 200)}
)
IS_PARIS = (CITIES["city"].str.lower() == "paris").astype(int)
LOWER = FunctionTransformer(pd.DataFrame.map, kw_args={"func": str.lower})


def fitted(step: Any, column: Any) -> Any:
    columns = CITIES[["city", "code"]]
    return make_pipeline(make_column_transformer((step, column)), LogisticRegression()).fit(columns, IS_PARIS)


@pytest.mark.parametrize(
    ("step", "column"),
    [(make_pipeline(LOWER, OneHotEncoder(handle_unknown="ignore")), ["city"]), (TfidfVectorizer(), "city")],
)
@pytest.mark.parametrize("engine", ["auto", "python"])
def test_a_model_that_reads_the_word_is_not_packed_with_other(
    step: Any, column: Any, engine: Any, tmp_path: Path
) -> None:
    model = fitted(step, column)
    with pytest.raises(BadProject, match="answers unseen values of 'city' differently, such as '") as raised:
        estiba.pack(model, CITIES, name="c", engine=engine, fields={"city": {"unseen": "other"}}, registry=tmp_path)
    assert "kind to 'text'" in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder",
    [OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)],
)
def test_an_encoder_that_takes_unseen_words_alike_is_packed(encoder: Any, tmp_path: Path) -> None:
    model = fitted(encoder, ["city", "code"])
    packed = estiba.pack(model, CITIES, name="c", registry=tmp_path)
    assert [field.unseen for field in packed.artifact.manifest.signature.fields] == ["other", "other"]
    answer = estiba.load(packed.ref, registry=tmp_path).predict([{"city": "PARIS", "code": 9}])[0]
    expected = model.predict_proba(pd.DataFrame({"city": ["PARIS"], "code": [9]}))[0]
    assert list(answer["probabilities"].values()) == pytest.approx(expected.tolist())
