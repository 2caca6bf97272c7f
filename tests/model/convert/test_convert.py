"""Every model of the conversion matrix answers as its original on hard rows, or says why it is not converted."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conversion_cases import Case, cases, frame, prepared, target
from conversion_check import coded_rows, fields_of, judge, run

from estiba.model.coding.coder import Coded, Coder
from estiba.model.convert import Converted, NotConvertible, convert
from estiba.model.convert.graph import Graph
from estiba.model.convert.trees import Tree, constant, scalar_sum
from estiba.model.engines.exact import ExactEngine
from estiba.model.estimators.estimator_facts import NoAnswer
from estiba.model.estimators.outputs import answer, head_of
from estiba.model.schema.signature import Field, Signature

pytestmark = pytest.mark.slow

PYTHON = (
    "CatBoost(statistics)",
    "KNNImputer(distance)",
    "SVC(probability)",
    "GaussianProcess",
    "A function of the user's own on a number",
)
"""Cases that are not converted: the original estimator answers."""

TOLERANCE = 1e-12
SINGLE = 1.2e-7
"""XGBoost answers in float32."""


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_every_case_answers_as_its_original(case: Case) -> None:
    verdict = judge(case)
    if case.name.startswith(PYTHON):
        assert verdict.engine == "python"
        assert verdict.reason
        return
    assert verdict.engine == "onnx", verdict.reason
    assert verdict.difference <= (SINGLE if "XGBoost" in case.name else TOLERANCE)
    ties = 5 if case.name == "SVC, 3 classes" else 0
    assert not verdict.labels or verdict.agree >= verdict.rows - ties


def compare(model: Any, sample: pd.DataFrame, *, missing: bool = False, unseen: bool = False) -> float:
    """Converts and compares; the largest difference."""
    fields = fields_of(sample, missing, unseen)
    converted = convert(model, fields, sample)
    matrix = coded_rows(sample, fields, converted)
    rows = Coder(Signature(fields=fields, head=converted.head)).frame(Coded(matrix))
    return float(np.abs(run(converted.onnx, matrix) - answer(model, rows, converted.head)).max())


def forest_pipeline() -> tuple[Any, pd.DataFrame]:
    from sklearn.ensemble import RandomForestClassifier

    sample = frame("mixed", missing=True)
    return prepared(RandomForestClassifier(5, random_state=1)).fit(sample, target(sample, 2)), sample


def test_the_same_model_gives_the_same_bytes() -> None:
    model, sample = forest_pipeline()
    fields = fields_of(sample, missing=True, unseen=True)
    assert convert(model, fields, sample).onnx == convert(model, fields, sample).onnx


def test_the_file_passes_the_checker_and_has_the_contracted_ends() -> None:
    import onnx

    model, sample = forest_pipeline()
    made = onnx.load_from_string(convert(model, fields_of(sample, True, True), sample).onnx)
    onnx.checker.check_model(made)
    assert [i.name for i in made.graph.input] == ["x"]
    assert [o.name for o in made.graph.output] == ["y"]
    assert made.ir_version == 10


def test_text_is_left_to_python() -> None:
    model, sample = forest_pipeline()
    given = fields_of(sample, True, True)
    fields = [Field(name=f.name, kind="text", dtype="object") if f.name == "country" else f for f in given]
    with pytest.raises(NotConvertible, match="'country' is a text"):
        convert(model, fields, sample)


class Constant:
    """A model of the user's own."""

    classes_ = np.asarray([0, 1])

    def fit(self, rows: Any, wanted: Any = None) -> Constant:
        return self

    def predict(self, rows: Any) -> Any:
        return np.zeros(len(rows))


def test_a_class_of_the_users_own_is_left_to_python() -> None:
    sample = frame("mixed", missing=False)
    with pytest.raises(NotConvertible, match="Constant is a class of the user's own"):
        convert(Constant(), fields_of(sample, False, False), sample)


def test_a_model_fitted_on_an_array() -> None:
    from sklearn.ensemble import GradientBoostingRegressor

    sample = frame("numbers", missing=False)
    model = GradientBoostingRegressor(n_estimators=5).fit(sample.to_numpy(), target(sample, 0))
    assert compare(model, sample) == 0


def test_columns_in_another_order_than_in_training() -> None:
    model, sample = forest_pipeline()
    turned = sample[sample.columns[::-1]]
    assert compare(model, turned, missing=True, unseen=True) < TOLERANCE


def test_whole_numbers_and_booleans_through_encoders() -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, TargetEncoder

    sample = frame("mixed", missing=False)[["age", "products", "active"]]
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["products", "active"]), (TargetEncoder(), ["age"])
    )
    model = make_pipeline(encode, LogisticRegression()).fit(sample, target(sample, 2))
    assert compare(model, sample) < TOLERANCE


def test_xgboost_rounds_a_number_before_it_is_taken_for_missing() -> None:
    import xgboost

    sample = frame("numbers", missing=False)
    sample.loc[::5, "a"] = -999.0
    model = xgboost.XGBRegressor(n_estimators=5, missing=-999, n_jobs=1).fit(sample, target(sample, 0))
    probes = sample.head(4).copy()
    probes["a"] = [-999.0, -998.9999999999999, -999.0000000001, -998.99]
    made = convert(model, fields_of(sample, False, False), sample)
    assert run(made.onnx, probes.to_numpy())[:, 0].tolist() == model.predict(probes).tolist()


@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting'")  # category_encoders still sets it
def test_an_encoder_of_another_library_says_what_it_is_and_what_converts() -> None:
    from category_encoders import OrdinalEncoder
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    sample = frame("mixed", missing=False)[["age", "country"]]
    fields, wanted = fields_of(sample, False, False), target(sample, 2)
    mixed = make_pipeline(OrdinalEncoder(cols=["country"]), LogisticRegression()).fit(sample, wanted)
    with pytest.raises(NotConvertible, match=r"category_encoders' OrdinalEncoder reads columns of numbers.*alone it"):
        convert(mixed, fields, sample)
    alone = make_column_transformer((OrdinalEncoder(), ["country"]), remainder="passthrough")
    assert compare(make_pipeline(alone, LogisticRegression(max_iter=300)).fit(sample, wanted), sample) < TOLERANCE


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("extrapolation", ["constant", "linear", "continue"])
def test_splines_beyond_their_knots_and_on_them(degree: int, extrapolation: str) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer

    sample = frame("numbers", missing=False)[["a"]]
    splines = SplineTransformer(n_knots=5, degree=degree, extrapolation=extrapolation)
    model = make_pipeline(splines, Ridge()).fit(sample, target(frame("numbers", missing=False), 0))
    made = convert(model, fields_of(sample, False, False), sample)
    knots = splines.bsplines_[0].t
    probes = np.concatenate(
        [knots, np.nextafter(knots, -np.inf), np.nextafter(knots, np.inf), np.linspace(-20, 20, 999)]
    )
    expected = model.predict(pd.DataFrame({"a": probes}))
    assert run(made.onnx, probes[:, None])[:, 0] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_the_same_transformers_in_the_kernel_and_in_onnx_runtime() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import PowerTransformer, QuantileTransformer, SplineTransformer

    sample = frame("numbers", missing=False)
    bent = make_union(PowerTransformer(), QuantileTransformer(n_quantiles=40), SplineTransformer())
    model = make_pipeline(bent, LogisticRegression(max_iter=500)).fit(sample, target(sample, 2))
    fields = fields_of(sample, False, False)
    made = convert(model, fields, sample)
    kernel = ExactEngine(made.onnx, fields, made.head.width)
    rows = coded_rows(sample, fields, made)
    assert np.abs(kernel.predict(Coded(rows)) - run(made.onnx, rows)).max() < TOLERANCE


def test_onnx_runtime_rounds_no_factor_before_a_matrix_product() -> None:
    from estiba.model.engines.onnx import session

    g, factor, weights = Graph(3), (2.0 / 20) ** 0.5, np.linspace(0.1, 0.9, 6).reshape(3, 2)
    onnx = g.model(g.op("MatMul", g.op("Mul", "x", g.const(factor)), g.const(weights)), 2)
    rows = np.random.default_rng(0).normal(size=(50, 3))
    assert session(onnx).run(["y"], {"x": rows})[0] == pytest.approx(rows * factor @ weights, rel=1e-14, abs=1e-15)


def test_lightgbm_with_an_objective_of_the_users_own() -> None:
    import lightgbm

    sample = frame("numbers", missing=False)
    wanted = target(sample, 0)

    def squares(predicted: Any, data: Any) -> Any:
        return predicted - data.get_label(), np.ones(len(predicted))

    rows = lightgbm.Dataset(sample, wanted)
    booster = lightgbm.train({"objective": squares, "verbose": -1, "num_threads": 1}, rows, 5)
    assert compare(booster, sample) == 0

    def deviance(true: Any, raw: Any) -> Any:
        share = 1 / (1 + np.exp(-raw))
        return share - true, share * (1 - share)

    classifier = lightgbm.LGBMClassifier(n_estimators=3, objective=deviance, verbose=-1, n_jobs=1)
    classifier.fit(sample, (wanted > 1).astype(int))
    assert compare(classifier.booster_, sample) == 0


def test_search_frozen_and_union() -> None:
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import MaxAbsScaler, Normalizer

    sample = frame("numbers", missing=False)
    pipe = make_pipeline(make_union(MaxAbsScaler(), Normalizer(), "passthrough"), Ridge())
    model = GridSearchCV(pipe, {"ridge__alpha": [0.1, 1.0]}, cv=2).fit(sample, target(sample, 0))
    assert compare(FrozenEstimator(model), sample) < TOLERANCE


def test_a_threshold_becomes_a_note() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import FixedThresholdClassifier

    sample = frame("numbers", missing=False)
    model = FixedThresholdClassifier(LogisticRegression(), threshold=0.3).fit(sample, target(sample, 2))
    made = convert(model, fields_of(sample, False, False), sample)
    assert made.head.kind == "probabilities"
    assert any("0.3" in note for note in made.notes)


def test_several_targets() -> None:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import LinearRegression

    sample = frame("numbers", missing=False)
    targets = np.stack([target(sample, 0), target(sample, 0) * 2 + sample["a"]], axis=1)
    for model in (RandomForestRegressor(5, random_state=1), LinearRegression()):
        assert head_of(model.fit(sample, targets), sample).width == 2
        assert compare(model, sample) < TOLERANCE


@pytest.mark.parametrize("data", ["numbers", "categories"])
def test_bare_boosters(data: str) -> None:
    import lightgbm
    import xgboost

    sample = frame(data, missing=True)
    wanted = (target(sample, 2) == "yes").astype(int)
    light = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(sample, wanted), 8)
    assert compare(light, sample, missing=True) < TOLERANCE
    rows = xgboost.DMatrix(sample, wanted, enable_categorical=True)
    boost = xgboost.train({"objective": "binary:logistic", "nthread": 1}, rows, 8)
    assert compare(boost, sample, missing=True) < SINGLE


def test_float32_columns_are_rounded_as_pandas_rounds_them() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    sample = frame("numbers", missing=False).astype("float32")
    model = HistGradientBoostingRegressor(max_iter=5).fit(sample, target(sample, 0))
    assert compare(model, sample) < TOLERANCE


def test_near_a_tie_both_classes_are_added_up() -> None:
    from sklearn.ensemble import RandomForestClassifier

    sample = frame("numbers", missing=False).round(0)
    model = RandomForestClassifier(10, max_depth=2, random_state=0).fit(sample, target(sample, 2))
    made = convert(model, fields_of(sample, False, False), sample)
    matrix = sample.to_numpy()
    found = [run(made.onnx, matrix[i : i + 1])[0].argmax() for i in range(len(matrix))]
    assert (model.classes_[found] == model.predict(sample)).all()


def _odd_models() -> dict[str, tuple[Any, str, int]]:
    """Models that people build beside those of the matrix: the unfitted model, its data and its classes."""
    from sklearn import compose, ensemble, feature_selection, linear_model, multiclass, preprocessing, tree
    from sklearn.base import clone
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    one_hot = preprocessing.OneHotEncoder(handle_unknown="ignore")
    by_name = compose.make_column_transformer((one_hot, ["country", "plan"]), remainder="passthrough")
    by_place = compose.make_column_transformer((one_hot, [2, 3]), remainder="passthrough")
    frequent = SimpleImputer(strategy="most_frequent")
    logistic = linear_model.LogisticRegression(max_iter=300)
    boosting = ensemble.GradientBoostingRegressor(n_estimators=5)
    pick = feature_selection.SelectFromModel(tree.DecisionTreeClassifier(random_state=1))
    leaves = tree.DecisionTreeClassifier(max_depth=6, random_state=1)
    pandas_inside = make_pipeline(clone(frequent).set_output(transform="pandas"), by_name, leaves)
    return {
        "pandas inside": (pandas_inside, "mixed", 2),
        "places": (make_pipeline(frequent, by_place, leaves), "mixed", 3),
        "selection": (make_pipeline(pick, logistic), "numbers", 3),
        "one versus rest": (multiclass.OneVsRestClassifier(logistic), "numbers", 3),
        "stack of pipelines": (ensemble.StackingClassifier([("a", prepared(logistic))], cv=2), "mixed", 2),
        "log target": (
            compose.TransformedTargetRegressor(prepared(boosting), func=np.log, inverse_func=np.exp),
            "mixed",
            0,
        ),
        "scaled target": (
            compose.TransformedTargetRegressor(boosting, transformer=preprocessing.StandardScaler()),
            "numbers",
            0,
        ),
    }


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize("name", _odd_models())
def test_odd_models(name: str) -> None:
    model, data, classes = _odd_models()[name]
    sample = frame(data, missing=data == "mixed")
    loose = data == "mixed"
    assert compare(model.fit(sample, target(sample, classes)), sample, missing=loose, unseen=loose) < TOLERANCE


def _odd_boosters() -> dict[str, tuple[Any, str]]:
    import catboost
    import lightgbm
    import xgboost

    quiet = {"verbose": 0, "allow_writing_files": False, "iterations": 5}
    return {
        "zero is missing": (lightgbm.LGBMRegressor(zero_as_missing=True, n_estimators=8, verbose=-1), "counts"),
        "poisson": (lightgbm.LGBMRegressor(objective="poisson", n_estimators=8, verbose=-1), "numbers"),
        "forest": (
            lightgbm.LGBMRegressor(
                boosting_type="rf", bagging_freq=1, bagging_fraction=0.6, n_estimators=5, verbose=-1
            ),
            "numbers",
        ),
        "dart": (xgboost.XGBRegressor(booster="dart", n_estimators=6, rate_drop=0.4), "numbers"),
        "another missing": (xgboost.XGBRegressor(n_estimators=6, missing=0), "counts"),
        "gamma": (xgboost.XGBRegressor(objective="reg:gamma", n_estimators=6), "numbers"),
        "one-hot splits": (
            xgboost.XGBRegressor(n_estimators=6, max_cat_to_onehot=9, enable_categorical=True),
            "categories",
        ),
        "depthwise": (catboost.CatBoostRegressor(grow_policy="Depthwise", **quiet), "numbers"),
    }


@pytest.mark.parametrize("name", _odd_boosters())
def test_odd_boosters(name: str) -> None:
    model, data = _odd_boosters()[name]
    sample = frame(data, missing=data == "categories")
    wanted = target(sample, 0)
    assert compare(model.fit(sample, wanted), sample, missing=data == "categories") < SINGLE * wanted.max()


def test_several_targets_of_xgboost() -> None:
    import xgboost

    sample = frame("numbers", missing=False)
    wanted = np.stack([target(sample, 0), target(sample, 0) + sample["a"]], axis=1)
    assert compare(xgboost.XGBRegressor(n_estimators=4).fit(sample, wanted), sample) < 1e-6


def test_linear_trees_are_left_to_python() -> None:
    import lightgbm

    sample = frame("numbers", missing=False)
    model = lightgbm.LGBMRegressor(linear_tree=True, n_estimators=3, verbose=-1).fit(sample, target(sample, 0))
    with pytest.raises(NotConvertible, match="linear trees"):
        convert(model, fields_of(sample, False, False), sample)


def _small_tree(leaf_first: bool, scale: float) -> Tree:
    """A root with one leaf and one branch."""
    left, right = ([1, -1, 3, -1, -1], [2, -1, 4, -1, -1]) if leaf_first else ([1, 3, -1, -1, -1], [2, 4, -1, -1, -1])
    sides = (np.asarray(left, np.int64), np.asarray(right, np.int64))
    threshold = np.asarray([0.0, 1, 1, 0, 0])
    feature = np.asarray([0, 1, 1, 0, 0], np.int64)
    return Tree(feature, threshold, *sides, np.zeros(5, bool), scale * np.asarray([0.0, 1, 2, 4, 8]))


def _walk(tree: Tree, row: np.ndarray) -> float:
    node = 0
    while tree.left[node] >= 0:
        node = (tree.left if row[tree.feature[node]] <= tree.threshold[node] else tree.right)[node]
    return float(tree.value[node])


@pytest.mark.parametrize("kinds", list(itertools.product("lrc", repeat=3)), ids="".join)
def test_small_trees_in_any_order(kinds: tuple[str, ...]) -> None:
    trees = [constant(0.5) if k == "c" else _small_tree(k == "l", 10.0**i) for i, k in enumerate(kinds)]
    graph = Graph(2)
    rows = np.random.default_rng(0).normal(0, 2, (50, 2))
    found = run(graph.model(scalar_sum(graph, "x", trees), 1), rows)[:, 0]
    assert np.abs(found - [sum(_walk(t, row) for t in trees) for row in rows]).max() < 1e-9


def test_many_levels_are_looked_up_column_by_column() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    numbers = np.arange(400)
    sample = pd.DataFrame({"a": [f"a{i % 300}" for i in numbers], "b": [f"b{i * 7 % 350}" for i in numbers]})
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(sample, numbers % 3 == 0)
    assert compare(model, sample, unseen=True) < TOLERANCE


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(NoAnswer, match="dict has no predict"):
        head_of({}, frame("numbers", missing=False))


def test_the_reason_names_the_step() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, SplineTransformer

    sample = frame("numbers", missing=False)
    for step, words in (
        (SplineTransformer(extrapolation="periodic"), "SplineTransformer with extrapolation='periodic'"),
        (FunctionTransformer(lambda v: v), "lambda"),
    ):
        model = make_pipeline(step, Ridge()).fit(sample, target(sample, 0))
        with pytest.raises(NotConvertible, match=words):
            convert(model, fields_of(sample, False, False), sample)


def test_converted_is_a_value() -> None:
    model, sample = forest_pipeline()
    made = convert(model, fields_of(sample, True, True), sample)
    assert isinstance(made, Converted)
    assert made.head.classes == ("no", "yes")
