"""Convert XGBoost and LightGBM by their own files, which are read into trees, as wrappers or bare."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.convert.columns import Column, Columns, NotConvertible, Table
from estiba.model.convert.context import Context, Want, unsupported
from estiba.model.convert.gblinear import linear_margin
from estiba.model.convert.graph import DOUBLE, FLOAT, Graph
from estiba.model.convert.trees import Tree, constant, empty_tree, scalar_sum, single_sum

ZERO = float(np.float32(1e-35))
"""LightGBM takes numbers this near to zero for zero."""


def _codes(columns: Columns, categories: dict[int, list[Any]]) -> Columns:
    """Category columns as the library's codes: the position in its own list, NaN where it has no such level."""
    coded_columns: list[Column] = list(columns.columns)
    for i, levels in categories.items():
        column = coded_columns[i]
        if not isinstance(column, Table):
            continue
        position = {level: float(n) for n, level in enumerate(levels)}
        values = np.asarray([position.get(v, np.nan) if v == v else np.nan for v in column.values])
        coded_columns[i] = Table(column.key, values, column.dead, column.sample)
    return columns.same(tuple(coded_columns), columns.sample)


def _sample_categories(columns: Columns) -> dict[int, list[Any]]:
    """Levels of the sample's columns of pandas' category type, in order."""
    dtypes = getattr(columns.sample, "dtypes", [])
    return {i: list(d.categories) for i, d in enumerate(dtypes) if hasattr(d, "categories")}


def xgboost_model(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """XGBoost: float32 input, float32 sums, strict comparison."""
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    config = json.loads(booster.save_raw("json"))["learner"]
    if config["gradient_booster"]["name"] == "gblinear":
        x = _xgboost_missing(c.graph, model, c.matrix(columns))
        margin = linear_margin(c.graph, x, config["gradient_booster"], _xgboost_base(config))
        return _xgboost_link(c.graph, margin, config["objective"]["name"], want)
    content, drops = _xgboost_trees(model, config["gradient_booster"])
    codes = _codes(columns, _xgboost_categories(content, columns))
    x = _xgboost_missing(c.graph, model, c.matrix(codes))
    trees = [_scaled(t, w) for t, w in zip(_xgboost_read(model, content), drops, strict=False)]
    base = _xgboost_base(config)
    start = [constant(float(v), k) for k, v in enumerate(base)]
    raw = single_sum(c.graph, c.graph.cast(x, FLOAT), start + trees, targets=len(base))
    return _xgboost_link(c.graph, raw, config["objective"]["name"], want)


def _xgboost_missing(g: Graph, model: Any, x: str) -> str:
    """NaN in place of the number that stands for a missing one. XGBoost rounds first: -998.9999999999999 is -999."""
    missing = getattr(model, "missing", np.nan)
    if missing is None or missing != missing:
        return x
    x = g.as_float32(x)
    return g.op("Where", g.op("Equal", x, g.const(float(np.float32(missing)))), g.const(np.nan), x)


def _xgboost_categories(content: Any, columns: Columns) -> dict[int, list[Any]]:
    """Since 3.1 the file keeps the categories; before, a column's code was its place in the DataFrame's categories."""
    kept = (content.get("cats") or {}).get("enc") or []
    categories = _sample_categories(columns)
    for i, entry in enumerate(kept):
        values, offsets = entry.get("values", []), entry.get("offsets", [])
        if offsets:
            raw = bytes(v & 0xFF for v in values)
            categories[i] = [raw[a:b].decode() for a, b in pairwise(offsets)]
        elif values:
            categories[i] = list(values)
    return categories


def _xgboost_trees(model: Any, booster: Any) -> tuple[Any, list[float]]:
    """The part of the file with the trees, and the factor by which dart scales each."""
    if booster["name"] == "dart":
        return booster["gbtree"]["model"], list(booster["weight_drop"])
    if booster["name"] != "gbtree":
        raise unsupported(model, f"with the booster {booster['name']} has no rule")
    return booster["model"], [1.0] * len(booster["model"]["trees"])


def _scaled(tree: Tree, by: float) -> Tree:
    value = tree.value.astype(np.float32) * np.float32(by)
    return tree if by == 1 else replace(tree, value=value.astype(np.float64))


def _xgboost_read(model: Any, content: Any) -> list[Tree]:
    last = _xgboost_rounds(model, content)
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in content["trees"]):
        raise unsupported(model, "with vector leaves has no rule")
    pairs = zip(content["trees"][:last], content["tree_info"][:last], strict=True)
    return [_xgboost_tree(tree, int(target)) for tree, target in pairs]


def _xgboost_rounds(model: Any, content: Any) -> int:
    """Trees to use: those up to the best iteration where training stopped early, which the wrapper respects."""
    best = getattr(model, "best_iteration", None) if hasattr(model, "get_booster") and _stopped_early(model) else None
    return len(content["trees"]) if best is None else int(content["iteration_indptr"][best + 1])


def _stopped_early(model: Any) -> bool:
    return "best_iteration" in (model.get_booster().attributes() or {})


def _xgboost_base(config: Any) -> npt.NDArray[np.float32]:
    """The start of each output's margin, in float32."""
    parameters = config["learner_model_param"]
    width = max(1, int(parameters["num_class"]), int(parameters.get("num_target", 1)))
    text = parameters["base_score"]
    values = json.loads(text) if text.startswith("[") else [float(text)]
    score = np.broadcast_to(np.asarray(values, np.float32), (width,))
    name = config["objective"]["name"]
    if name in ("binary:logistic", "reg:logistic"):
        return np.asarray(-np.log(np.float32(1) / score - np.float32(1)), np.float32)
    if name in ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox"):
        return np.asarray(np.log(score), np.float32)
    return np.array(score)


def _xgboost_tree(tree: Any, target: int) -> Tree:
    left, right = (np.asarray(tree[k], np.int64) for k in ("left_children", "right_children"))
    default = np.asarray(tree["default_left"], bool)
    split = np.asarray(tree["split_conditions"], np.float32).astype(np.float64)
    members = {}
    for node, start, size in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):
        # The listed codes go right, so the sides change places.
        members[int(node)] = tuple(tree["categories"][start : start + size])
        left[node], right[node] = right[node], left[node]
        default[node] = not default[node]
    feature = np.asarray(tree["split_indices"], np.int64)
    return Tree(feature, split, left, right, default, split, target, members)


def _xgboost_link(g: Graph, raw: str, objective: str, want: Want) -> str:
    """Margins to answers. XGBoost answers in float32; the link is computed in double and rounded once."""
    margin = g.cast(raw, DOUBLE)
    if objective == "binary:logistic":
        positive = g.as_float32(g.expit(margin))
        return g.as_float32(g.pair(positive)) if want == "proba" else margin
    if objective in ("multi:softprob", "multi:softmax"):
        return margin if want == "decision" else g.as_float32(g.softmax(margin))
    if objective == "reg:logistic":
        return g.as_float32(g.expit(margin))
    if objective in ("count:poisson", "reg:gamma", "reg:tweedie"):
        return g.as_float32(g.op("Exp", margin))
    if objective.startswith(("reg:", "rank:")):
        return margin
    raise NotConvertible(f"XGBoost with the objective {objective} has no rule")


def lightgbm_model(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """LightGBM: double throughout; missing values by each node's own rule; sets of categories."""
    booster = getattr(model, "booster_", model)
    dump = booster.dump_model()
    if any("leaf_coeff" in n for t in dump["tree_info"] for n in _nodes(t)):
        raise unsupported(model, "with linear trees has no rule")
    codes = _codes(columns, _lightgbm_categories(dump, columns))
    classes = int(dump["num_tree_per_iteration"])
    trees = [_lightgbm_tree(t, i % classes) for i, t in enumerate(dump["tree_info"])]
    x = _lightgbm_zeros(c.graph, c.matrix(codes), dump)
    raw = scalar_sum(c.graph, x, trees, targets=classes)
    if dump.get("average_output"):
        raw = c.graph.op("Div", raw, c.graph.const(len(trees) / classes))
    if "objective" not in dump:  # one of the user's own, which plays no part in predictions
        return raw
    return _lightgbm_link(c.graph, raw, str(dump["objective"]), want)


def _lightgbm_categories(dump: Any, columns: Columns) -> dict[int, list[Any]]:
    places = list(_sample_categories(columns))
    return dict(zip(places, dump.get("pandas_categorical") or [], strict=False))


def _nodes(tree: Any) -> list[dict[str, Any]]:
    """The nested dump as a list, a parent before its children."""
    flat: list[dict[str, Any]] = []
    stack = [tree["tree_structure"]]
    while stack:
        node = stack.pop()
        node["place"] = len(flat)
        flat.append(node)
        stack += [node[k] for k in ("right_child", "left_child") if k in node]
    return flat


def _lightgbm_tree(tree: Any, target: int) -> Tree:
    nodes = _nodes(tree)
    inner = [n for n in nodes if "split_feature" in n]
    converted = empty_tree(len(nodes), target)
    members = dict(converted.members)
    for node in inner:
        i = node["place"]
        converted.feature[i] = node["split_feature"]
        converted.left[i], converted.right[i] = node["left_child"]["place"], node["right_child"]["place"]
        if node["decision_type"] == "==":
            members[i] = tuple(int(v) for v in str(node["threshold"]).split("||"))
            continue
        converted.threshold[i] = _threshold(float(node["threshold"]))
        # Where training saw no missing value, LightGBM takes one for zero.
        converted.missing_left[i] = (
            converted.threshold[i] >= 0 if node["missing_type"] == "None" else node["default_left"]
        )
    for node in nodes:
        converted.value[node["place"]] = node.get("leaf_value", 0.0)
    return Tree(
        converted.feature,
        converted.threshold,
        converted.left,
        converted.right,
        converted.missing_left,
        converted.value,
        target,
        members,
    )


def _threshold(printed: float) -> float:
    """Keep a threshold just below zero from including it, and read 1e300 as infinity, which is printed so."""
    if -ZERO <= printed < 0:
        return float(np.nextafter(-ZERO, -np.inf))
    return math.inf if printed >= 1e300 else printed


def _lightgbm_zeros(g: Graph, x: str, dump: Any) -> str:
    """Replace zeros by NaN before the trees, where zero means missing."""
    features = {
        n["split_feature"]
        for tree in dump["tree_info"]
        for n in _nodes(tree)
        if n.get("missing_type") == "Zero" and n["decision_type"] != "=="
    }
    if not features:
        return x
    mask = np.isin(np.arange(dump["max_feature_idx"] + 1), list(features))[None, :]
    small = g.op("LessOrEqual", g.op("Abs", x), g.const(ZERO))
    return g.op("Where", g.op("And", small, g.const(mask, bool)), g.const(np.nan), x)


def _lightgbm_link(g: Graph, raw: str, objective: str, want: Want) -> str:
    if want == "decision":  # decision_function, since LightGBM 4.7
        return raw
    name, *options = objective.split(" ")
    parameters = dict(o.split(":") for o in options if ":" in o)
    if name in ("binary", "multiclassova", "cross_entropy"):
        scaled = g.op("Mul", g.const(float(parameters.get("sigmoid", 1))), raw)
        share = g.expit(raw if float(parameters.get("sigmoid", 1)) == 1 else scaled)
        return g.pair(share) if name == "binary" and want == "proba" else share
    if name == "multiclass":
        return g.softmax(raw)
    if name in ("poisson", "gamma", "tweedie"):
        return g.op("Exp", raw)
    if name == "regression" and "sqrt" in options:
        return g.op("Mul", g.op("Sign", raw), g.op("Mul", raw, raw))
    if name in (
        "regression",
        "regression_l1",
        "huber",
        "fair",
        "quantile",
        "mape",
        "lambdarank",
        "rank_xendcg",
    ):
        return raw
    raise NotConvertible(f"LightGBM with the objective {name} has no rule")
