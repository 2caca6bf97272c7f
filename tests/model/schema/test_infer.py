"""Signatures from samples and from what estimators know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from estiba.core.errors import BadProject
from estiba.model.schema.infer import FieldOptions, infer
from estiba.model.schema.signature import Field, Head, Outputs

HEAD = Head(kind="probabilities", classes=(0, 1))


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": [20, 30, 40, 50],
            "plan": ["b", "a", "b", "a"],
            "balance": [1.5, np.nan, 3.0, 4.0],
            "active": [True, False, True, True],
            "region": pd.Categorical(["x", "y", "x", "y"], categories=["y", "x", "z"]),
            "since": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]),
            "note": ["it was fine", "not at all", "good", "bad service"],
            "kids": [0, 1, 2, 1],
        }
    )


def fields(**options: Any) -> dict[str, Field]:
    return {f.name: f for f in infer(object(), frame(), HEAD, **options).fields}


def test_kinds_and_order_come_from_the_sample() -> None:
    found = fields()
    assert list(found) == list(frame().columns)
    kinds = [field.kind for field in found.values()]
    assert kinds == ["integer", "category", "number", "boolean", "category", "timestamp", "text", "integer"]


def test_missing_values_observed_ranges_and_examples() -> None:
    found = fields()
    assert [name for name, field in found.items() if field.nullable] == ["balance"]
    assert found["age"].observed == (20.0, 50.0)
    assert found["balance"].observed == (1.5, 4.0)
    assert found["age"].example == 20
    assert found["active"].example is True
    assert found["since"].example == "2026-01-01T00:00:00"


def test_levels_keep_pandas_order_and_strings_are_sorted() -> None:
    found = fields()
    assert found["region"].levels == ("y", "x", "z")
    assert found["plan"].levels == ("a", "b")


@pytest.mark.parametrize(("handle", "unseen"), [("error", "error"), ("ignore", "other")])
def test_an_encoder_inside_the_estimator_knows_better(handle: str, unseen: str) -> None:
    sample = frame()[["age", "plan", "kids"]]
    encoder = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown=handle))
    steps = make_column_transformer((StandardScaler(), ["age"]), (encoder, ["plan", "kids"]))
    model = make_pipeline(steps, LogisticRegression()).fit(sample, [0, 1, 0, 1])
    found = {f.name: f for f in infer(model, sample, HEAD).fields}
    assert found["age"].kind == "integer"
    assert found["kids"].kind == "category"
    assert found["kids"].levels == (0, 1, 2)
    assert found["plan"].unseen == found["kids"].unseen == unseen


def test_the_user_overrides_anything() -> None:
    found = fields(
        fields={
            "age": FieldOptions(minimum=18, maximum=100, description="in years"),
            "plan": FieldOptions(levels=("b", "a", "c"), unseen="null", nullable=True),
            "kids": FieldOptions(kind="number"),
        }
    )
    assert (found["age"].minimum, found["age"].maximum) == (18, 100)
    assert found["plan"].levels == ("b", "a", "c")
    assert found["kids"].kind == "number"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agee": FieldOptions(minimum=1)}, "no field 'agee'"),
        ({"note": FieldOptions(kind="number")}, "cannot become number"),
        ({"age": FieldOptions(minimum=5, maximum=1)}, "minimum 5 above maximum 1"),
        ({"plan": FieldOptions(unseen="null")}, "may not be missing"),
        ({"plan": FieldOptions(levels=())}, "has no levels"),
    ],
)
def test_an_override_that_cannot_be_is_a_sentence(options: dict[str, FieldOptions], message: str) -> None:
    with pytest.raises(BadProject, match=message):
        fields(fields=options)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"positive": 7}, "which is not a class of this model"),
        ({"bands": {"risk": {"edges": [0.5, 0.1], "labels": ["a", "b", "c"]}}}, "rising edges"),
        ({"bands": {"risk": {"edges": [0.5], "labels": ["a"]}}}, "one label more than edges"),
    ],
)
def test_outputs_that_contradict_the_model_are_refused(outputs: dict[str, Any], message: str) -> None:
    import msgspec

    with pytest.raises(BadProject, match=message):
        fields(outputs=msgspec.convert(outputs, Outputs))


def test_a_column_of_mixed_types_is_refused_by_name() -> None:
    with pytest.raises(BadProject, match="'odd' mixes values"):
        infer(object(), pd.DataFrame({"odd": ["a", 1, 2.5]}), HEAD)
