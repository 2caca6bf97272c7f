"""Lay out tree ensembles of ONNX as the kernel walks them: ranks instead of thresholds, children side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.engines.columns import Columns, Numbers
from estiba.model.engines.onnx_reader import NotRecognised

Indices = npt.NDArray[np.int64]

LESS_OR_EQUAL, LESS, MEMBER = 0, 1, 6
MAX_RANK = 65535
MAX_TARGETS = 256
NODE = np.dtype([("rank", "u2"), ("column", "u2"), ("left", "u4")])
UNEVEN_DEPTH_RATIO = 1.5
"""Depth of a tree, relative to its mean leaf, from which on walks check for their end at each level."""


@dataclass(frozen=True)
class Forest:
    """The operator's inner nodes and leaves, numbered separately, and the column that each node compares.

    Args:
        column: per inner node, the number of a column.
        threshold: per inner node; left is meant by `value <= threshold`.
        low: per inner node: NaN goes left.
        child, leaf: per side, left and right, and inner node: the number below it, and whether it is a leaf's.
        roots: per tree its first inner node, rising.
        weight, target: per leaf.
        single: sums are rounded to float32 after each leaf.
    """

    column: Indices
    threshold: Numbers
    low: npt.NDArray[np.bool_]
    child: tuple[Indices, Indices]
    leaf: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
    roots: Indices
    weight: Numbers
    target: Indices
    targets: int
    single: bool

    @property
    def count(self) -> int:
        """The number of inner nodes."""
        return len(self.leaf[0])

    def part(self, first: int, last: int) -> Forest:
        """Return the trees from `first` up to `last` as a forest."""
        start = int(self.roots[first])
        end = int(self.roots[last]) if last < len(self.roots) else self.count
        cut = slice(start, end)
        child = tuple(
            np.where(leaf[cut], c[cut], c[cut] - start) for c, leaf in zip(self.child, self.leaf, strict=True)
        )
        return replace(
            self,
            column=self.column[cut],
            threshold=self.threshold[cut],
            low=self.low[cut],
            child=(child[0], child[1]),
            leaf=(self.leaf[0][cut], self.leaf[1][cut]),
            roots=self.roots[first:last] - start,
        )

    def ranked(self) -> Forest:
        """Return the same without what its ranks stand for: in a large forest each list counts."""
        return replace(
            self, column=self.column[:0].copy(), threshold=self.threshold[:0].copy(), low=self.low[:0].copy()
        )


def read_forest(attributes: Mapping[str, Any], columns: Columns, x: Sequence[int], single: bool) -> Forest:
    """The attributes of a TreeEnsemble, checked.

    Args:
        x: numbers of the columns of its input.
        single: whether its input is float32.

    Raises:
        NotRecognised: it asks in ways that the converter never writes, or its parts do not fit together.
    """
    if attributes.get("aggregate_function", 1) != 1 or attributes.get("post_transform", 0) != 0:
        raise NotRecognised("a tree ensemble does not simply add its leaves")
    if attributes["nodes_splits"].dtype != (np.float32 if single else np.float64):
        raise NotRecognised("a tree ensemble computes in another precision than its input")
    feature = _list(attributes, "nodes_featureids")
    sides = [_list(attributes, f"nodes_{side}nodeids") for side in ("true", "false")]
    leaves = [_list(attributes, f"nodes_{side}leafs").astype(bool) for side in ("true", "false")]
    modes = attributes["nodes_modes"]
    low = _list(attributes, "nodes_missing_value_tracks_true", len(feature)).astype(bool)
    if not len(feature) or feature.min() < 0 or feature.max() >= len(x):
        raise NotRecognised("a tree ensemble asks for columns that are not there")
    stored: Any = np.asarray([columns.stored(c) for c in x], np.int32)
    column, threshold = _questions(attributes, columns, stored[feature], modes, low)
    forest = Forest(
        column, threshold, low, (sides[0], sides[1]), (leaves[0], leaves[1]), _list(attributes, "tree_roots"),
        attributes["leaf_weights"].astype(np.float64, copy=False), _list(attributes, "leaf_targetids"),
        int(attributes["n_targets"]), single,
    )  # fmt: skip
    _check(forest)
    return forest


def _list(attributes: Mapping[str, Any], name: str, default: int = 0) -> Indices:
    found: Indices = attributes.get(name, np.zeros(default, np.int64))
    return found


def _questions(
    attributes: Mapping[str, Any], columns: Columns, column: Indices, modes: Indices, low: npt.NDArray[np.bool_]
) -> tuple[Indices, Numbers]:
    """The column that each node compares, and the highest number that goes left."""
    threshold = attributes["nodes_splits"].astype(np.float64, copy=False)
    if not (len(column) == len(threshold) == len(modes) == len(low)):
        raise NotRecognised("the lists of a tree ensemble differ in length")
    strict = modes == LESS
    asking = np.flatnonzero(modes == MEMBER)
    known = np.count_nonzero(modes == LESS_OR_EQUAL) + np.count_nonzero(strict) + len(asking)
    if known < len(modes) or np.isnan(threshold).any():
        raise NotRecognised("a tree ensemble has comparisons that the converter never writes")
    if np.isneginf(threshold[strict]).any():
        raise NotRecognised("a tree ensemble asks for less than minus infinity")
    if strict.any():
        threshold = np.where(strict, np.nextafter(threshold, -np.inf), threshold)
    if len(asking):
        sets = _sets(attributes["membership_values"].astype(np.float64), len(asking))
        column, threshold = column.copy(), threshold.copy()
        column[asking] = [_outside(columns, int(column[n]), s, bool(low[n])) for n, s in zip(asking, sets, strict=True)]
        threshold[asking] = 0.5
    return column, threshold


def _sets(values: Numbers, count: int) -> list[Numbers]:
    """The sets, which end with NaN each."""
    ends = np.flatnonzero(np.isnan(values))
    if len(ends) != count or ends[-1] != len(values) - 1:
        raise NotRecognised("a tree ensemble has more or fewer sets than nodes that ask for one")
    return [np.unique(part[~np.isnan(part)]) for part in np.split(values, ends[:-1] + 1)]


def _outside(columns: Columns, column: int, listed: Numbers, low: bool) -> int:
    """0 where a value is listed, or is missing and goes left; else 1."""
    if not len(listed):
        raise NotRecognised("a tree ensemble asks for an empty set")
    outside = columns.op("not", columns.member(listed, column))
    if low:
        outside = columns.op("and", outside, columns.op("not", columns.op("isnan", column)))
    return columns.stored(outside)


def _check(f: Forest) -> None:
    count = len(f.column)
    fits = len(f.weight) == len(f.target) and all(
        len(c) == len(s) == count for c, s in zip(f.child, f.leaf, strict=True)
    )
    if not fits or not len(f.roots) or f.roots[0] != 0 or (np.diff(f.roots) <= 0).any() or f.roots[-1] >= count:
        raise NotRecognised("the lists of a tree ensemble do not fit together")
    for child, leaf in zip(f.child, f.leaf, strict=True):
        of_leaves, of_nodes = child[leaf].max(initial=-1), child[~leaf].max(initial=-1)
        if child.min() < 0 or of_leaves >= len(f.weight) or of_nodes >= count:
            raise NotRecognised("a node of a tree ensemble has a child that is not there")
    if f.targets < 1 or (f.target < 0).any() or (f.target >= f.targets).any():
        raise NotRecognised("a leaf of a tree ensemble adds to an output that is not there")


def depths(f: Forest) -> tuple[npt.NDArray[np.uint16], float]:
    """The depth of each tree, and the mean depth of all leaves.

    Raises:
        NotRecognised: a node is below itself, or a tree is deeper than a walk should be.
    """
    tree = np.arange(len(f.roots))
    node, seen, leaves, total = f.roots, 0, 0, 0
    deepest = np.zeros(len(f.roots), np.uint16)
    level = 0
    while len(node):
        level, seen = level + 1, seen + len(node)
        if seen > f.count or level >= MAX_RANK:
            raise NotRecognised("a tree ensemble is not made of trees")
        deepest[tree] = level
        inner = [~leaf[node] for leaf in f.leaf]
        ends = sum(int((~i).sum()) for i in inner)
        leaves, total = leaves + ends, total + ends * level
        node, tree = (
            np.concatenate([child[node][i] for child, i in zip(f.child, inner, strict=True)]),
            np.concatenate([tree[i] for i in inner]),
        )
    return deepest, total / leaves


def tree_targets(f: Forest) -> npt.NDArray[np.uint32]:
    """The output that each tree adds to; raises NotRecognised where one tree adds to several."""
    tree = np.repeat(np.arange(len(f.roots)), np.diff(np.append(f.roots, f.count)))
    pairs = [(tree[leaf], f.target[child[leaf]]) for child, leaf in zip(f.child, f.leaf, strict=True)]
    trees, targets = (np.concatenate(part) for part in zip(*pairs, strict=True))
    first = np.zeros(len(f.roots), np.uint32)
    first[trees] = targets
    if (first[trees] != targets).any():
        raise NotRecognised("a tree adds to several outputs")
    return first


Feature = tuple[int, int, int, int, int]
"""A column; where its thresholds start; how many they are; its rank columns with NaN low, and with NaN high, or -1."""


@dataclass(frozen=True)
class Lookup:
    """Rank columns, from `first` on, that depend on one category: `table` of shape (codes, width)."""

    category: int
    nullable: bool
    first: int
    table: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Ranks:
    """Which column of ranks each node asks, its own rank there, and where the ranks come from."""

    node_column: npt.NDArray[np.uint16]
    node_rank: npt.NDArray[np.uint16]
    features: tuple[Feature, ...]
    thresholds: Numbers
    lookups: tuple[Lookup, ...]
    width: int


@dataclass(frozen=True)
class Questions:
    """The distinct questions of a forest, by column and then by threshold, and per node the number of its own."""

    column: npt.NDArray[np.integer[Any]]
    threshold: Numbers
    asked: npt.NDArray[np.int32]

    def part(self, first: int, last: int) -> Questions:
        """Return the same for the nodes from `first` up to `last`."""
        return replace(self, asked=self.asked[first:last])


def distinct_questions(f: Forest) -> Questions:
    """The distinct pairs of column and threshold that the nodes of a forest ask about."""
    order = np.argsort(f.threshold)
    # Small numbers are sorted by counting them, and a stable sort keeps the thresholds of a column in order.
    column = f.column[order].astype(np.uint16 if f.column.max() <= MAX_RANK else np.int64)
    order = order[np.argsort(column, kind="stable")]
    column, threshold = f.column[order].astype(column.dtype), f.threshold[order]
    fresh = np.append(True, (column[1:] != column[:-1]) | (threshold[1:] != threshold[:-1]))
    asked = np.empty(len(order), np.int32)
    asked[order] = np.cumsum(fresh, dtype=np.int32) - 1
    return Questions(column[fresh], threshold[fresh], asked)


def rank(f: Forest, questions: Questions, columns: Columns) -> Ranks | None:
    """Ranks of a forest's thresholds; None where one column has more of them than a rank can count."""
    used_here = np.zeros(len(questions.column), bool)
    used_here[questions.asked] = True
    column = questions.column[used_here]
    starts = np.flatnonzero(np.append(True, column[1:] != column[:-1]))
    owners = column[starts].astype(np.int64)
    counts = np.diff(np.append(starts, len(column)))
    if counts.max() >= MAX_RANK or 2 * len(owners) > MAX_RANK:
        return None
    sorted_thresholds = questions.threshold[used_here]
    position = (np.cumsum(used_here, dtype=np.int32) - 1)[questions.asked]
    owner = np.searchsorted(owners, f.column)
    used = np.unique(owner * 2 + f.low)
    # Columns of one category side by side, as one look-up fills them.
    category = np.asarray([columns.known[c].category for c in owners], np.int64)
    used = used[np.argsort(category[used // 2], kind="stable")]
    at = np.full(2 * len(owners), -1)
    at[used] = np.arange(len(used))
    features = tuple(
        (int(c), int(s), int(n), int(at[2 * i + 1]), int(at[2 * i]))
        for i, (c, s, n) in enumerate(zip(owners, starts, counts, strict=True))
    )
    lookups = tuple(
        _lookup(columns, int(c), [f for f, k in zip(features, category, strict=True) if k == c], sorted_thresholds)
        for c in np.unique(category[category >= 0])
    )
    numbers = tuple(f for f, k in zip(features, category, strict=True) if k < 0)
    node_column, node_rank = at[owner * 2 + f.low].astype(np.uint16), (position - starts[owner]).astype(np.uint16)
    return Ranks(node_column, node_rank, numbers, sorted_thresholds, lookups, len(used))


def _lookup(columns: Columns, category: int, features: Sequence[Feature], thresholds: Numbers) -> Lookup:
    ranked = {}
    for column, start, count, low, high in features:
        over = columns.known[column].over
        assert over is not None
        below = np.searchsorted(thresholds[start : start + count], over, side="left")
        for at, missing in ((low, 0), (high, MAX_RANK)):
            if at >= 0:
                ranked[at] = np.where(np.isnan(over), missing, below).astype(np.uint16)
    first = min(ranked)
    table = np.ascontiguousarray(np.stack([ranked[first + i] for i in range(len(ranked))], axis=1))
    return Lookup(category, columns.nullable(category), first, table)


def parts(f: Forest, columns: Columns, questions: Questions | None = None) -> list[tuple[Forest, Ranks]]:
    """The forest with its ranks, split where it has too many thresholds for one.

    Args:
        questions: those of its nodes, where they are known.

    Raises:
        NotRecognised: a single tree has too many.
    """
    questions = questions or distinct_questions(f)
    ranks = rank(f, questions, columns)
    if ranks is not None:
        return [(f.ranked(), ranks)]
    if len(f.roots) == 1:
        raise NotRecognised("a tree has more thresholds in one column than can be counted")
    middle = len(f.roots) // 2
    node = int(f.roots[middle])
    halves = ((0, middle, 0, node), (middle, len(f.roots), node, f.count))
    return [p for a, b, start, end in halves for p in parts(f.part(a, b), columns, questions.part(start, end))]


Leaves = npt.NDArray[Any]
Finder = Callable[[int], int]


def lay_out(f: Forest, r: Ranks, leaf_values: Leaves) -> tuple[npt.NDArray[Any], Indices, Leaves]:
    """The kernel's nodes, where trees begin among them, and per node the value of its leaf (0 for inner nodes).

    A tree lies together, its root first; then, for each inner node in the file's order, its two children side by side.
    """
    count = f.count
    sizes = np.diff(np.append(f.roots, count))
    tree = np.repeat(np.arange(len(f.roots)), sizes)
    below = 2 * np.arange(count) + tree + 1
    nodes = np.zeros(2 * count + len(f.roots), NODE)
    values = np.zeros(len(nodes), leaf_values.dtype)
    inner = np.zeros(count, NODE)
    inner["rank"], inner["column"], inner["left"] = r.node_rank, r.node_column, below
    roots = below[f.roots] - 1
    nodes[roots] = inner[f.roots]
    for side in (0, 1):
        at, leaf, child = below + side, f.leaf[side], f.child[side]
        nodes[at[~leaf]] = inner[child[~leaf]]
        nodes["rank"][at[leaf]] = MAX_RANK
        nodes["left"][at[leaf]] = at[leaf]
        values[at[leaf]] = leaf_values[child[leaf]]
    return nodes, roots, values


def pack(part: tuple[Forest, Ranks], slot: Finder, input_slot: Finder, rows: Numbers | None) -> tuple[Any, ...]:
    """The form of one ensemble that the kernel takes.

    Args:
        slot, input_slot: where a column's, and a category's, values stand.
        rows: where leaves are vectors: one row for each of their weights.
    """
    f, r = part
    if rows is not None and not np.isin(f.weight, np.arange(len(rows))).all():
        raise NotRecognised("a leaf stands for a vector that is not there")
    deepest, mean = depths(f)
    weights = f.weight if rows is None else f.weight.astype(np.uint32)
    nodes, roots, values = lay_out(f, r, weights)
    features = [(slot(c), start, count, low, high) for c, start, count, low, high in r.features]
    lookups, start = [], 0
    for lookup in r.lookups:
        size, width = lookup.table.shape
        lookups.append((input_slot(lookup.category), start, size, lookup.first, width, lookup.nullable))
        start += lookup.table.size
    targets = tree_targets(f) if rows is None else np.zeros(len(f.roots), np.uint32)
    return (
        np.asarray(features, np.int32).tobytes(),
        r.thresholds.tobytes(),
        np.asarray(lookups, np.int32).tobytes(),
        b"".join(lookup.table.tobytes() for lookup in r.lookups),
        nodes.tobytes(),
        roots.astype(np.uint32).tobytes(),
        deepest.tobytes(),
        targets.tobytes(),
        values.tobytes(),
        b"" if rows is None else rows.tobytes(),
        r.width,
        f.targets if rows is None else rows.shape[1],
        int(f.single),
        int(float(deepest.max()) > UNEVEN_DEPTH_RATIO * mean),
    )
