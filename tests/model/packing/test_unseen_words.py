"""Unseen words reach a model that tells them apart, and are one value for a model that does not."""

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

pytestmark = pytest.mark.slow

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
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "python"])
def test_a_model_that_reads_the_word_gets_it(step: Any, column: Any, engine: Any, tmp_path: Path) -> None:
    model = fitted(step, column)
    fields = {"city": {"unseen": "other"}}
    packed = estiba.pack(model, CITIES, name="c", engine=engine, fields=fields, registry=tmp_path)
    assert packed.artifact.manifest.signature.field("city").kind == "text"
    loaded = estiba.load(packed.ref, registry=tmp_path, trust=True)
    words = ["PARIS", "paris", "lyON", "Rome", " paris "]
    answers = [row["probabilities"]["1"] for row in loaded.predict([{"city": word} for word in words])]
    expected = model.predict_proba(pd.DataFrame({"city": words, "code": 3}))[:, 1]
    assert answers == pytest.approx(expected.tolist(), abs=1e-12)


def test_packing_says_why_the_field_is_text(tmp_path: Path) -> None:
    model = fitted(make_pipeline(LOWER, OneHotEncoder(handle_unknown="ignore")), ["city"])
    options: Any = {"unseen": "other"}
    packed = estiba.pack(model, CITIES, name="c", fields={"city": options}, registry=tmp_path)
    assert "The model reads the words of 'city' and answers unseen ones differently" in packed.notes[-1]
    options["levels"] = ["Paris", "paris", "LYON", "Lyon"]
    with pytest.raises(BadProject, match="answers unseen values of 'city' differently, such as '"):
        estiba.pack(model, CITIES, name="c", fields={"city": options}, registry=tmp_path)


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
