"""Represent decision trees of every library in one form, and write that form as the ONNX operator TreeEnsemble.

The operator's leaves carry one number each. Forests whose leaves are vectors therefore answer with the positions of
their leaves, one per tree, and the vectors are looked up and added after it, in the order of the trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.convert.graph import DOUBLE, INT64, ML, Graph, made_node

LESS_OR_EQUAL, LESS, MEMBER = 0, 1, 6
"""Numbers of the comparisons in the operator's `nodes_modes`."""

TIE = 1e-9
"""Sums closer than this to half of all votes are added up for both classes, because their last bits decide."""

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tree:
    """One tree. Node 0 is its root; a node whose `left` is below 0 is a leaf.

    Args:
        feature, left, right: per node.
        threshold: per node; left is meant by `x <= threshold`, in XGBoost by `x < threshold`.
        missing_left: per node: NaN goes left.
        value: per node, float64 of shape (nodes,) or (nodes, width); only those of leaves count.
        target: the output that the tree adds to, where leaves are scalars.
        members: for nodes that ask for membership, the codes that go left.
    """

    feature: Indices
    threshold: Numbers
    left: Indices
    right: Indices
    missing_left: npt.NDArray[np.bool_]
    value: Numbers
    target: int = 0
    members: dict[int, tuple[int, ...]] = field(default_factory=dict)


def empty_tree(count: int, target: int = 0) -> Tree:
    """A tree of so many nodes, all of them leaves of 0."""
    none = np.full(count, -1, np.int64)
    return Tree(
        np.zeros(count, np.int64),
        np.zeros(count),
        none,
        none.copy(),
        np.zeros(count, bool),
        np.zeros(count),
        target,
    )


def constant(value: float, target: int = 0) -> Tree:
    """A tree that is only a leaf: the number that a sum starts from."""
    one = np.zeros(1, np.int64)
    return Tree(one, np.zeros(1), one - 1, one - 1, np.zeros(1, bool), np.array([value]), target)


def scalar_sum(g: Graph, x: str, trees: Sequence[Tree], *, targets: int = 1) -> str:
    """Sum of the leaves that a row falls into, per target, added in the order of the trees; (n, targets) float64."""
    return g.op("TreeEnsemble", x, domain=ML, **_attributes(trees, [t.value for t in trees], targets))


def single_sum(g: Graph, x: str, trees: Sequence[Tree], *, targets: int = 1) -> str:
    """The same with strict comparison and everything in float32, as XGBoost computes; x too is float32."""
    values = [t.value for t in trees]
    return g.op("TreeEnsemble", x, domain=ML, **_attributes(trees, values, targets, LESS, np.float32))


def vector_sum(g: Graph, x: str, trees: Sequence[Tree]) -> str:
    """The same for trees whose leaves are vectors, (n, width), in double."""
    positions, rows, start = [], [], 0
    for tree in trees:
        leaves = np.flatnonzero(tree.left < 0)
        position = np.zeros(len(tree.left))
        position[leaves] = np.arange(start, start + len(leaves))
        positions.append(position)
        rows.append(tree.value[leaves])
        start += len(leaves)
    numbered = [replace(tree, target=i) for i, tree in enumerate(trees)]
    rows_of_leaves = g.op("TreeEnsemble", x, domain=ML, **_attributes(numbered, positions, len(trees)))
    vectors = g.op("Gather", g.const(np.concatenate(rows)), g.cast(rows_of_leaves, INT64), axis=0)
    if len(trees) == 1:
        return g.op("Squeeze", vectors, g.const([1], np.int64))
    # CumSum adds strictly in order; ReduceSum may not.
    running = g.op("CumSum", vectors, g.const(1, np.int64))
    return g.op("Gather", running, g.const(-1, np.int64), axis=1)


def vote_share(g: Graph, x: str, trees: Sequence[Tree]) -> str:
    """Mean of the trees' class probabilities, as scikit-learn's forests compute it, (n, classes).

    With two classes the trees are run once, for the second class, and the first gets the rest: off by 1e-16 at most,
    which matters only near a tie, or with `exact_first`. There the first class is added up as well, so that the label
    is the original's.
    """
    count = float(len(trees))
    if len(trees) == 1 or trees[0].value.shape[1] != 2 or (g.exact_first and not _whole(trees)):
        return _divide(g, vector_sum(g, x, trees), count)
    votes = g.op("TreeEnsemble", x, domain=ML, **_scalar_attributes(trees, 1))
    if _whole(trees):
        rest = g.op("Sub", g.const(count), votes)
    else:
        rest = _rest_or_exact(g, x, votes, _scalar_attributes(trees, 0), count)
    return _divide(g, g.concat([rest, votes]), count)


def _scalar_attributes(trees: Sequence[Tree], column: int) -> dict[str, Any]:
    return _attributes(trees, [t.value[:, column] for t in trees], 1)


def _divide(g: Graph, tensor: str, by: float) -> str:
    return tensor if by == 1 else g.op("Div", tensor, g.const(by))


def _whole(trees: Sequence[Tree]) -> bool:
    """Check that the leaves are zeros and ones: their sums are exact, so the rest is exact too."""
    return all(((leaves := t.value[t.left < 0]) == leaves.astype(bool)).all() for t in trees)


def _rest_or_exact(g: Graph, x: str, votes: str, attributes: dict[str, Any], count: float) -> str:
    from onnx import helper

    distance = g.op("Abs", g.op("Sub", votes, g.const(count / 2)))
    tie = g.op("Less", g.op("ReduceMin", distance, keepdims=0), g.const(TIE * count))
    output, exact, rest = g.name(), g.name(), g.name()
    shape = [None, 1]
    near = helper.make_graph(
        [made_node("TreeEnsemble", [x], [exact], ML, attributes)],
        "near", [], [helper.make_tensor_value_info(exact, DOUBLE, shape)],
    )  # fmt: skip
    far = helper.make_graph(
        [helper.make_node("Sub", [g.const(count), votes], [rest])],
        "far", [], [helper.make_tensor_value_info(rest, DOUBLE, shape)],
    )  # fmt: skip
    g.add(helper.make_node("If", [tie], [output], then_branch=near, else_branch=far))
    return output


class _Writer:
    """Collects the operator's flat lists, in parts for each tree: inner nodes and leaves are numbered apart."""

    def __init__(self) -> None:
        self.parts: dict[str, list[npt.NDArray[Any]]] = {}
        self.members: list[float] = []
        self.roots: list[int] = []
        self.nodes = self.leaves = 0

    def tree(self, tree: Tree, value: Numbers, mode: int) -> None:
        order = _inner_order(tree)
        self.roots.append(self.nodes)
        if not len(order):
            self._stump(float(value[0]), tree.target)
            return
        position = np.full(len(tree.left), -1, np.int64)
        position[order] = self.nodes + np.arange(len(order))
        children = np.stack([tree.left[order], tree.right[order]], axis=1)
        branches = position[children]
        self._part_numbers(branches[0], tree.target)
        leaf = branches < 0
        branches[leaf] = self.leaves + np.arange(int(leaf.sum()))
        self._add_leaves(value[children[leaf]], tree.target)
        self._add_nodes(branches, leaf)
        self._add_questions(tree, order, mode)

    def _part_numbers(self, branches: Indices, target: int) -> None:
        """Avoid that a root's leaf has its sibling's number: many an ONNX Runtime takes such a root for a leaf
        (microsoft/onnxruntime#24679). An unused leaf moves the count on."""
        if (branches < 0).any() and self.leaves in branches:
            self._add_leaves(np.zeros(1), target)

    def _add(self, name: str, values: Any, dtype: npt.DTypeLike) -> None:
        self.parts.setdefault(name, []).append(np.asarray(values, dtype))

    def _add_leaves(self, weights: Numbers, target: int) -> None:
        self._add("weights", weights, np.float64)
        self._add("targets", np.full(len(weights), target), np.int32)
        self.leaves += len(weights)

    def _add_nodes(self, branches: Indices, leaf: npt.NDArray[np.bool_]) -> None:
        for side in (0, 1):
            self._add(f"branches{side}", branches[:, side], np.int32)
            self._add(f"leaf{side}", leaf[:, side], np.bool_)
        self.nodes += len(branches)

    def _add_questions(self, tree: Tree, order: Indices, mode: int) -> None:
        splits, modes = tree.threshold[order].astype(np.float64), np.full(len(order), mode, np.uint8)
        for i, node in enumerate(order.tolist() if tree.members else ()):
            members = tree.members.get(node)
            if members:
                self.members += [*map(float, members), np.nan]
                modes[i] = MEMBER
            # The operator knows no empty set; no code is below minus infinity.
            splits[i] = splits[i] if members is None else 0.0 if members else -np.inf
        self._add("splits", splits, np.float64)
        self._add("modes", modes, np.uint8)
        self._add("features", tree.feature[order], np.int32)
        self._add("missing", tree.missing_left[order], np.bool_)

    def _stump(self, weight: float, target: int) -> None:
        """The operator has no tree without a node: ask anything, and answer the same. Two leaves, because ONNX Runtime
        up to 1.26 at least miscounts a root whose sides are one leaf unless it comes first."""
        leaf = np.ones((1, 2), bool)
        self._add_nodes(self.leaves + np.asarray([[0, 1]]), leaf)
        self._add_leaves(np.asarray([weight, weight]), target)
        for name, value, dtype in (("splits", 0.0, np.float64), ("modes", LESS_OR_EQUAL, np.uint8)):
            self._add(name, [value], dtype)
        self._add("features", [0], np.int32)
        self._add("missing", [False], np.bool_)

    def whole(self, name: str) -> npt.NDArray[Any]:
        """One of the lists, of all trees."""
        return np.concatenate(self.parts.pop(name))


def _inner_order(tree: Tree) -> Indices:
    """Inner nodes, a parent right before its left child: near in memory when a row walks down."""
    inner = np.flatnonzero(tree.left >= 0)
    if np.array_equal(tree.left[inner], inner + 1):  # as scikit-learn numbers a tree that grows depth first
        return inner
    left, right = tree.left.tolist(), tree.right.tolist()
    order: list[int] = []
    stack = [0] if left[0] >= 0 else []
    while stack:
        node = stack.pop()
        order.append(node)
        if left[right[node]] >= 0:
            stack.append(right[node])
        if left[left[node]] >= 0:
            stack.append(left[node])
    return np.asarray(order, np.int64)


def _attributes(
    trees: Sequence[Tree],
    values: Sequence[Numbers],
    targets: int,
    mode: int = LESS_OR_EQUAL,
    dtype: npt.DTypeLike = np.float64,
) -> dict[str, Any]:
    from onnx import numpy_helper

    writer = _Writer()
    for tree, value in zip(trees, values, strict=True):
        writer.tree(tree, value, mode)
    attributes: dict[str, Any] = {
        "n_targets": targets,
        "aggregate_function": 1,
        "post_transform": 0,
        "tree_roots": writer.roots,
        "nodes_featureids": writer.whole("features"),
        "nodes_splits": numpy_helper.from_array(writer.whole("splits").astype(dtype)),
        "nodes_modes": numpy_helper.from_array(writer.whole("modes")),
        "nodes_truenodeids": writer.whole("branches0"),
        "nodes_trueleafs": writer.whole("leaf0"),
        "nodes_falsenodeids": writer.whole("branches1"),
        "nodes_falseleafs": writer.whole("leaf1"),
        "leaf_targetids": writer.whole("targets"),
        "leaf_weights": numpy_helper.from_array(writer.whole("weights").astype(dtype)),
    }
    missing = writer.whole("missing")
    if missing.any():
        attributes["nodes_missing_value_tracks_true"] = missing
    if writer.members:
        attributes["membership_values"] = numpy_helper.from_array(np.asarray(writer.members, dtype))
    return attributes
