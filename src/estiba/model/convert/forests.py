"""Convert scikit-learn's trees, forests, gradient boostings, isolation forests, and AdaBoost and bagging on trees.

All but HistGradientBoosting round their input to float32 and compare with float64 thresholds; so does the graph.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from estiba.model.convert.columns import Columns
from estiba.model.convert.context import Context, Want, unsupported
from estiba.model.convert.graph import Graph
from estiba.model.convert.trees import Numbers, Tree, constant, scalar_sum, vector_sum, vote_share


def read_tree(estimator: Any, value: Numbers | None = None, features: Any = None, target: int = 0) -> Tree:
    """One fitted DecisionTree or ExtraTree.

    Args:
        value: leaf values to put in place of the tree's own, (nodes,) or (nodes, width).
        features: columns of the input that the tree's features stand for; all in order by default.
    """
    inner = estimator.tree_
    feature = np.asarray(inner.feature, np.int64)  # views of the tree's own memory, as a forest may be large
    if features is not None:
        feature = np.asarray(features, np.int64)[np.maximum(feature, 0)]
    missing = getattr(inner, "missing_go_to_left", None)
    return Tree(
        feature=feature,
        threshold=np.asarray(inner.threshold, np.float64),
        left=np.asarray(inner.children_left, np.int64),
        right=np.asarray(inner.children_right, np.int64),
        missing_left=np.zeros(len(feature), bool) if missing is None else np.asarray(missing, bool),
        value=_own_values(estimator) if value is None else value,
        target=target,
    )


def _own_values(estimator: Any) -> Numbers:
    """Class shares for a classifier, target values for a regressor, (nodes, width)."""
    value = np.asarray(estimator.tree_.value, np.float64)
    if hasattr(estimator, "classes_"):
        if value.shape[1] != 1:
            raise unsupported(estimator, "answers several classifications at once")
        return value[:, 0, :]
    return value[:, :, 0]


def _input(c: Context, columns: Columns) -> str:
    return c.graph.as_float32(c.matrix(columns))


def _narrow_input(c: Context, columns: Columns, trees: list[Tree]) -> tuple[str, list[Tree]]:
    """The input of trees: of sparse columns only those that a node asks about, and the trees that read them there."""
    if not columns.sparse:
        return _input(c, columns), trees
    asked = np.unique(np.concatenate([tree.feature[tree.left >= 0] for tree in trees]))
    used = asked if len(asked) else np.zeros(1, np.int64)
    narrow = [replace(t, feature=np.searchsorted(used, np.where(t.left >= 0, t.feature, used[0]))) for t in trees]
    return _input(c, columns.take(used.tolist())), narrow


def tree_or_forest(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """DecisionTree, ExtraTree, RandomForest and ExtraTrees, both tasks."""
    estimators = getattr(model, "estimators_", [model])
    return mean_of_trees(c.graph, *_narrow_input(c, columns, [read_tree(e) for e in estimators]), want)


def mean_of_trees(g: Graph, x: str, trees: list[Tree], want: Want) -> str:
    """The mean of the trees' answers, in float64."""
    if want == "proba":
        return vote_share(g, x, trees)
    many = trees[0].value.shape[1] > 1
    total = vector_sum(g, x, trees) if many else scalar_sum(g, x, [_scalar(t) for t in trees])
    return total if len(trees) == 1 else g.op("Div", total, g.const(float(len(trees))))


def _scalar(tree: Tree) -> Tree:
    return replace(tree, value=tree.value[:, 0])


def gradient_boosting(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """GradientBoostingClassifier and -Regressor: a starting value and scaled trees, then the loss' link."""
    x, trees = _narrow_input(c, columns, _stages(model))
    raw = scalar_sum(c.graph, x, trees, targets=model.estimators_.shape[1])
    return _linked(c.graph, raw, model, want)


def _stages(model: Any) -> list[Tree]:
    trees = [constant(float(v), k) for k, v in enumerate(_start(model))]
    for stage in model.estimators_:
        for k, estimator in enumerate(stage):
            leaves = model.learning_rate * np.asarray(estimator.tree_.value, np.float64)[:, 0, 0]
            trees.append(read_tree(estimator, leaves, target=k))
    return trees


def _start(model: Any) -> Numbers:
    width = model.estimators_.shape[1]
    if isinstance(model.init_, str):
        return np.zeros(width)
    if not type(model.init_).__name__.startswith("Dummy"):
        raise unsupported(model, f"starts from a {type(model.init_).__name__}")
    row = np.zeros((1, model.n_features_in_), np.float32)
    return np.asarray(model._raw_predict_init(row)[0], np.float64)


def _linked(g: Graph, raw: str, model: Any, want: Want) -> str:
    """The sums as probabilities by the loss, or on the scale of the target."""
    loss = type(model._loss).__name__
    if want == "decision" or loss in ("HalfSquaredError", "AbsoluteError", "PinballLoss", "HuberLoss"):
        return raw
    if loss in ("HalfPoissonLoss", "HalfGammaLoss"):
        return g.op("Exp", raw)
    if loss == "HalfBinomialLoss":
        return g.pair(g.expit(raw))
    if loss == "HalfMultinomialLoss":
        return g.softmax(raw)
    if loss == "ExponentialLoss":
        return g.pair(g.expit(g.op("Mul", g.const(2.0), raw)))
    raise unsupported(model, f"with the loss {loss} has no exact ONNX form")


def hist_gradient_boosting(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """HistGradientBoosting: float64 throughout, missing values, and category splits as sets of codes."""
    if model._preprocessor is not None:
        columns = _encoded(c, model, columns)
    x = c.matrix(columns)
    start = np.asarray(model._baseline_prediction, np.float64).ravel()
    trees = [constant(float(v), k) for k, v in enumerate(start)]
    known = _known_codes(model)
    for iteration in model._predictors:
        trees += [_read_predictor(p, k, known) for k, p in enumerate(iteration)]
    raw = scalar_sum(c.graph, x, trees, targets=len(start))
    return _linked(c.graph, raw, model, want)


def _encoded(c: Context, model: Any, columns: Columns) -> Columns:
    """As the model's own preprocessor does: categories first and as codes, then the numbers as they are."""
    encoder = model._preprocessor.named_transformers_["encoder"]
    flags = np.asarray(model.is_categorical_, bool)
    first = c.apply(encoder, columns.take(np.flatnonzero(flags).tolist()))
    rest = columns.take(np.flatnonzero(~flags).tolist())
    return columns.same(first.columns + rest.columns, None)


def _known_codes(model: Any) -> dict[int, list[int]]:
    bitsets, places = model._bin_mapper.make_known_categories_bitsets()
    flags = model._bin_mapper.is_categorical_
    return {i: _bits(bitsets[places[i]]) for i in range(len(flags)) if flags[i]}


def _bits(words: Any) -> list[int]:
    return [i for i in range(32 * len(words)) if int(words[i // 32]) >> (i % 32) & 1]


def _read_predictor(predictor: Any, target: int, known: dict[int, list[int]]) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    members = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
        allowed = known[int(nodes["feature_idx"][node])]
        left = set(_bits(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]))
        members[int(node)] = tuple(code for code in allowed if code in left)
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"].astype(np.float64),
        target=target,
        members=members,
    )


def isolation_forest(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """IsolationForest.decision_function: 2^(-depth / expected depth), less its offset (Liu, Ting and Zhou, 2008)."""
    from sklearn.ensemble._iforest import _average_path_length

    g = c.graph
    trees = []
    for i, (estimator, features) in enumerate(zip(model.estimators_, model.estimators_features_, strict=True)):
        depth = model._decision_path_lengths[i] + model._average_path_length_per_tree[i] - 1.0
        trees.append(read_tree(estimator, np.asarray(depth, np.float64), features))
    expected = float(len(trees) * _average_path_length([model._max_samples])[0])
    depths = scalar_sum(g, *_narrow_input(c, columns, trees))
    share = g.op("Neg", g.op("Div", depths, g.const(expected))) if expected else g.fill([-1.0])
    score = g.op("Neg", g.op("Pow", g.const(2.0), share))
    return g.op("Sub", score, g.const(float(model.offset_)))


def adaboost_classifier(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """AdaBoostClassifier (SAMME; Zhu, Zou, Rosset and Hastie, 2009)."""
    g, classes = c.graph, len(model.classes_)
    raw = _stump_votes(c, model, columns) if _all_trees(model) else _member_votes(c, model, columns)
    raw = g.op("Div", raw, g.const(float(model.estimator_weights_.sum())))
    if classes == 2:
        second, first = g.columns(raw, [1], 2), g.columns(raw, [0], 2)
        decision = g.op("Sub", second, first)
        if want == "decision":
            return decision
        return g.softmax(g.op("Div", g.concat([g.op("Neg", decision), decision]), g.const(2.0)))
    return raw if want == "decision" else g.softmax(g.op("Div", raw, g.const(classes - 1.0)))


def _all_trees(model: Any) -> bool:
    return all(type(e).__name__ in ("DecisionTreeClassifier", "ExtraTreeClassifier") for e in model.estimators_)


def _ballots(model: Any, weight: float) -> Numbers:
    """A table: row k holds the votes that a member of that weight gives to each class when it answers k."""
    classes = len(model.classes_)
    return np.asarray(np.where(np.eye(classes, dtype=bool), weight, -1 / (classes - 1) * weight), np.float64)


def _stump_votes(c: Context, model: Any, columns: Columns) -> str:
    trees = []
    for estimator, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        said = np.argmax(_own_values(estimator), axis=1)
        places = np.searchsorted(model.classes_, estimator.classes_)
        trees.append(read_tree(estimator, _ballots(model, float(weight))[places[said]]))
    return vector_sum(c.graph, *_narrow_input(c, columns, trees))


def _member_votes(c: Context, model: Any, columns: Columns) -> str:
    g = c.graph
    votes = []
    for estimator, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        if len(estimator.classes_) != len(model.classes_):
            raise unsupported(model, "has a member that knows only some of the classes")
        label = g.op("Squeeze", c.label(estimator, columns), g.const([1], np.int64))
        votes.append(g.op("Gather", g.const(_ballots(model, float(weight))), label, axis=0))
    return votes[0] if len(votes) == 1 else g.op("Sum", *votes)


def adaboost_regressor(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """AdaBoostRegressor: the weighted median of its members (Drucker, 1997)."""
    g, count = c.graph, len(model.estimators_)
    answers = g.concat([c.emit(e, columns, "value") for e in model.estimators_])
    weights = np.asarray(model.estimator_weights_[:count], np.float64)
    # The member whose answer is the median is the first, in rising order, by which half of the weight is reached;
    # its weight below is what all members that answer less, or as much and came earlier, have together.
    column, row = (g.op("Unsqueeze", answers, g.const([a], np.int64)) for a in (2, 1))
    less = g.op("Less", row, column)
    equal = g.op("Equal", row, column)
    earlier = g.const(np.tri(count, count)[None], bool)
    counted = g.cast(g.op("Or", less, g.op("And", equal, earlier)), 11)
    reached = g.op("MatMul", counted, g.const(weights[:, None]))
    enough = g.op("GreaterOrEqual", reached, g.const(0.5 * weights.sum()))
    candidates = g.op("Where", enough, column, g.const(np.inf))
    return g.op("ReduceMin", candidates, g.const([1], np.int64), keepdims=0)


def bagging(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """BaggingClassifier and -Regressor: the mean of members, each on its own columns."""
    g = c.graph
    members = list(zip(model.estimators_, model.estimators_features_, strict=True))
    if all(type(e).__name__.startswith(("DecisionTree", "ExtraTree")) for e in model.estimators_):
        trees = [read_tree(e, features=f) for e, f in members]
        if want == "value" or all(len(e.classes_) == len(model.classes_) for e in model.estimators_):
            return mean_of_trees(g, *_narrow_input(c, columns, trees), want)
    answers = [c.emit(e, columns.take(list(map(int, f))), want) for e, f in members]
    return g.op("Div", g.op("Sum", *answers), g.const(float(len(members))))
