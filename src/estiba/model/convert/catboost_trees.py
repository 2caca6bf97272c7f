"""Convert CatBoost by its own file in JSON, whose trees ask about numbers and about single categories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from estiba.core.stores.disk import temporary
from estiba.model.convert.columns import Column, Columns, Table
from estiba.model.convert.context import Context, Want, unsupported
from estiba.model.convert.graph import Graph
from estiba.model.convert.trees import Indices, Tree, empty_tree, scalar_sum, vector_sum

Features = Mapping[tuple[str, int], Any]
Side = int | Indices


def catboost_model(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """CatBoost: float32 input, double sums; symmetric and other trees; categories of which each split names one."""
    if model.get_text_feature_indices() or model.get_embedding_feature_indices():
        raise unsupported(model, "reads text or embedding columns, which have no exact ONNX form")
    content = _catboost_content(model)
    trees = content["oblivious_trees"] if "oblivious_trees" in content else content["trees"]
    _check_splits(model, trees, columns)
    features = _features(content)
    symmetric = "oblivious_trees" in content
    trees = [(_symmetric_tree if symmetric else _catboost_tree)(t, features) for t in trees]
    coded = _category_codes(model, content, columns)
    g, x = c.graph, c.graph.as_float32(c.matrix(coded))
    width = trees[0].value.shape[1]
    raw = vector_sum(g, x, trees) if width > 1 else scalar_sum(g, x, [_flat(t) for t in trees])
    scale, bias = content["scale_and_bias"]
    if scale != 1:
        raw = g.op("Mul", raw, g.const(float(scale)))
    if any(np.atleast_1d(bias)):
        raw = g.op("Add", raw, g.const(np.atleast_1d(np.asarray(bias, np.float64))[None, :]))
    return _catboost_link(g, raw, model, want)


def _catboost_content(model: Any) -> Any:
    with temporary("catboost") as folder:
        path = folder / "model.json"
        model.save_model(str(path), format="json")
        return json.loads(path.read_text())


def _splits(trees: Any) -> list[Any]:
    """All splits of trees of both kinds."""
    found: list[Any] = []
    stack = list(trees)
    while stack:
        node = stack.pop()
        found += node.get("splits") or []
        found += [node["split"]] if "split" in node else []
        stack += [node[side] for side in ("left", "right") if side in node]
    return found


def _check_splits(model: Any, trees: Any, columns: Columns) -> None:
    kinds = [split["split_type"] for split in _splits(trees)]
    statistics = sum(kind not in ("FloatFeature", "OneHotFeature") for kind in kinds)
    if statistics:
        most = max((c.key.rows - 2 for c in columns.columns if isinstance(c, Table)), default=255)
        raise unsupported(
            model,
            f"decides {statistics} of {len(kinds)} times by statistics of its categories and their combinations with "
            f"other columns, which have no exact ONNX form; trained with one_hot_max_size={min(most, 255)} it converts"
            + (", without the columns of more levels than 255" if most > 255 else ""),
        )


def _features(content: Any) -> Features:
    """Features by the kind of split that asks about them, and their number there."""
    numbers, words = (content["features_info"].get(k) or [] for k in ("float_features", "categorical_features"))
    found = {("FloatFeature", int(f["feature_index"])): f for f in numbers}
    return found | {("OneHotFeature", int(f["feature_index"])): f for f in words}


def _category_codes(model: Any, content: Any, columns: Columns) -> Columns:
    """Category columns as positions in the list of hashes that the trees name; words that it lacks are one beyond.

    CatBoost itself is asked for the position of each level, because it knows them by their hash alone.
    """
    coded: list[Column] = list(columns.columns)
    for feature in content["features_info"].get("categorical_features") or []:
        index, number = int(feature["flat_feature_index"]), int(feature["feature_index"])
        table = coded[index]
        if not isinstance(table, Table):
            raise unsupported(model, f"reads the numbers of column {index} as categories; as text they would convert")
        position = model._object._calc_cat_feature_perfect_hash
        levels = zip(table.values, table.dead, strict=True)
        codes = [np.nan if dead else float(position(str(level), number)) for level, dead in levels]
        coded[index] = Table(table.key, np.asarray(codes), table.dead, table.sample)
    return columns.same(tuple(coded), columns.sample)


def _ask(tree: Tree, nodes: slice, sides: tuple[Side, Side], split: Any, features: Features) -> None:
    """Write what nodes ask; `sides` are the nodes for no and for yes.

    A number is asked if it is above the border, which is right; a category if it is one, and members go left.
    """
    kind = split["split_type"]
    feature = features[kind, int(split["float_feature_index" if kind == "FloatFeature" else "cat_feature_index"])]
    tree.feature[nodes] = feature["flat_feature_index"]
    if kind == "FloatFeature":
        tree.threshold[nodes] = np.float32(split["border"])
        tree.missing_left[nodes] = _missing_left(feature)
        tree.left[nodes], tree.right[nodes] = sides
        return
    member = (feature["values"].index(split["value"]),)
    tree.members.update(dict.fromkeys(range(nodes.start, nodes.stop), member))
    tree.right[nodes], tree.left[nodes] = sides


def _flat(tree: Tree) -> Tree:
    return replace(tree, value=tree.value[:, 0])


def _missing_left(feature: Any) -> bool:
    """A missing value is below every border, or above all of them."""
    return str(feature.get("nan_value_treatment")) != "AsTrue"


def _symmetric_tree(tree: Any, features: Features) -> Tree:
    """All nodes of a level ask the same; bit d of a leaf's number is the answer at level d from the bottom up."""
    splits = tree.get("splits") or []
    depth = len(splits)
    leaves = 2**depth
    values = np.asarray(tree["leaf_values"], np.float64).reshape(leaves, -1)
    converted = empty_tree(2 * leaves - 1)
    value = np.zeros((2 * leaves - 1, values.shape[1]))
    for level in range(depth):
        nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
        below = 2 * np.arange(nodes.start, nodes.stop) + 1
        _ask(converted, nodes, (below, below + 1), splits[depth - 1 - level], features)
    value[leaves - 1 :] = values
    return replace(converted, value=value)


def _catboost_tree(tree: Any, features: Features) -> Tree:
    nodes: list[dict[str, Any]] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        node["place"] = len(nodes)
        nodes.append(node)
        stack += [node[k] for k in ("right", "left") if k in node]
    converted = empty_tree(len(nodes))
    value = [np.zeros(1)] * len(nodes)
    for i, node in enumerate(nodes):
        if "split" not in node:
            value[i] = np.atleast_1d(np.asarray(node["value"], np.float64))
            continue
        _ask(converted, slice(i, i + 1), (node["left"]["place"], node["right"]["place"]), node["split"], features)
    width = max(len(v) for v in value)
    return replace(converted, value=np.stack([v if len(v) == width else np.zeros(width) for v in value]))


def _catboost_link(g: Graph, raw: str, model: Any, want: Want) -> str:
    loss = str(model.get_all_params().get("loss_function", "")).split(":")[0]
    if want == "decision":
        return raw
    if loss in ("Logloss", "CrossEntropy") and want == "proba":
        return g.pair(g.expit(raw))
    if loss == "MultiClass":
        return g.softmax(raw)
    if loss in ("Poisson", "Tweedie"):
        return g.op("Exp", raw)
    if loss in ("RMSE", "MAE", "Quantile", "MAPE", "Huber", "LogCosh", "Expectile", "MultiRMSE", "Lq"):
        return raw
    if loss in ("MultiQuantile", "MultiLogloss", "MultiCrossEntropy"):  # of labels, before the logistic function
        return raw
    if loss == "RMSEWithUncertainty":  # a mean, and the logarithm of a standard deviation
        mean, spread = (g.columns(raw, [i], 2) for i in (0, 1))
        return g.concat([mean, g.op("Exp", g.op("Mul", g.const(2.0), spread))])
    raise unsupported(model, f"with the loss {loss} has no rule")
