"""Categories that the first steps of a pipeline hand over though the sample has none of them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier
from supervised import Server, serving

import estiba
from estiba.core.errors import BadInput, EstibaError
from estiba.model.inference.load import Model, load_artifact
from estiba.model.inference.score_files import score

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
COUNT = 200
ROWS = pd.DataFrame({"place": RANDOM.choice(["Lugo, ES", "Porto, PT", "Nice, FR"], COUNT), "n": np.arange(COUNT) % 7})
TARGET = np.where((ROWS.n > 3) ^ ROWS.place.str.endswith("ES"), "yes", "no")
ASKED = ROWS.head(4).assign(place=["Lugo, ES", "Rome, IT", "nowhere", "Bern, CH, EU"])
TEXT = {"place": {"kind": "text"}}


def country(rows: pd.DataFrame) -> pd.DataFrame:
    """The country as a word; missing where there is none."""
    return pd.DataFrame({"country": rows.place.str.split(", ").str[1], "n": rows.n})


def country_or_none(rows: pd.DataFrame) -> pd.DataFrame:
    words = rows.place.str.split(", ").str[1].astype(object)
    return pd.DataFrame({"country": words.where(words.notna(), None).astype(object), "n": rows.n})


def known_country(rows: pd.DataFrame) -> pd.DataFrame:
    known = ["ES", "FR", "PT"]
    made = country(rows)
    return made.assign(country=pd.Categorical(made.country.where(made.country.isin(known)), known))


def some_country(rows: pd.DataFrame) -> pd.DataFrame:
    return country(rows).assign(country=lambda made: made.country.astype("category"))


def encoded(encoder: Any) -> Any:
    return make_column_transformer((encoder, ["country"]), remainder="passthrough")


def packed(step: Any, *steps: Any, registry: Path) -> tuple[Any, Model]:
    model = make_pipeline(FunctionTransformer(step), *steps).fit(ROWS, TARGET)
    artifact = estiba.pack(model, ROWS, name="m", registry=registry, quiet=True, fields=TEXT).artifact
    assert artifact.manifest.tail, artifact.manifest.reason
    return model, load_artifact(artifact, trust=True, isolated=False)


def lgbm() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=2, verbose=-1)


@pytest.mark.parametrize("step", [country, country_or_none])
@pytest.mark.parametrize(
    "steps",
    [
        (encoded(OneHotEncoder(handle_unknown="ignore")), LogisticRegression()),
        (encoded(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)), DecisionTreeClassifier()),
    ],
)
def test_what_an_encoder_takes_is_answered_as_by_the_original(step: Any, steps: Any, tmp_path: Path) -> None:
    model, loaded = packed(step, *steps, registry=tmp_path)
    answers = [list(answer["probabilities"].values()) for answer in loaded.predict(ASKED)]
    np.testing.assert_allclose(answers, model.predict_proba(ASKED), rtol=0, atol=1e-12)


@pytest.mark.parametrize("step", [known_country, some_country])
def test_what_a_booster_takes_is_answered_as_by_the_original(step: Any, tmp_path: Path) -> None:
    model, loaded = packed(step, lgbm(), registry=tmp_path)
    assert loaded.manifest.tail
    assert loaded.manifest.tail.fields[0].unseen == "null"
    for n in range(len(ASKED)):
        row = ASKED.iloc[[n]]
        (answer,) = loaded.predict(row)
        assert list(answer["probabilities"].values()) == model.predict_proba(row)[0].tolist()


def refusing(registry: Path) -> tuple[Any, Model]:
    return packed(country, encoded(OneHotEncoder()), LogisticRegression(), registry=registry)


def test_what_the_original_refuses_is_refused_with_row_column_and_value(tmp_path: Path) -> None:
    model, loaded = refusing(tmp_path)
    with pytest.raises(ValueError, match="unknown categories"):
        model.predict(ASKED)
    with pytest.raises(BadInput) as caught:
        loaded.predict(ASKED)
    details = {problem.pointer: problem.detail for problem in caught.value.problems}
    assert list(details) == ["#/records/1", "#/records/2", "#/records/3"]
    step = "The step 'functiontransformer' hands over in 'country' what the step behind it does not take: "
    assert details["#/records/1"] == step + 'expected one of: ES, FR, PT, got "IT"'
    assert details["#/records/2"].startswith(step + "may not be missing")


def test_a_file_is_refused_with_its_row(tmp_path: Path) -> None:
    _, loaded = refusing(tmp_path / "registry")
    rows = pd.concat([ROWS, ASKED.iloc[[1]]])
    rows.to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(EstibaError, match=rf'in\.csv, row {COUNT + 1} below the header: .* got "IT"'):
        score(loaded, tmp_path / "in.csv", tmp_path / "out.csv")


def test_a_server_answers_422_and_not_500(tmp_path: Path) -> None:
    refusing(tmp_path / "registry")
    with serving(tmp_path / "registry", "--trust", models=["m"]) as server:
        status, body = post(server, ASKED.head(2))
        assert status == 422
        (error,) = body["errors"]
        assert error["pointer"] == "#/records/1"
        assert error["detail"].endswith('got "IT"')
        assert post(server, ASKED.head(1))[0] == 200


def post(server: Server, rows: pd.DataFrame) -> tuple[int, Any]:
    content = json.dumps({"records": rows.to_dict("records")}).encode()
    url = f"http://127.0.0.1:{server.port}/predict"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, content, {"content-type": "application/json"})) as got:
            return got.status, json.load(got)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
