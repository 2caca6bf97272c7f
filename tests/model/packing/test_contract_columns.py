"""The fields of a model: the columns that it reads, with what its encoders, imputers and vectorizers know of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import estiba
from estiba.core.errors import BadInput
from estiba.model.inference.load import Model
from estiba.model.schema.signature import Field

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {
        "age": RANDOM.integers(18, 90, 300),
        "plan": RANDOM.choice(["basic", "pro"], 300),
        "customer_id": [f"C-{n}" for n in range(300)],
        "balance": RANDOM.normal(size=300),
    }
)
TARGET = ((ROWS.age > 50) ^ (ROWS.plan == "pro")).astype(int)
ONE_HOT = OneHotEncoder(handle_unknown="ignore")


def packed(model: Any, sample: pd.DataFrame, folder: Path, **options: Any) -> tuple[Model, dict[str, Field]]:
    result = estiba.pack(model, sample, name="m", registry=folder, **options)
    loaded = estiba.load(result.ref, registry=folder, trust=True)
    return loaded, {field.name: field for field in loaded.signature.fields}


def test_columns_that_a_column_transformer_drops_are_no_fields(tmp_path: Path) -> None:
    encoder = make_column_transformer((ONE_HOT, ["plan"]), (StandardScaler(), ["age"]))
    model = make_pipeline(encoder, LogisticRegression()).fit(ROWS, TARGET)
    result = estiba.pack(model, ROWS, name="m", registry=tmp_path)
    loaded = estiba.load("m", registry=tmp_path)
    assert loaded.signature.names == ("age", "plan")
    assert loaded.manifest.engine == "onnx"
    assert "'customer_id', 'balance'" in result.notes[0]
    ours = [row["probabilities"]["1"] for row in loaded.predict(ROWS[["age", "plan"]])]
    assert ours == pytest.approx(model.predict_proba(ROWS)[:, 1], abs=1e-12)


def test_predict_takes_the_frame_of_training_with_the_columns_that_were_left_out(tmp_path: Path) -> None:
    encoder = make_column_transformer((ONE_HOT, ["plan"]), (StandardScaler(), ["age"]))
    model = make_pipeline(encoder, LogisticRegression()).fit(ROWS, TARGET)
    frame = ROWS.assign(left=TARGET)
    ours = model.predict_proba(ROWS)[:, 1]
    result = estiba.pack(model, ROWS, y=TARGET.rename("left"), name="m", registry=tmp_path, quiet=True)
    loaded = estiba.load(result.ref, registry=tmp_path)
    assert loaded.signature.unread == ("customer_id", "balance", "left")
    for rows in (frame, frame.to_dict("records")):
        assert [row["probabilities"]["1"] for row in loaded.predict(rows)] == pytest.approx(ours, abs=1e-12)
    with pytest.raises(BadInput, match="the model has no such field"):
        loaded.predict(frame.assign(other=1))
    with pytest.raises(BadInput, match=r'the model does not read it.*extra = "ignore"'):
        loaded.coder.check(frame.to_dict("records")[:1])  # as a server does


def test_columns_to_keep_or_to_ignore_are_not_left_out(tmp_path: Path) -> None:
    encoder = make_column_transformer((ONE_HOT, ["plan"]), (StandardScaler(), ["age"]))
    model = make_pipeline(encoder, LogisticRegression()).fit(ROWS, TARGET)
    loaded, _ = packed(model, ROWS, tmp_path, keep=["customer_id"])
    assert loaded.predict(ROWS[:1])[0]["customer_id"] == "C-0"
    assert loaded.signature.unread == ("balance",)
    assert packed(model, ROWS, tmp_path, extra="ignore")[0].signature.unread == ()


def test_a_text_that_an_encoder_reads_too_is_a_reason_with_the_remedy(tmp_path: Path) -> None:
    texts = ROWS.assign(text=RANDOM.choice(["red apple", "green pear", "blue plum"], 300))
    encoder = make_column_transformer((TfidfVectorizer(), "text"), (ONE_HOT, ["text"]))
    model = make_pipeline(encoder, LogisticRegression()).fit(texts, TARGET)
    loaded, _ = packed(model, texts, tmp_path)
    assert "is a text for a vectorizer and a category for OneHotEncoder" in loaded.manifest.reason
    again = make_column_transformer((TfidfVectorizer(), "text"), (ONE_HOT, ["copy"]))
    texts = texts.assign(copy=texts.text)
    loaded, _ = packed(make_pipeline(again, LogisticRegression()).fit(texts, TARGET), texts, tmp_path)
    assert loaded.manifest.engine == "onnx"


def test_a_target_or_an_index_left_in_the_sample_is_no_field(tmp_path: Path) -> None:
    model = RandomForestClassifier(5, random_state=0).fit(ROWS[["age", "balance"]], TARGET)
    sample = ROWS.assign(target=TARGET).reset_index().rename(columns={"index": "Unnamed: 0"})
    loaded, fields = packed(model, sample, tmp_path)
    assert list(fields) == ["age", "balance"]
    assert [row["label"] for row in loaded.predict(ROWS[["age", "balance"]])] == model.predict(
        ROWS[["age", "balance"]]
    ).tolist()


def test_a_column_that_the_user_says_something_of_stays(tmp_path: Path) -> None:
    encoder = make_column_transformer((ONE_HOT, ["plan"]), (StandardScaler(), ["age"]))
    model = make_pipeline(encoder, LogisticRegression()).fit(ROWS, TARGET)
    _, fields = packed(model, ROWS, tmp_path, fields={"balance": {"minimum": -10}})
    assert list(fields) == ["age", "plan", "balance"]


def test_a_column_that_own_steps_may_read_stays(tmp_path: Path) -> None:
    first = FunctionTransformer(pd.DataFrame.drop, kw_args={"columns": ["customer_id"]})
    encoder = make_column_transformer((ONE_HOT, ["plan"]), remainder="passthrough")
    model = make_pipeline(first, encoder, LogisticRegression()).fit(ROWS, TARGET)
    _, fields = packed(model, ROWS, tmp_path)
    assert "customer_id" in fields


def _branch() -> Any:
    encoder = make_column_transformer((ONE_HOT, ["plan"]), (StandardScaler(), ["age"]))
    return make_pipeline(encoder, LogisticRegression())


@pytest.mark.parametrize(
    "model",
    [
        VotingClassifier([("a", _branch()), ("b", _branch())], voting="soft"),
        StackingClassifier([("a", _branch()), ("b", _branch())], cv=2),
        FixedThresholdClassifier(_branch(), threshold=0.3),
    ],
    ids=["voting", "stacking", "threshold"],
)
@pytest.mark.slow
def test_encoders_inside_other_estimators_are_seen(model: Any, tmp_path: Path) -> None:
    loaded, fields = packed(model.fit(ROWS, TARGET), ROWS, tmp_path)
    assert fields["plan"].unseen == "other"
    assert list(fields) == ["age", "plan"]
    new = pd.DataFrame({"age": [30, 70], "plan": ["gold", "silver"]})
    full = new.assign(customer_id="x", balance=0.0)
    assert [row["label"] for row in loaded.predict(new)] == model.predict(full).tolist()


@pytest.mark.slow
def test_what_an_imputer_fills_may_be_missing(tmp_path: Path) -> None:
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), ONE_HOT)
    encoder = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age"]), (words, ["plan"]), (StandardScaler(), ["balance"])
    )
    model = make_pipeline(encoder, LogisticRegression()).fit(ROWS, TARGET)
    loaded, fields = packed(model, ROWS, tmp_path)
    assert loaded.manifest.engine == "onnx"
    assert {name: field.nullable for name, field in fields.items()} == {"age": True, "plan": True, "balance": False}
    gaps = pd.DataFrame({"age": [np.nan, 30.0], "plan": ["pro", np.nan], "balance": [0.5, 0.5]})
    ours = [row["probabilities"]["1"] for row in loaded.predict(gaps)]
    assert ours == pytest.approx(model.predict_proba(gaps.assign(customer_id="x"))[:, 1], abs=1e-12)
    with pytest.raises(BadInput, match="balance"):
        loaded.predict({"age": 30, "plan": "pro", "balance": None})
    _, strict = packed(model, ROWS, tmp_path, fields={"age": {"nullable": False}})
    assert not strict["age"].nullable


def test_a_column_that_is_read_without_the_imputer_too_is_required(tmp_path: Path) -> None:
    encoder = make_column_transformer((SimpleImputer(), ["age"]), (StandardScaler(), ["age", "balance"]))
    model = make_pipeline(encoder, LogisticRegression()).fit(ROWS, TARGET)
    _, fields = packed(model, ROWS, tmp_path)
    assert not fields["age"].nullable


def test_a_column_whose_words_a_vectorizer_reads_is_text(tmp_path: Path) -> None:
    texts = pd.DataFrame({"review": RANDOM.choice(["good film", "bad film", "awful acting", "great fun"], 200)})
    good = texts.review.isin(["good film", "great fun"])
    model = make_pipeline(make_column_transformer((TfidfVectorizer(), "review")), LogisticRegression()).fit(texts, good)
    result = estiba.pack(model, texts, name="t", registry=tmp_path)
    loaded = estiba.load(result.ref, registry=tmp_path, trust=True)
    assert loaded.signature.field("review").kind == "text"
    (answer,) = loaded.predict({"review": "great film"})
    expected = model.predict_proba(pd.DataFrame({"review": ["great film"]}))[0, 1]
    assert answer["probabilities"]["True"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("encoder", [ONE_HOT, OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=2)])
def test_levels_that_only_some_members_of_a_calibrated_model_know(encoder: Any, tmp_path: Path) -> None:
    """A level of one row is in all folds but one, where the encoder takes it for unseen."""
    sample = ROWS[["age", "plan"]].assign(plan=ROWS.plan.where(ROWS.index % 97 > 0, "founder"))
    sample.loc[5, "plan"] = "only one"
    inner = make_pipeline(make_column_transformer((encoder, ["plan"]), remainder="passthrough"), LogisticRegression())
    model = CalibratedClassifierCV(inner, cv=3).fit(sample, TARGET)
    loaded, fields = packed(model, sample, tmp_path)
    assert set(fields["plan"].levels) == {"basic", "pro", "founder", "only one"}
    assert fields["plan"].unseen == "other"
    assert loaded.manifest.engine == "onnx"
    asked = sample.tail(20).assign(plan=["only one", "founder", "nobody", "pro"] * 5)
    ours = [row["probabilities"]["1"] for row in loaded.predict(asked)]
    assert ours == pytest.approx(model.predict_proba(asked)[:, 1], abs=1e-12)
