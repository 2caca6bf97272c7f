"""Functions and objects with a `predict` of the user's own as models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import estiba
from estiba.core.errors import BadProject, EstibaError

pytestmark = pytest.mark.slow

ROWS = pd.DataFrame({"age": np.arange(18, 58), "balance": np.linspace(-5, 40, 40), "plan": ["basic", "plus"] * 20})
LINE = LinearRegression().fit(ROWS[["age"]], ROWS["balance"])


def models() -> dict[str, Any]:  # noqa: C901 - one small model after the other
    """By name, models that are defined inside a function: they go by value, and need no process of their own."""

    def array(frame: pd.DataFrame) -> Any:
        return frame["age"].to_numpy() * 2.5

    def series(frame: pd.DataFrame) -> Any:
        return (frame["balance"] + LINE.predict(frame[["age"]])).rename("expected")

    def table(frame: pd.DataFrame) -> Any:
        return pd.DataFrame({"low": frame["balance"] - 1, "high": frame["balance"] + frame["age"]})

    def dicts(frame: pd.DataFrame) -> Any:
        return [{"low": b - 1, "high": b + a} for a, b in zip(frame["age"], frame["balance"], strict=True)]

    def matrix(frame: pd.DataFrame) -> Any:
        return np.column_stack([frame["age"], frame["balance"]])

    def mixed(frame: pd.DataFrame) -> Any:
        late = np.where(frame["age"] > 50, "late", "early")
        return pd.DataFrame(
            {"half": frame["balance"] / 2, "when": pd.Categorical(late), "plus": frame["plan"] == "plus"}
        )

    def pairs(frame: pd.DataFrame) -> Any:
        return np.column_stack([(frame["age"] / 2).astype(object), np.where(frame["age"] > 50, "late", "early")])

    def words(frame: pd.DataFrame) -> Any:
        return np.where(frame["balance"] < 0, "overdrawn", np.where(frame["plan"] == "plus", "good", "plain"))

    def yes_or_no(frame: pd.DataFrame) -> Any:
        return frame["balance"] > 10

    class Scorer:
        """An object with a `predict`, of no library."""

        def __init__(self, factor: float) -> None:
            self.factor = factor

        def predict(self, frame: pd.DataFrame) -> Any:
            return frame["age"].to_numpy() * self.factor

    class Caller:
        def __call__(self, frame: pd.DataFrame) -> Any:
            return frame["age"].to_numpy() + 1

    return {**locals(), "object": Scorer(1.5), "callable": Caller(), "method": Scorer(2.0).predict}


MODELS = models()
Expected = Callable[[pd.DataFrame], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("array", lambda f: [{"value": v} for v in MODELS["array"](f)]),
        ("series", lambda f: [{"expected": v} for v in MODELS["series"](f)]),
        ("table", lambda f: MODELS["table"](f).to_dict("records")),
        ("dicts", MODELS["dicts"]),
        ("matrix", lambda f: [{"value0": a, "value1": b} for a, b in MODELS["matrix"](f)]),
        ("mixed", lambda f: MODELS["mixed"](f).to_dict("records")),
        ("pairs", lambda f: [{"value0": a, "value1": b} for a, b in MODELS["pairs"](f)]),
        ("words", lambda f: [{"label": v} for v in MODELS["words"](f)]),
        ("yes_or_no", lambda f: [{"label": bool(v)} for v in MODELS["yes_or_no"](f)]),
        ("object", lambda f: [{"value": v} for v in f["age"] * 1.5]),
        ("callable", lambda f: [{"value": v} for v in f["age"] + 1]),
        ("method", lambda f: [{"value": v} for v in f["age"] * 2.0]),
    ],
)
def test_any_callable_and_any_predict_answers_as_itself(name: str, expected: Expected, tmp_path: Path) -> None:
    packed = estiba.pack(MODELS[name], ROWS, name="own", registry=tmp_path)
    assert packed.artifact.manifest.engine == "python"
    loaded = estiba.load("own", registry=tmp_path, trust=True)
    asked = ROWS.sample(15, random_state=1)
    assert loaded.predict(asked) == expected(asked)
    loaded.engine.close()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda f: f["nothing"], "The model fails on its own sample: KeyError: 'nothing'"),
        (lambda f: [1.0, 2.0], r"answers \(2,\) for 40 rows"),
        (lambda f: 1.0, r"answers \(\) for 40 rows"),
        (lambda f: ["same"] * len(f), "1 different labels on the sample"),
        (lambda f: [object()] * len(f), "which is no label"),
        (lambda f: ["old" if age > 30 else None for age in f["age"]], "answers None, which is no label"),
        (lambda f: f[["age", "age"]], "two columns 'age'"),
        (lambda f: f[["plan", "plan"]], "two columns 'plan'"),
        (lambda f: f.assign(why=[f"because {a}" for a in f["age"]]), "'why' is another text for nearly every row"),
        (lambda f: f.assign(plan="basic"), "The output 'plan' answers 1 different labels on the sample"),
        (lambda f: f.assign(plan=f["plan"].where(f["age"] > 20)), "The output 'plan' answers nan, which is no label"),
        (lambda f: np.ones((len(f), 2 + (len(f) == 1))), "has 3 columns, and it had 2 when it was packed"),
        (lambda f: [{"a": 1}] + [{"b": 1}] * 39, r"different keys: \['a'\], and in row 1 \['b'\]"),
        (MODELS["Scorer"], "Scorer is a class"),
    ],
)
def test_what_is_no_answer_is_refused_with_the_reason(model: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(EstibaError, match=message):
        estiba.pack(model, ROWS, name="own", registry=tmp_path)


def test_a_label_that_the_sample_has_not_shown_may_be_stated(tmp_path: Path) -> None:
    def rate(frame: pd.DataFrame) -> Any:
        return ["old" if age > 60 else "adult" if age > 30 else "young" for age in frame["age"]]

    older = {"age": 70, "balance": 1.0, "plan": "plus"}
    estiba.pack(rate, ROWS, name="rate", registry=tmp_path)
    with pytest.raises(EstibaError, match="answers 'old', which it answered on no row of the sample"):
        estiba.load("rate", registry=tmp_path, trust=True).predict(older)
    rate.classes_ = ["young", "adult", "old"]  # type: ignore[attr-defined]
    estiba.pack(rate, ROWS, name="rate", registry=tmp_path)
    assert estiba.load("rate", registry=tmp_path, trust=True).predict(older) == [{"label": "old"}]


def test_a_label_of_several_outputs_is_one_that_the_sample_showed(tmp_path: Path) -> None:
    def rate(frame: pd.DataFrame) -> Any:
        return {"twice": frame["age"] * 2, "rate": ["old" if age > 60 else "young" for age in frame["age"]]}

    older = {"age": 70, "balance": 1.0, "plan": "plus"}
    shown = ROWS.assign(age=ROWS["age"] + 20)
    estiba.pack(rate, shown, name="rate", registry=tmp_path)
    assert estiba.load("rate", registry=tmp_path, trust=True).predict(older) == [{"twice": 140.0, "rate": "old"}]
    with pytest.raises(EstibaError, match="The output 'rate' answers 1 different labels"):
        estiba.pack(rate, ROWS, name="rate", registry=tmp_path)
    estiba.pack(MODELS["pairs"], ROWS, name="own", registry=tmp_path, outputs={"names": ["half", "when"]})
    assert estiba.load("own", registry=tmp_path, trust=True).predict(older) == [{"half": 35.0, "when": "late"}]


def test_answers_that_depend_on_the_other_rows_are_noted(tmp_path: Path) -> None:
    packed = estiba.pack(lambda f: f["balance"].rank(), ROWS, name="rank", registry=tmp_path)
    assert "differently alone and together with others" in packed.report
    assert "differently" not in estiba.pack(MODELS["matrix"], ROWS, name="own", registry=tmp_path).report


def test_values_without_names_get_those_of_the_settings(tmp_path: Path) -> None:
    estiba.pack(MODELS["matrix"], ROWS, name="own", registry=tmp_path, outputs={"names": ["years", "euros"]})
    loaded = estiba.load("own", registry=tmp_path, trust=True)
    assert loaded.predict(ROWS[:1]) == [{"years": 18.0, "euros": -5.0}]
    with pytest.raises(BadProject, match="the model names them itself: low, high"):
        estiba.pack(MODELS["table"], ROWS, name="own", registry=tmp_path, outputs={"names": ["a", "b"]})
