"""Find graphs that decide between computed numbers, where the last bit of a sum or an exponential may turn a decision.

A tree that compares the row's own numbers decides as its original does, to the bit. A tree behind a matrix product, a
vote of linear models or a nearest neighbour compares numbers that other libraries, and other processors, compute
differently in the last bit. Rows exactly on such a border prove nothing.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from estiba.model.convert.wire import fields

_GRAPH, _NODE, _CONSTANT, _INPUT, _OUTPUT, _KIND, _CONSTANT_NAME = 7, 1, 5, 1, 2, 4, 8
"""Numbers of fields: of a model, of a graph, of a node and of a constant."""

_ROUNDED = """
    MatMul Gemm Exp Log Pow Tanh Sigmoid Softmax ReduceSum ReduceMean ReduceL2 Sum Erf
"""
"""Operators whose last bit depends on who computes them."""

_DECIDING = """
    TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor Greater GreaterOrEqual Less LessOrEqual Equal ArgMax
    ArgMin Floor Ceil Round Sign ReduceMin
"""
"""Operators whose answer jumps."""

_ASKING = "Greater GreaterOrEqual Less LessOrEqual Equal And Or Not IsNaN IsInf"
"""Operators that answer yes or no; sums of that are whole numbers, which nobody rounds."""


def decides_between_rounded(content: bytes) -> bool:
    """Tell whether a node of an ONNX file that jumps reads a number that another library may round differently.

    Nearest neighbours always do: scikit-learn computes the distances to many points by a matrix product. Sums of looked
    up rows do not: each row is zero outside the columns of its own category (`columns.py`), so nothing is rounded.
    """
    rounding, deciding, asking = (set(names.split()) for names in (_ROUNDED, _DECIDING, _ASKING))
    rounded: set[str] = set()
    nodes, tables = _outline(content)
    truths: set[str] = set()
    looked_up: set[str] = set()
    for node in nodes:  # each before those that read it
        reads = any(name in rounded for name in node.input)
        if node.kind == "TopK" or (reads and node.kind in deciding):
            return True
        if node.kind in asking or (node.kind == "Cast" and node.input[0] in truths):
            truths.update(node.output)
        elif reads or (node.kind in rounding and not _is_exact_sum(node, truths, looked_up)):
            rounded.update(node.output)
        elif node.kind == "Gather" and node.input[0] in tables:
            looked_up.update(node.output)
    return False


def _is_exact_sum(node: _Node, truths: Set[str], looked_up: Set[str]) -> bool:
    first = node.input[0]
    return first in truths or (node.kind == "ReduceSum" and first in looked_up)


class _Node(NamedTuple):
    """The operator of a node, and the names of its tensors."""

    kind: str
    input: tuple[str, ...]
    output: tuple[str, ...]


def _outline(content: bytes) -> tuple[list[_Node], set[str]]:
    """The nodes of an ONNX file in order, and the names of its constants; nothing large is read."""
    (graph,) = (part for number, part in fields(memoryview(content)) if number == _GRAPH)
    nodes, constants = [], set()
    for number, part in fields(graph):
        if number == _NODE:
            texts: dict[int, list[str]] = {_KIND: [""], _INPUT: [], _OUTPUT: []}
            for name, text in fields(part):
                if name in texts:
                    texts[name].append(str(text, "utf-8"))
            nodes.append(_Node(texts[_KIND][-1], tuple(texts[_INPUT]), tuple(texts[_OUTPUT])))
        elif number == _CONSTANT:
            constants |= {str(text, "utf-8") for name, text in fields(part) if name == _CONSTANT_NAME}
    return nodes, constants
