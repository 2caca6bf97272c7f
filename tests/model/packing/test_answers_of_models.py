"""Models with several outputs, quantiles or clusters answer as the original does, on rows outside the sample."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from output_cases import CASES, HELD_OUT, KINDS, LABELS, NUMBERS, SAMPLE
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import estiba
from estiba.core.errors import BadProject, ParityError
from estiba.model.schema.signature import Band

pytestmark = pytest.mark.slow


def close(found: Any, expected: Any) -> bool:
    """Equal members, labels and words, and numbers within the tolerance of the proof."""
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, float) or isinstance(found, float):
        return math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-6)
    return type(found) is type(expected) and found == expected


CONVERTED = """
forest of two classifications|forest of labels|extra trees|tree|extra tree|scaled forest|MultiOutputClassifier|
MultiOutputClassifier of forests|MultiOutputClassifier of labels alone|OneVsRest of labels|OneVsRest of trees|
OneVsRest of scores|ClassifierChain|ClassifierChain in an order|RegressorChain|RegressorChain in an order|
MultiOutputRegressor|MultiOutputRegressor of boosters|forest of values|linear of values|XGBoost of values|
XGBoost of quantiles|CatBoost MultiRMSE|KMeans|scaled KMeans|MiniBatchKMeans|AffinityPropagation|MeanShift|
RidgeClassifier of labels|perceptron of labels|XGBoost of labels|CatBoost of labels|CatBoost MultiQuantile|
CatBoost RMSEWithUncertainty
"""
"""Cases that the onnx engine answers."""


@pytest.mark.parametrize("name", CASES)
def test_it_answers_as_the_original(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = case.fit()
    y = None if case.target is None else case.target[: len(SAMPLE)]
    packed = estiba.pack(model, SAMPLE, name="m", y=y, registry=tmp_path)
    loaded = estiba.load("m", registry=tmp_path, trust=True)
    found, expected = loaded.predict(HELD_OUT), case.expected(model, HELD_OUT)
    differing = [(a, b) for a, b in zip(found, expected, strict=True) if not close(a, b)]
    assert not differing, differing[:2]
    manifest = packed.artifact.manifest
    assert manifest.parity is not None
    if name in [each.strip() for each in CONVERTED.split("|")]:
        assert (manifest.engine, manifest.reason) == ("onnx", "")
        single = 1.2e-7 if name.startswith("XGBoost") else 1e-12  # XGBoost computes in single precision
        assert max(manifest.parity.max_abs_error.values(), default=0.0) < single
        assert manifest.parity.labels_equal == manifest.parity.labels_total


def test_a_table_of_answers_has_the_same_values(tmp_path: Path) -> None:
    model = CASES["forest of two classifications"].fit()
    estiba.pack(model, SAMPLE, name="m", y=KINDS[: len(SAMPLE)], registry=tmp_path)
    loaded = estiba.load("m", registry=tmp_path, trust=True)
    coded = loaded.coder.check(HELD_OUT.to_dict("records"))
    columns = loaded.predictions.columns(loaded.answer(coded))
    assert list(columns)[:3] == ["size.label", "size.probabilities.big", "size.probabilities.small"]
    said = model.predict(HELD_OUT)
    assert columns["size.label"].tolist() == said[:, 0].tolist()
    assert columns["colour.label"].tolist() == said[:, 1].tolist()
    red = list(model.classes_[1]).index("red")
    assert np.allclose(columns["colour.probabilities.red"], model.predict_proba(HELD_OUT)[1][:, red], atol=1e-9)


def test_names_come_from_the_settings_before_the_target(tmp_path: Path) -> None:
    model = RandomForestClassifier(3, random_state=0).fit(SAMPLE, LABELS[: len(SAMPLE)])
    plain = estiba.pack(model, SAMPLE, name="plain", registry=tmp_path)
    assert [h.name for h in plain.artifact.manifest.signature.head.heads] == ["output0", "output1", "output2"]
    options = {"names": ["x", "y", "z"]}
    estiba.pack(model, SAMPLE, name="m", y=LABELS[: len(SAMPLE)], outputs=options, registry=tmp_path)
    assert list(estiba.load("m", registry=tmp_path, trust=True).predict(HELD_OUT[:1])[0]) == ["x", "y", "z"]
    regression = LinearRegression().fit(SAMPLE, NUMBERS[: len(SAMPLE)])
    estiba.pack(regression, SAMPLE, name="r", outputs={"names": ["p", "s"]}, registry=tmp_path)
    assert list(estiba.load("r", registry=tmp_path).predict(HELD_OUT[:1])[0]) == ["p", "s"]


def test_the_name_of_a_single_target_is_kept_and_its_answer_is_called_as_before(tmp_path: Path) -> None:
    model = LinearRegression().fit(SAMPLE, NUMBERS["price"][: len(SAMPLE)])
    packed = estiba.pack(model, SAMPLE, name="m", y=NUMBERS["price"][: len(SAMPLE)], registry=tmp_path)
    assert packed.artifact.manifest.signature.head.name == "price"
    assert list(estiba.load("m", registry=tmp_path).predict(HELD_OUT[:1])[0]) == ["value"]


def test_settings_for_all_outputs_and_for_one(tmp_path: Path) -> None:
    model = RandomForestClassifier(20, random_state=0).fit(SAMPLE, LABELS[: len(SAMPLE)])
    outputs = {
        "threshold": 0.3,
        "probability": "share",
        "probabilities": "",
        "each": {
            "art": {"threshold": 0.8, "label": "chosen"},
            "law": {"label": "", "bands": {"risk": Band((0.5,), ("low", "high"))}},
        },
    }
    estiba.pack(model, SAMPLE, name="m", y=LABELS[: len(SAMPLE)], outputs=outputs, registry=tmp_path)
    found = estiba.load("m", registry=tmp_path, trust=True).predict(HELD_OUT)
    sport, art, law = (shares[:, 1] for shares in model.predict_proba(HELD_OUT))
    assert [row["sport"] for row in found] == [{"label": int(p >= 0.3), "share": pytest.approx(p)} for p in sport]
    assert [row["art"] for row in found] == [{"chosen": int(p >= 0.8), "share": pytest.approx(p)} for p in art]
    words = ["high" if p >= 0.5 else "low" for p in law]
    pairs = zip(law, words, strict=True)
    assert [row["law"] for row in found] == [{"share": pytest.approx(p), "risk": w} for p, w in pairs]


def test_an_output_with_one_part_is_that_part(tmp_path: Path) -> None:
    model = RandomForestClassifier(5, random_state=0).fit(SAMPLE, KINDS[: len(SAMPLE)])
    outputs = {"probabilities": "", "each": {"colour": {"label": "", "probabilities": "p"}}}
    estiba.pack(model, SAMPLE, name="m", y=KINDS[: len(SAMPLE)], outputs=outputs, registry=tmp_path)
    loaded = estiba.load("m", registry=tmp_path, trust=True)
    first = loaded.predict(HELD_OUT[:1])[0]
    shares = dict(zip(model.classes_[1], map(float, model.predict_proba(HELD_OUT[:1])[1][0]), strict=True))
    assert first == {"size": model.predict(HELD_OUT[:1])[0][0], "colour": pytest.approx(shares)}
    columns = loaded.predictions.columns(loaded.answer(loaded.coder.check(HELD_OUT[:1].to_dict("records"))))
    assert list(columns) == ["size", "colour.blue", "colour.green", "colour.red"]


def test_bands_for_one_of_several_values(tmp_path: Path) -> None:
    model = LinearRegression().fit(SAMPLE, NUMBERS[: len(SAMPLE)])
    outputs = {"each": {"stock": {"bands": {"state": Band((0.0,), ("short", "enough"))}}}}
    estiba.pack(model, SAMPLE, name="m", y=NUMBERS[: len(SAMPLE)], outputs=outputs, registry=tmp_path)
    found = estiba.load("m", registry=tmp_path).predict(HELD_OUT)
    expected = model.predict(HELD_OUT)
    assert [row["price"] for row in found] == pytest.approx(expected[:, 0])
    assert [row["stock"]["state"] for row in found] == ["enough" if v >= 0 else "short" for v in expected[:, 1]]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"each": {"colours": {"label": "x"}}}, r"outputs.each.colours: .* its outputs are: size, colour"),
        ({"threshold": 0.4}, "positive class for the output 'colour'"),
        ({"positive": "red"}, "'red' for the output 'size', which is not a class"),
        ({"each": {"colour": {"bands": {"b": Band((0.5,), ("l", "h"))}}}}, "positive class .* the output 'colour'"),
        ({"names": ["one"]}, "1 names for outputs .* the model has 2"),
        ({"names": ["one", "one"]}, "Two outputs of the model are called 'one'"),
        (
            {"names": ["a", "a.label"], "each": {"a.label": {"probabilities": ""}}},
            "Two outputs of the model have a part called 'a.label'",
        ),
        ({"label": "", "probabilities": ""}, "nothing to show for the output 'size'"),
    ],
)
def test_settings_that_do_not_fit_an_output_are_refused(outputs: dict[str, Any], words: str, tmp_path: Path) -> None:
    model = RandomForestClassifier(2, random_state=0).fit(SAMPLE, KINDS[: len(SAMPLE)])
    with pytest.raises(BadProject, match=words):
        estiba.pack(model, SAMPLE, name="m", y=KINDS[: len(SAMPLE)], outputs=outputs, registry=tmp_path)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"names": ["x"]}, "names is for a model of several outputs"),
        ({"each": {"x": {}}}, "it has one, without a name"),
    ],
)
def test_settings_for_several_outputs_need_several(outputs: dict[str, Any], words: str, tmp_path: Path) -> None:
    model = LogisticRegression().fit(SAMPLE, LABELS["art"][: len(SAMPLE)])
    with pytest.raises(BadProject, match=words):
        estiba.pack(model, SAMPLE, name="m", outputs=outputs, registry=tmp_path)


def test_an_output_with_one_class_says_its_label(tmp_path: Path) -> None:
    target = KINDS[: len(SAMPLE)].assign(size="big")
    model = RandomForestClassifier(3, random_state=0).fit(SAMPLE, target)
    estiba.pack(model, SAMPLE, name="m", y=target, registry=tmp_path)
    first = estiba.load("m", registry=tmp_path, trust=True).predict(HELD_OUT[:1])[0]
    assert first["size"] == "big"
    assert set(first["colour"]) == {"label", "probabilities"}


def test_a_booster_that_says_the_class(tmp_path: Path) -> None:
    import xgboost

    target = LABELS.sum(axis=1)[: len(SAMPLE)]
    options = {"objective": "multi:softmax", "num_class": 4}
    model = xgboost.train(options, xgboost.DMatrix(SAMPLE, target), 10)
    packed = estiba.pack(model, SAMPLE, name="m", registry=tmp_path)
    said = model.predict(xgboost.DMatrix(HELD_OUT)).astype(int).tolist()
    assert [row["label"] for row in estiba.load("m", registry=tmp_path).predict(HELD_OUT)] == said
    assert packed.artifact.manifest.engine == "onnx"


def logistic_loss(target: Any, raw: Any) -> tuple[Any, Any]:
    share = 1 / (1 + np.exp(-raw))
    return share - target, share * (1 - share)


def test_a_lightgbm_with_an_own_objective_answers_its_raw_value(tmp_path: Path) -> None:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=10, objective=logistic_loss, verbose=-1)
    model.fit(SAMPLE, LABELS["art"][: len(SAMPLE)])
    for name, each in (("wrapper", model), ("booster", model.booster_)):
        packed = estiba.pack(each, SAMPLE, name=name, registry=tmp_path)
        found = estiba.load(name, registry=tmp_path).predict(HELD_OUT)
        assert [row["value"] for row in found] == pytest.approx(model.booster_.predict(HELD_OUT))
        assert packed.artifact.manifest.engine == "onnx"


def test_stacking_of_labels_says_the_labels(tmp_path: Path) -> None:
    from sklearn.ensemble import StackingClassifier
    from sklearn.neighbors import KNeighborsClassifier

    members = [("f", RandomForestClassifier(3, random_state=0)), ("k", KNeighborsClassifier())]
    model = StackingClassifier(members, RandomForestClassifier(3, random_state=0))
    model.fit(SAMPLE, LABELS[: len(SAMPLE)].to_numpy())
    estiba.pack(model, SAMPLE, name="m", y=LABELS, registry=tmp_path)
    found = estiba.load("m", registry=tmp_path, trust=True).predict(HELD_OUT)
    assert [list(row.values()) for row in found] == model.predict(HELD_OUT).tolist()


def test_a_sample_that_the_model_does_not_take(tmp_path: Path) -> None:
    model = LogisticRegression().fit(SAMPLE, LABELS["art"][: len(SAMPLE)])
    with pytest.raises(BadProject, match="fails on its own sample"):
        estiba.pack(model, pd.DataFrame({"q": [1.0, 2.0]}), name="m", registry=tmp_path)


def test_a_threshold_of_one_of_several_outputs_decides(tmp_path: Path) -> None:
    model = MultiOutputClassifier(LogisticRegression()).fit(SAMPLE, LABELS[: len(SAMPLE)])
    outputs = {"each": {"sport": {"threshold": 0.1}}}
    estiba.pack(model, SAMPLE, name="m", y=LABELS[: len(SAMPLE)], outputs=outputs, registry=tmp_path)
    found = estiba.load("m", registry=tmp_path, trust=True).predict(HELD_OUT)
    own, chosen = model.predict(HELD_OUT), model.predict_proba(HELD_OUT)[0][:, 1] >= 0.1
    assert chosen.sum() > own[:, 0].sum()
    assert [row["sport"]["label"] for row in found] == chosen.astype(int).tolist()
    assert [row["art"]["label"] for row in found] == own[:, 1].tolist()


def test_a_vote_behind_other_steps_has_the_votes_as_its_scores(tmp_path: Path) -> None:
    members = [("line", LogisticRegression()), ("bayes", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=2))]
    vote = VotingClassifier(members, weights=[2, 1, 1])
    model = make_pipeline(StandardScaler(), vote).fit(SAMPLE, KINDS["colour"][: len(SAMPLE)])
    packed = estiba.pack(model, SAMPLE, name="m", registry=tmp_path)
    assert (packed.artifact.manifest.engine, packed.artifact.manifest.reason) == ("onnx", "")
    found = estiba.load("m", registry=tmp_path).predict(HELD_OUT)
    assert [row["label"] for row in found] == model.predict(HELD_OUT).tolist()
    assert all(sum(row["score"].values()) == 4 for row in found)


def test_a_model_that_answers_at_random_is_refused_as_such(tmp_path: Path) -> None:
    model = DummyClassifier(strategy="stratified").fit(SAMPLE, KINDS["colour"][: len(SAMPLE)])
    with pytest.raises(ParityError, match="the same rows of the sample differently when it is asked again"):
        estiba.pack(model, SAMPLE, name="m", registry=tmp_path)
