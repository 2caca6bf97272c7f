"""Check that the trees of a loaded model stay inside their own arrays, before native code relies on it.

scikit-learn walks trees without checking their indices, so a forged or damaged file could make it read memory that is
not the model's. The checks here are on loaded objects, before anything is asked of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def fault(item: Any) -> str:
    """Return why native code would leave its arrays, as the rest of a sentence; empty where it would not."""
    if type(item).__module__.startswith("scipy."):
        return _scipy_fault(item)
    if type(item).__name__ == "Tree":
        return _tree_fault(item)
    if type(item).__name__ in ("KDTree", "BallTree"):
        return _neighbours_fault(item)
    if hasattr(item, "_predictors"):
        return _histogram_fault(item)
    if type(getattr(item, "tree_", None)).__name__ == "Tree":
        return _width_fault([item], getattr(item, "n_features_in_", -1))
    # These hand rows straight to their trees; other ensembles go through an estimator, which counts the columns.
    module = type(item).__module__.rpartition(".")[2]
    if module in ("_forest", "_gb", "_iforest") and hasattr(item, "estimators_"):
        return _width_fault(item.estimators_, item._max_features if module == "_iforest" else item.n_features_in_)
    return ""


def _width_fault(members: Any, width: int) -> str:
    members = members.ravel().tolist() if isinstance(members, np.ndarray) else members
    agree = all(member.tree_.n_features == width for member in members)
    return "" if agree else "a tree was grown on another number of features than its estimator"


def _tree_fault(tree: Any) -> str:
    count = tree.node_count
    inner = np.flatnonzero(tree.children_left != -1)
    return _nodes_fault(
        inner, (tree.children_left[inner], tree.children_right[inner]), tree.feature[inner], (count, tree.n_features)
    )


def _histogram_fault(model: Any) -> str:
    for predictor in (p for stage in model._predictors for p in stage):
        nodes = predictor.nodes
        inner = np.flatnonzero(nodes["is_leaf"] == 0)
        chosen = nodes[inner]
        problem = _nodes_fault(
            inner, (chosen["left"], chosen["right"]), chosen["feature_idx"], (len(nodes), model.n_features_in_)
        )
        sets = chosen["bitset_idx"][chosen["is_categorical"] != 0]
        bitsets = predictor.raw_left_cat_bitsets
        if not problem and len(sets) and (int(sets.max()) >= len(bitsets) or bitsets.shape[1:] != (8,)):
            problem = "a tree names a set of categories that it does not have"
        if problem:
            return problem
    return ""


def _nodes_fault(inner: Any, children: Iterable[Any], features: Any, limits: tuple[int, int]) -> str:
    count, width = limits
    # Children come after their parent in every tree that scikit-learn grows; so no walk can go round in a circle.
    if any(bool(((child <= inner) | (child >= count)).any()) for child in children):
        return "a tree has a child that is no node of it"
    if len(features) and not 0 <= int(features.min()) <= int(features.max()) < width:
        return "a tree asks for a feature that the model does not have"
    return ""


def _neighbours_fault(tree: Any) -> str:
    """The state is (data, order, nodes, bounds, leaf size, levels, count, four counters, distance, weights)."""
    data, order, nodes, bounds, _, levels, count, *_, weights = tree.__getstate__()
    rows = len(data)
    starts, ends = nodes["idx_start"], nodes["idx_end"]
    whole = (
        data.ndim == 2
        and order.shape == (rows,)
        and nodes.shape == (count,)
        and count == 2**levels - 1
        and bounds.shape == (2 if type(tree).__name__ == "KDTree" else 1, count, data.shape[1])
        and (weights is None or weights.shape == (rows,))
    )
    inside = bool(((order >= 0) & (order < rows)).all() and ((starts >= 0) & (starts <= ends) & (ends <= rows)).all())
    # The second half of a complete tree are its leaves; a node above them that is marked as a leaf is harmless.
    if not whole or not inside or not bool(nodes["is_leaf"][count // 2 :].all()):
        return "a tree of neighbours names rows or nodes that it does not have"
    return ""


def _scipy_fault(item: Any) -> str:
    if type(item).__name__ == "BSpline":
        knots, order = len(item.t), item.k
        fits = order >= 0 and knots >= 2 * order + 2 and len(item.c) >= knots - order - 1
        return "" if fits else "a spline has fewer coefficients than its knots ask for"
    if hasattr(item, "indptr") and hasattr(item, "check_format"):
        try:
            item.check_format(full_check=True)
        except (ValueError, TypeError) as error:
            return f"a sparse matrix is not one: {error}"
    return ""
